"""Checks of the section `search`."""

import math
from typing import Any

from recording import Recording
from runs import DISTILL

from checks.table import seen


@seen("search.tuner", "search", wanted=(False, True))
def _(runs, made):
    """Whether values are tried in order, as the tuner `grid` of `slow` does."""
    values = [
        [
            row["values"]["distill.losses.soft_target.temperature"]
            for row in run.json("search.json")["trials"][1:]
        ]
        for run in (made, runs("slow"))
    ]
    return values[0] == sorted(values[0]), values[1] == [1.5, 4.5]


@seen("search.trials", "search", wanted=2)
def _(runs, made):
    return len(made.json("search.json")["trials"]) - 1


@seen("search.objective", "search", wanted=("mlm_loss", "min", True))
def _(runs, made):
    found = made.json("search.json")
    own, *trials = found["trials"]
    best = min(trials, key=lambda row: row["score"])
    return (
        found["objective"],
        found["direction"],
        trials.index(best) + 1 == found["best"],
    )


@seen("search.max_latency_ms", "slow", wanted=[None, None, None])
def _(runs, made):
    return [row["score"] for row in made.json("search.json")["trials"]]


@seen("search.evaluations", "search", wanted=({4}, {DISTILL["steps"] // 4}))
def _(runs, made):
    return tuple(
        {fit.arguments[name] for fit in made.fits}
        for name in ("epochs", "steps_per_epoch")
    )


def dimension(made: Recording, key: str) -> dict[str, Any]:
    """One key of the space as the tuner has it."""
    space = made.json("trials/oracle.json")["hyperparameters"]["space"]
    (found,) = (x["config"] for x in space if x["config"]["name"] == key)
    return found


@seen("search.space", "search", wanted=True)
def _(runs, made):
    """Every trial is built with its own values."""
    trials = made.json("search.json")["trials"][1:]
    return all(
        math.isclose(float(fit.loss("soft_target").temperature), temperature)
        and math.isclose(fit.rate(0), rate, rel_tol=1e-5)
        for fit, temperature, rate in (
            (
                fit,
                row["values"]["distill.losses.soft_target.temperature"],
                row["values"]["distill.learning_rate"],
            )
            for fit, row in zip(made.fits[1:], trials, strict=True)
        )
    )


for key, name, place in (
    ("min", "min_value", "distill.learning_rate"),
    ("max", "max_value", "distill.learning_rate"),
    ("scale", "sampling", "distill.learning_rate"),
    ("choices", "values", "distill.losses.soft_target.temperature"),
):
    seen(f"Dimension.{key}", "search", at=("search", "space", place, key))(
        lambda runs, made, name=name, place=place: dimension(made, place)[name]
    )
