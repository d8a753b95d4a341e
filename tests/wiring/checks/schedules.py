"""Checks of what changes in a distillation: `schedules` and `balance`."""

import math
from typing import Any

from recording import Recording
from runs import OTHER_TEXT_LOSSES, scheduled

from checks.table import of_fit, seen
from keras_distil import callbacks
from keras_distil.losses import registry


def curve(made: Recording, name: str, *steps: int) -> list[float]:
    """Values of a schedule at some updates."""
    if name.endswith("temperature"):
        loss = name.rpartition(".")[0] or "soft_target"
        fit = made.fit("distill")
        (found,) = (
            x
            for x in fit.arguments["callbacks"]
            if isinstance(x, callbacks.TemperatureScheduler) and x.loss == loss
        )
    else:
        (found,) = (
            x
            for x in made.fit("distill").arguments["callbacks"]
            if isinstance(x, callbacks.LossWeightScheduler) and x.loss == name
        )
    return [float(found.schedule(step)) for step in steps]


def of_curve(keys: str, run: str, at: str, name: str, curves: Any) -> None:
    """Checks several keys of one schedule by the same values."""
    for key in keys.split():
        place = f"distill.schedules.{at}"
        seen(key, run, wanted=list(curves.values()), at=f"{place}")(
            lambda runs, made: curve(made, name, *curves)
        )


LINEAR = {0: 5.0, 4: 4.0, 8: 3.0, 20: 3.0}
COSINE = {2: 3 + 2 * (1 + math.cos(math.pi / 4)) / 2, 4: 4.0, 8: 3.0}
EXPONENTIAL = {0: 8.0, 2: 4.0, 4: 2.0, 9: 2.0}
PIECEWISE = {2: 0.5, 3: 0.25, 6: 0.25, 7: 0.75}
of_curve(
    "distill.schedules.soft_target.temperature RampSchedule.start "
    "RampSchedule.end RampSchedule.steps",
    "schedules",
    "soft_target.temperature",
    "temperature",
    LINEAR,
)
of_curve(
    "RampSchedule.kind",
    "cosine",
    "soft_target.temperature",
    "temperature",
    COSINE,
)
of_curve(
    "distill.schedules.mlm.weight ExponentialSchedule.kind "
    "ExponentialSchedule.start ExponentialSchedule.end "
    "ExponentialSchedule.steps",
    "schedules",
    "mlm.weight",
    "mlm",
    EXPONENTIAL,
)
of_curve(
    "distill.schedules.soft_target.weight PiecewiseSchedule.kind "
    "PiecewiseSchedule.boundaries PiecewiseSchedule.values",
    "schedules",
    "soft_target.weight",
    "soft_target",
    PIECEWISE,
)
of_curve(
    "distill.schedules.cosine.weight ConstantSchedule.kind "
    "ConstantSchedule.value",
    "schedules",
    "cosine.weight",
    "cosine",
    {0: 0.375, 50: 0.375},
)
for other in OTHER_TEXT_LOSSES:
    for setting in scheduled(other):
        of_curve(
            f"distill.schedules.{other}.{setting}",
            "schedules",
            f"{other}.{setting}",
            other if setting == "weight" else f"{other}.{setting}",
            {0: 0.375, 50: 0.375},
        )

of_fit(
    "distill.balance.",
    "balance",
    "distill",
    **{
        name: lambda fit, name=name: fit.callback(
            callbacks.GradientBalancer
        ).ratios[name]
        for name in (*registry.TEXT_DEFAULTS, *OTHER_TEXT_LOSSES)
    },
    every_steps=lambda fit: (
        fit.callback(callbacks.GradientBalancer).every_steps
    ),
)
