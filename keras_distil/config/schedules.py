"""Schedules in a recipe, as plain values."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

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
    """From `start` to `end` by a constant factor per step, then `end`."""

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


def schedule_of(section: type[Section], setting: str) -> Any:
    """The type of a schedule for a setting, with the setting's valid values.

    Args:
        section: the section that has the setting.
        setting: name of a numeric setting.
    """

    def check(schedule: Schedule) -> Schedule:
        values = schedule.extremes()
        for value in values:
            try:
                section.model_validate({setting: value})
            except ValidationError as error:
                (details,) = error.errors(include_url=False)
                limit = details["msg"].removeprefix("Input should be ")
                raise ValueError(
                    f"must stay {limit}, as `{setting}` must. "
                    f"Received: values {values}."
                ) from error
        return schedule

    return Annotated[Schedule, AfterValidator(check)]
