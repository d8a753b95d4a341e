"""All keys that a recipe may have, from a walk through its schema."""

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def all_keys(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every key by its dotted path.

    Keys of sections inside lists, maps or unions are named after their class,
    such as `RampSchedule.end`, wherever they occur.
    """
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = list(_models_in(field.annotation))
        if len(inner) == 1 and _is_section(field.annotation):
            found |= all_keys(inner[0], f"{path}.")
            continue
        found[path] = field
        for each in inner:
            found |= all_keys(each, f"{each.__name__}.")
    return found


def default_of(field: FieldInfo) -> Any:
    """A key's default; `PydanticUndefined` if it has none."""
    made = field.get_default(call_default_factory=True)
    return PydanticUndefined if made is PydanticUndefined else made


def _is_section(annotation: Any) -> bool:
    """Whether the type is a section, or a section that may be null."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [x for x in typing.get_args(annotation) if x is not type(None)]
        return len(parts) == 1 and _is_section(parts[0])
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)
