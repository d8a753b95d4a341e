"""`search`: the keys to search, their values, and the method."""

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from keras_distil.config.earlier_form import MOVED
from keras_distil.config.losses_section import NamedSettings
from keras_distil.utils.section import Count, NonEmptyText, Positive, Section

HeldOutObjective: TypeAlias = Literal["teacher_agreement", "mlm_loss"]
HELD_OUT_OBJECTIVES: tuple[str, ...] = get_args(HeldOutObjective)
# Of sentence embeddings.
EMBEDDING_OBJECTIVES = ("teacher_agreement",)

# Keys that must be the same in all trials: how long they train, what they are
# compared on, and where they run.
_FIXED = (
    "distill.task",
    "student.kind",
    "student.source",
    "student.baseline_source",
    "distill.steps",
    "distill.epochs",
    "distill.minutes",
    "distill.baseline",
    "distill.strategy",
    "distill.micro_batches",
    "distill.jit_compile",
)


class Dimension(Section):
    """One key of a search space: `choices`, or a range from `min` to `max`.

    `scale: log` draws as many values between 0.1 and 1 as between 1 and 10.
    Keys that take whole numbers get whole numbers.
    """

    min: float | None = None
    max: Annotated[float | None, Field(validate_default=True)] = None
    scale: Literal["linear", "log"] = "linear"
    choices: Annotated[list[Any] | None, Field(validate_default=True)] = None

    @field_validator("max")
    @classmethod
    def _not_empty(
        cls, highest: float | None, info: ValidationInfo
    ) -> float | None:
        # Missing if `min` itself is invalid.
        lowest = info.data.get("min", math.nan)
        if (lowest is None) != (highest is None):
            raise ValueError(
                "`min` and `max` need each other. "
                f"Received: min={lowest}, max={highest}."
            )
        if lowest is not None and highest is not None and lowest >= highest:
            raise ValueError(
                "must be above `min`: the range is empty. "
                f"Received: min={lowest}, max={highest}."
            )
        return highest

    @field_validator("scale")
    @classmethod
    def _logarithm_exists(cls, scale: str, info: ValidationInfo) -> str:
        lowest = info.data.get("min")
        if scale == "log" and lowest is not None and lowest <= 0:
            raise ValueError(
                f"log needs a `min` above 0. Received: min={lowest}."
            )
        return scale

    @field_validator("choices")
    @classmethod
    def _one_of_both(
        cls, choices: list[Any] | None, info: ValidationInfo
    ) -> list[Any] | None:
        # Missing if one of them is itself invalid.
        if not {"min", "max"} <= set(info.data):
            return choices
        ranged = info.data["min"] is not None
        if choices is None:
            if not ranged:
                raise ValueError("required, or `min` and `max` in its place.")
            return None
        if ranged:
            raise ValueError("has no use for `min` and `max`; remove them.")
        labels = [label(choice) for choice in choices]
        if len(set(labels)) < max(2, len(labels)):
            raise ValueError(
                "must hold at least two values, each of them once. "
                f"Received: {', '.join(labels) or 'none'}."
            )
        return choices

    @property
    def bounds(self) -> tuple[float, float] | None:
        """`min` and `max`; None for `choices`."""
        if self.min is None or self.max is None:
            return None
        return self.min, self.max

    def by_value(self) -> dict[Any, Any]:
        """Choices by the form in which a tuner handles them: number or text."""
        choices = self.choices or []
        kinds = {type(choice) for choice in choices}
        if kinds <= {int, float}:
            kind = int if kinds == {int} else float
            return {kind(choice): choice for choice in choices}
        return {label(choice): choice for choice in choices}

    def extremes(self) -> list[Any]:
        """The ends of the range, or every choice."""
        return list(self.bounds or self.choices or ())


Space: TypeAlias = Mapping[str, Dimension]


