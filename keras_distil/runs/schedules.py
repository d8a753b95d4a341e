"""Turns a recipe's schedules into callables and callbacks."""

from collections.abc import Callable

import keras

from keras_distil import callbacks, schedules
from keras_distil.config import schedules as schedule_settings
from keras_distil.config.distill_section import DistillSection


def make_schedule(settings: schedule_settings.Schedule) -> Callable:
    """Makes a schedule from its values in a recipe."""
    if isinstance(settings, schedule_settings.ConstantSchedule):
        return schedules.Constant(settings.value)
    if isinstance(settings, schedule_settings.PiecewiseSchedule):
        return schedules.Piecewise(settings.boundaries, settings.values)
    ramp = {
        "linear": schedules.Linear,
        "cosine": schedules.Cosine,
        "exponential": schedules.Exponential,
    }[settings.kind]
    return ramp(settings.start, settings.end, steps=settings.steps)


def make_schedulers(
    settings: DistillSection,
) -> list[keras.callbacks.Callback]:
    """Makes the schedulers of `distill.schedules`."""
    made: list[keras.callbacks.Callback] = []
    for name, by_setting in settings.schedules.by_name.items():
        for setting, values in by_setting.items():
            schedule = make_schedule(values)
            if setting == "temperature":
                made.append(callbacks.TemperatureScheduler(schedule, name))
            else:
                made.append(callbacks.LossWeightScheduler(name, schedule))
    return made
