"""What a run settles once on its machine, and keeps when it is continued.

A recipe may leave its precision and its number of updates to the machine. A run
measures, writes down what it settled on beside the measurements, and works with
a recipe that holds these values.
"""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from keras_distil import config
from keras_distil.benchmark.matrix_products import (
    PRECISIONS,
    matrix_product_flops,
)
from keras_distil.runs.run_folder import SETTLED_FILE, Run, read_text
from keras_distil.training import distribution
from keras_distil.utils.section import Count, Positive, Section

# Rows of the matrices whose product is timed: some tenths of a second in all.
_ROWS = 1024


class SettledPrecision(Section):
    """The precision of a run, and the rates that it was chosen by.

    Attributes:
        value: the precision.
        gflops: 1e9 FLOP per second of a product of large matrices, by
            precision; one that the device lacks is left out.
    """

    value: Literal["float32", "mixed_bfloat16"]
    gflops: dict[Literal["float32", "mixed_bfloat16"], Positive]

    def __str__(self) -> str:
        """The choice and its reason, in one line."""
        return f"{self.value} ({self.rates})"

    @property
    def rates(self) -> str:
        """The rates in words."""
        rates = ", ".join(
            f"{x} {self.gflops[x]:,.0f}" if x in self.gflops else f"{x} fails"
            for x in PRECISIONS
        )
        return f"matrix products, GFLOP/s: {rates}"


class SettledSteps(Section):
    """The number of updates of a run, and the times it was found from.

    Attributes:
        value: updates of the student, and of the baseline.
        student_s: seconds per update of the student.
        baseline_s: those of the baseline; None without one.
        left_s: seconds there were for all updates.
    """

    value: Count
    student_s: Positive
    baseline_s: Positive | None = None
    left_s: Positive


class Settled(Section):
    """What a run settled on; None for what its recipe gives.

    Attributes:
        precision: in place of `precision: auto`.
        jit_compile: what XLA compiles in the training on text.
        steps: in place of `minutes`.
    """

    precision: SettledPrecision | None = None
    jit_compile: bool | Literal["products"] | None = None
    steps: SettledSteps | None = None


def settle_precision(run: Run) -> None:
    """Replaces `precision: auto` of a run's recipe with a precision.

    It is the one in which this device multiplies large matrices faster. Every
    worker takes the chief's. A recipe's own bfloat16 stays, and the run says so
    if this device is faster without.

    Args:
        run: the run; its recipe is replaced.

    Raises:
        ValueError: if what the run settled on is damaged, or this device cannot
            multiply in the recipe's precision.
    """
    if run.recipe.precision == "mixed_bfloat16":
        _check_bfloat16(run)
    if run.recipe.precision != "auto":
        return
    precision = read_settled(run.folder).precision
    if precision is None:
        precision = measure_precision()
        keep(run, precision=precision)
    chosen = distribution.take_from_chief(PRECISIONS.index(precision.value))
    run.progress.say(f"Precision: {precision}")
    run.recipe = run.recipe.model_copy(update={"precision": PRECISIONS[chosen]})


def _check_bfloat16(run: Run) -> None:
    measured = measure_precision()
    if "mixed_bfloat16" not in measured.gflops:
        raise ValueError(
            "`precision: mixed_bfloat16` fails on this machine. Use `float32`, "
            "or `auto`, which takes the faster precision."
        )
    if measured.value == "float32":
        run.progress.say(
            "Precision: mixed_bfloat16, as the recipe says, but float32 is "
            f"faster here ({measured.rates}). `precision: auto` takes the "
            "faster one."
        )


def measure_precision() -> SettledPrecision:
    """Finds the precision in which this device multiplies matrices faster."""
    rates = {
        name: round(flops / 1e9, 1)
        for name, flops in matrix_product_flops(_ROWS).items()
    }
    fastest = max(rates, key=rates.__getitem__)
    return SettledPrecision.model_validate({"value": fastest, "gflops": rates})


def with_settled(recipe: config.Recipe, folder: Path) -> config.Recipe:
    """Returns a run's recipe with the values that its folder settled on.

    Raises:
        ValueError: if they are damaged.
    """
    settled = read_settled(folder)
    if recipe.precision == "auto" and settled.precision is not None:
        precision = settled.precision.value
        recipe = recipe.model_copy(update={"precision": precision})
    if settled.steps is not None:
        recipe = with_steps(recipe, settled.steps.value)
    return recipe


def with_steps(recipe: config.Recipe, steps: int) -> config.Recipe:
    """Returns a recipe whose `minutes` are replaced by updates."""
    distill = recipe.distill
    if distill is None or not counts_minutes(recipe):
        return recipe
    counted = distill.model_copy(update={"steps": steps, "minutes": None})
    return recipe.model_copy(update={"distill": counted, "minutes": None})


def counts_minutes(recipe: config.Recipe) -> bool:
    """Whether a recipe says in minutes how long it trains."""
    distill = recipe.distill
    return distill is not None and distill.duration in (None, "minutes")


def keep(
    run: Run,
    *,
    precision: SettledPrecision | None = None,
    jit_compile: bool | Literal["products"] | None = None,
    steps: SettledSteps | None = None,
) -> None:
    """Writes down what a run has settled on, if this process writes."""
    known = read_settled(run.folder)
    now = Settled(
        precision=precision or known.precision,
        jit_compile=known.jit_compile if jit_compile is None else jit_compile,
        steps=steps or known.steps,
    )
    run.write_json(run.folder / SETTLED_FILE, now.model_dump())


def read_settled(folder: Path) -> Settled:
    """Reads what a run has settled on.

    Raises:
        ValueError: if the file is damaged: the run could not go on with equal
            weights.
    """
    path = folder / SETTLED_FILE
    text = read_text(path)
    try:
        return Settled.model_validate_json(text) if text else Settled()
    except ValidationError:
        raise ValueError(
            f"{path} is damaged, and without what it settled the run cannot go "
            "on with equal weights. Start anew with --fresh, which moves the "
            "earlier run aside."
        ) from None
