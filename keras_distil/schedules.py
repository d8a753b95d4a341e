"""Schedules: functions from a step to a value.

They are Keras learning-rate schedules, so one object can drive a temperature,
a loss weight or an optimizer's learning rate. A step is the number of updates
so far; the first update sees step 0.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_distil.utils.checks import check_count, check_number

Tensor = Any


def _register(cls: type) -> type:
    return keras.saving.register_keras_serializable(package="keras_distil")(cls)


@_register
class Constant(LearningRateSchedule):
    """The same value at every step.

    Args:
        value: float.

    Example:
        >>> float(Constant(2.0)(7))
        2.0
    """

    def __init__(self, value: float) -> None:
        self.value = check_number("value", value)

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`, scalar float32."""
        return ops.full_like(ops.cast(step, "float32"), self.value)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the schedule."""
        return {"value": self.value}


class _Ramp(LearningRateSchedule):
    """Goes from `start` to `end` over `steps` updates, then stays."""

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.start = check_number("start", start)
        self.end = check_number("end", end)
        self.steps = check_count("steps", steps)

    def _progress(self, step: Tensor) -> Tensor:
        """Returns the completed share of the ramp, 0 to 1, scalar float32."""
        return ops.clip(ops.cast(step, "float32") / self.steps, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the schedule."""
        return {"start": self.start, "end": self.end, "steps": self.steps}


@_register
class Linear(_Ramp):
    """A straight line from `start` to `end`.

    Formula:
        value = start + (end - start) * min(step / steps, 1)

    Args:
        start: float, the value at step 0.
        end: float, the value from step `steps` on.
        steps: int >= 1.

    Example:
        >>> [float(Linear(4.0, 1.0, steps=2)(step)) for step in (0, 1, 9)]
        [4.0, 2.5, 1.0]
    """

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`, scalar float32."""
        progress = self._progress(step)
        # Not start + (end - start) * progress: this form hits `end` exactly.
        return self.start * (1.0 - progress) + self.end * progress


@_register
class Cosine(_Ramp):
    """Half a cosine wave from `start` to `end`.

    Formula:
        value = end + (start - end) * (1 + cos(pi * min(step / steps, 1))) / 2

    Args:
        start: float, the value at step 0.
        end: float, the value from step `steps` on.
        steps: int >= 1.

    Example:
        >>> float(Cosine(4.0, 1.0, steps=10)(10))
        1.0

    Reference:
        Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`, scalar float32."""
        wave = 0.5 * (1.0 + ops.cos(3.141592653589793 * self._progress(step)))
        return self.start * wave + self.end * (1.0 - wave)


@_register
class Exponential(_Ramp):
    """A constant ratio per step from `start` to `end`.

    Formula:
        value = start * (end / start) ** min(step / steps, 1)

    Args:
        start: float > 0, the value at step 0.
        end: float > 0, the value from step `steps` on.
        steps: int >= 1.

    Example:
        >>> float(Exponential(4.0, 1.0, steps=2)(1))
        2.0
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        super().__init__(start, end, steps)
        if start <= 0 or end <= 0:
            raise ValueError(
                "`start` and `end` of an exponential schedule must be "
                f"positive. Received: start={start}, end={end}."
            )

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`, scalar float32."""
        return self.start * ops.power(
            self.end / self.start, self._progress(step)
        )


@_register
class Piecewise(LearningRateSchedule):
    """Constant between boundaries.

    Args:
        boundaries: increasing ints; `values[i]` applies while the step is
            below `boundaries[i]`.
        values: floats, one more than the boundaries.

    Example:
        >>> schedule = Piecewise([10], [4.0, 1.0])
        >>> float(schedule(9)), float(schedule(10))
        (4.0, 1.0)
    """

    def __init__(
        self, boundaries: Sequence[int], values: Sequence[float]
    ) -> None:
        self.boundaries = [check_count("boundaries", b) for b in boundaries]
        self.values = [check_number("values", v) for v in values]
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "`values` must be one longer than `boundaries`. Received: "
                f"boundaries={list(boundaries)}, values={list(values)}."
            )
        if sorted(set(self.boundaries)) != self.boundaries:
            raise ValueError(
                "`boundaries` must increase. "
                f"Received: boundaries={list(boundaries)}."
            )

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`, scalar float32."""
        step = ops.cast(step, "float32")
        value = ops.full_like(step, self.values[0])
        for boundary, following in zip(
            self.boundaries, self.values[1:], strict=True
        ):
            value = ops.where(step < boundary, value, following)
        return value

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the schedule."""
        return {"boundaries": self.boundaries, "values": self.values}


@_register
class Warmup(LearningRateSchedule):
    """Rises from 0 to the first value of another schedule, then follows it.

    Formula:
        value = schedule(0) * (step + 1) / steps   while step < steps
        value = schedule(step - steps)             from then on

    Args:
        schedule: the schedule to follow, or a float for a constant.
        steps: int >= 1, the length of the rise.

    Example:
        >>> schedule = Warmup(Linear(1.0, 0.0, steps=10), steps=2)
        >>> [round(float(schedule(step)), 1) for step in (0, 1, 2, 7)]
        [0.5, 1.0, 1.0, 0.5]
    """

    def __init__(
        self, schedule: LearningRateSchedule | float, steps: int
    ) -> None:
        if isinstance(schedule, (int, float)):
            schedule = Constant(schedule)
        if not isinstance(schedule, LearningRateSchedule):
            raise TypeError(
                "`schedule` must be a schedule or a number. "
                f"Received: schedule={schedule!r}."
            )
        self.schedule = schedule
        self.steps = check_count("steps", steps)

    def __call__(self, step: Tensor) -> Tensor:
        """Returns the value at `step`, scalar float32."""
        step = ops.cast(step, "float32")
        rise = ops.minimum((step + 1.0) / self.steps, 1.0)
        return rise * self.schedule(ops.maximum(step - self.steps, 0.0))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the schedule."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        """Builds the schedule that `get_config` describes."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"])
