"""The base of sections, and the types of their values: no TensorFlow."""

import os
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
)

Count: TypeAlias = Annotated[int, Field(ge=1)]
StepCount: TypeAlias = Annotated[int, Field(ge=0)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NonEmptyText: TypeAlias = Annotated[str, Field(min_length=1)]
# A path, or a name that is none; `~` is the home directory.
PathText: TypeAlias = Annotated[
    NonEmptyText, AfterValidator(os.path.expanduser)
]
# BERT's position table has 512 rows.
Length: TypeAlias = Annotated[int, Field(ge=8, le=512)]


class Section(BaseModel):
    """Base of all sections: unknown keys and type conversions are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


def as_list(value: Any) -> Any:
    """Returns one text as a list of one."""
    return [value] if isinstance(value, str) else value


def each_once(values: list) -> list:
    """Returns `values`, or raises ValueError if one is there twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"must name each once. Received: {values}.")
    return values