class SearchSection(Section):
    """`search`: values for some keys of `student` and `distill`.

    Every trial distils the same initial student, or one of its own shape, with
    `distill.steps` updates. `objective` is `teacher_agreement` or `mlm_loss` on
    held-out text, or one of `finetune.tasks`. A student that takes longer than
    `max_latency_ms` for one sequence of `evaluate.latency_length` tokens is not
    trained. `evaluations` is the number of times a trial is scored: `hyperband`
    ends the worse trials at one of them.
    """

    tuner: Literal["random", "bayesian", "hyperband", "grid"] = "bayesian"
    trials: Count = 12
    objective: NonEmptyText = "teacher_agreement"
    max_latency_ms: Positive | None = None
    evaluations: Annotated[Count, Field(validate_default=True)] = 1
    space: Annotated[dict[str, Dimension], Field(min_length=1)]

    @field_validator("evaluations")
    @classmethod
    def _hyperband_compares(cls, evaluations: int, info: ValidationInfo) -> int:
        if info.data.get("tuner") == "hyperband" and evaluations < 3:
            raise ValueError(
                "must be at least 3 with `tuner: hyperband`, which ends trials "
                f"at one of them. Received: {evaluations}."
            )
        return evaluations

    @field_validator("space")
    @classmethod
    def _grid_has_points(
        cls, space: dict[str, Dimension], info: ValidationInfo
    ) -> dict[str, Dimension]:
        if info.data.get("tuner") == "grid":
            for key, each in space.items():
                if each.choices is None:
                    raise ValueError(
                        f"`tuner: grid` goes through `choices`; {key} has a "
                        "range. Give choices, or another tuner."
                    )
        return space


def label(value: Any) -> str:
    """A choice as text: itself, or as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def replaced(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Nested `values` with the value at the dotted `key` replaced."""
    first, _, rest = key.partition(".")
    if rest:
        value = replaced(values.get(first) or {}, rest, value)
    return {**values, first: value}


def check_space(space: Space, sections: Mapping[str, Section]) -> None:
    """Checks that a recipe's sections allow the searched values.

    Args:
        space: the search space.
        sections: "student" and "distill", as in the recipe.

    Raises:
        ValueError: on the first key that cannot be searched, or does not allow
            one of its values.
    """
    known = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key in _leaves(type(section))
        if f"{name}.{key}" not in _FIXED
    ]
    for key, each in space.items():
        if key in _FIXED:
            raise ValueError(f"{key} is the same in all trials; remove it.")
        if key in MOVED:
            raise ValueError(f"{key} is now {MOVED[key]}; write that.")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ValueError(
                f"{key} is not a key to search; the nearest is {near[0]}."
            )
        whole = takes_whole_numbers(key, each, sections)
        for value in each.extremes():
            number = each.choices is None and whole and value == int(value)
            problem = _problem(key, int(value) if number else value, sections)
            if problem is not None:
                raise ValueError(f"{key} may not be {label(value)}: {problem}.")


def takes_whole_numbers(
    key: str, each: Dimension, sections: Mapping[str, Section]
) -> bool:
    """Whether a key with a range only takes whole numbers."""
    if each.bounds is None:
        return False
    lowest, highest = each.bounds
    between = lowest + 0.381966 * (highest - lowest)
    return _problem(key, between, sections) is not None


def _problem(
    key: str, value: Any, sections: Mapping[str, Section]
) -> str | None:
    """The error in a value; None if it is valid."""
    name, _, rest = key.partition(".")
    values = replaced(sections[name].model_dump(), rest, value)
    try:
        type(sections[name]).model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        cause = found.get("ctx", {}).get("error")
        text = str(cause) if cause else found["msg"]
        return text.replace("Input should", "must").rstrip(".")
    return None


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Paths of the keys below a section; a schedule counts as one key."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        # A loss may be left out of its map.
        if issubclass(model, NamedSettings) and get_args(inner):
            inner = get_args(inner)[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
