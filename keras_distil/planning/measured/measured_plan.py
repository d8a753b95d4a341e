"""Measures a recipe's updates, and plans it for this machine."""

import statistics
from collections.abc import Callable
from typing import Any

from keras_distil.config import Recipe
from keras_distil.planning import estimate
from keras_distil.planning.measured import costs, prediction, process
from keras_distil.planning.measured.costs import Step, step_of
from keras_distil.planning.measured.prediction import Measurement, predict
from keras_distil.planning.measured.process import MeasuredRecipe

# Most tokens of a measured update: a few seconds of BERT-base on two cores.
MOST_TOKENS = 2048
# The first update compiles, the second still fills caches.
WARM_UP_UPDATES = 2
TIMED_UPDATES = 5
_BUSY = 0.1


def measure(
    recipe: Recipe, *, progress: Callable[[int, int], None] | None = None
) -> Measurement:
    """Measures some updates of a recipe on this machine.

    They are real updates of its Distiller, on random words, in a separate
    process. A recipe with more than `MOST_TOKENS` tokens per update is
    measured on fewer sequences, one with a cached teacher on a live one.

    Args:
        recipe: a recipe with a `distill` section.
        progress: called with the number of updates done and in total.

    Returns:
        The measurement.

    Raises:
        ValueError: if the recipe distils nothing, its models cannot be made,
            or a micro-batch needs more memory than the machine has.
        RuntimeError: if the run ends, most likely for lack of memory.
        ConnectionError: if a shape cannot be downloaded.
    """
    if recipe.distill is not None and recipe.distill.embeds:
        raise ValueError(
            "A measured plan is for masked language modelling. A run of "
            "sentence embeddings says after some updates how long the others "
            "take, and `minutes` sets how long it takes."
        )
    _check_memory(step_of(recipe))
    measured = shorter(recipe)
    total = WARM_UP_UPDATES + TIMED_UPDATES
    with MeasuredRecipe(measured) as running:
        updates = []
        for done in range(1, total + 1):
            updates.append(running.update())
            if progress is not None:
                progress(done, total)
        del updates[:WARM_UP_UPDATES]
        return measurement(
            running,
            measured,
            seconds=statistics.median(x.seconds for x in updates),
            others=statistics.median(x.others for x in updates),
            updates=len(updates),
        )


def measurement(
    running: MeasuredRecipe,
    recipe: Recipe,
    *,
    seconds: float,
    others: float,
    updates: int,
) -> Measurement:
    """Returns a running process's measurement, with the machine's rates.

    Args:
        running: the process, after its updates.
        recipe: the recipe that it runs.
        seconds: seconds per update.
        others: share of the processor used by others meanwhile.
        updates: number of timed updates.

    Raises:
        RuntimeError: if the process ends.
    """
    peak_gb = running.peak_gb
    rates = running.rates()
    return Measurement(
        step=step_of(recipe),
        seconds=seconds,
        others=others,
        base_gb=running.base_gb,
        peak_gb=peak_gb,
        matrix_flops=rates[recipe.precision],
        bandwidth=rates["bandwidth"],
        updates=updates,
    )


def shorter(recipe: Recipe) -> Recipe:
    """Limits a recipe to `MOST_TOKENS` tokens per update, and no cache.

    If one micro-batch is short enough, micro-batches keep their size and there
    is only one; a longer one becomes a batch of fewer sequences.

    Args:
        recipe: a recipe with a `distill` section.
    """
    step = step_of(recipe)
    sequences = min(step.sequences, max(1, MOST_TOKENS // step.length))
    parts = 1
    if sequences == step.sequences:
        parts = max(1, MOST_TOKENS // step.tokens)
    parts = min(parts, step.micro_batches)
    sections: dict[str, Any] = {
        "distill": recipe.distill.model_copy(
            update={"batch_size": parts * sequences, "micro_batches": parts}
        )
        if recipe.distill
        else None,
        "teacher": recipe.teacher.model_copy(update={"cache": None}),
    }
    return recipe.model_copy(update=sections)


def durations(recipe: Recipe, measured: Measurement) -> dict[str, Any]:
    """Plans a recipe for the machine that was measured.

    Args:
        recipe: a recipe with a `distill` section, in the measured precision.
        measured: as returned by `measure`.

    Returns:
        "memory_gb", "device", "measured", "assumptions", "time" and
        "where_the_time_goes", each with names and values.

    Raises:
        ValueError: if the recipe distils nothing or is in another precision.
    """
    step = step_of(recipe)
    prediction = predict(measured, step)
    total_gb = process.machine_memory() / 1e9
    peak = prediction.peak_gb
    return {
        "memory_gb": {
            name: round(x, 3)
            for name, x in {**prediction.memory_gb, "total": peak}.items()
        },
        "device": {
            "name": "this machine's processor",
            "cores": process.processors(),
            "peak_tflops": round(measured.matrix_flops / 1e12, 3),
            "bandwidth_gb_per_second": round(measured.bandwidth / 1e9, 1),
            "memory_gb": round(total_gb, 1),
            "memory_needed_gb": round(peak, 2),
            "fits": "yes"
            if peak < total_gb
            else "no: raise `distill.micro_batches`",
        },
        "measured": _measured(measured),
        "assumptions": _assumptions(measured, step),
        "time": estimate.time_of(recipe, prediction.step_s),
        "where_the_time_goes": estimate.shares(prediction.seconds),
    }


def _measured(measured: Measurement) -> dict[str, Any]:
    step = measured.step
    figures = {
        "updates": measured.updates,
        "sequences_per_update": step.sequences * step.micro_batches,
        "micro_batches": step.micro_batches,
        "tokens_per_sequence": step.length,
        "seconds_per_update": round(measured.seconds, 4),
        "peak_memory_gb": round(measured.peak_gb, 3),
        "times_the_ideal": round(prediction.slowness(measured), 3),
        "processor_used_by_others": f"{100 * measured.others:.0f}%",
    }
    if measured.others > _BUSY:
        figures["warning"] = (
            "the machine was busy and is faster when idle; measure again"
        )
    return figures


def _assumptions(measured: Measurement, step: Step) -> dict[str, str]:
    assumptions = {
        "time": "parts in proportion to their products at the measured peak "
        "and their traffic at the measured bandwidth",
        "memory": "weights, moments, gradients, activations and logits add up "
        "on what the measured run had beside them",
        "precision": step.precision,
        "padding": "none: every token counts",
        "left_out": "corpus, input, TensorBoard, checkpoints, evaluation, "
        "baseline",
    }
    if not step.live_teacher:
        assumptions["teacher"] = "measured live; on disk it costs no time"
    return assumptions


def _check_memory(step: Step) -> None:
    needed = sum(costs.memory(step).values())
    available = process.machine_memory()
    if needed > available:
        raise ValueError(
            f"A micro-batch of {step.sequences} sequences of {step.length} "
            f"tokens needs about {needed / 1e9:.0f} GB, and this machine has "
            f"{available / 1e9:.0f}. Raise `distill.micro_batches` or lower "
            "`distill.batch_size`."
        )
