"""The schedules a recipe may give, as plain values."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from keras_distil.utils.section import Count, Positive, Section


class ConstantSchedule(Section):
    """One value for the whole run."""

    kind: Literal["constant"]
    value: float

    def extremes(self) -> list[float]:
        """Returns values between which the schedule stays."""
        return [self.value]


class RampSchedule(Section):
    """From `start` to `end` over `steps` steps, then `end`."""

    kind: Literal["linear", "cosine"]
    start: float
    end: float
    steps: Count

    def extremes(self) -> list[float]:
        """Returns values between which the schedule stays."""
        return [self.start, self.end]


class ExponentialSchedule(Section):
    """From `start` to `end` by a constant factor a step, then `end`."""

    kind: Literal["exponential"]
    start: Positive
    end: Positive
    steps: Count

    def extremes(self) -> list[float]:
        """Returns values between which the schedule stays."""
        return [self.start, self.end]


class PiecewiseSchedule(Section):
    """`values[i]` until step `boundaries[i]`, then the next value."""

    kind: Literal["piecewise"]
    boundaries: Annotated[list[Count], Field(min_length=1)]
    values: list[float]

    @field_validator("boundaries")
    @classmethod
    def _boundaries_increase(cls, boundaries: list[int]) -> list[int]:
        if sorted(set(boundaries)) != boundaries:
            raise ValueError(
                f"must increase from step to step. Received: {boundaries}."
            )
        return boundaries

    @field_validator("values")
    @classmethod
    def _values_fit_boundaries(
        cls, values: list[float], info: ValidationInfo
    ) -> list[float]:
        boundaries = info.data.get("boundaries")
        if boundaries and len(values) != len(boundaries) + 1:
            raise ValueError(
                "must hold one value more than `boundaries`. Received: "
                f"{len(values)} values, {len(boundaries)} boundaries."
            )
        return values

    def extremes(self) -> list[float]:
        """Returns values between which the schedule stays."""
        return self.values


Schedule: TypeAlias = Annotated[
    ConstantSchedule | RampSchedule | ExponentialSchedule | PiecewiseSchedule,
    Field(discriminator="kind"),
]


def _stays_positive(schedule: Schedule) -> Schedule:
    if min(schedule.extremes()) <= 0:
        raise ValueError(
            "must stay positive: it divides logits. "
            f"Received: values {schedule.extremes()}."
        )
    return schedule


def _stays_non_negative(schedule: Schedule) -> Schedule:
    if min(schedule.extremes()) < 0:
        raise ValueError(
            "must stay at 0 or above: it weighs a loss. "
            f"Received: values {schedule.extremes()}."
        )
    return schedule


TemperatureSchedule: TypeAlias = Annotated[
    Schedule, AfterValidator(_stays_positive)
]
WeightSchedule: TypeAlias = Annotated[
    Schedule, AfterValidator(_stays_non_negative)
]
