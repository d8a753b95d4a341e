"""Pages of all keys of a recipe, made from its schema when the site is built.

Type, default and range come from the schema. What a key does is said once, in
`docs/recipe_keys.yaml`, by the section's class and the key: losses and
schedules occur at several places of a recipe with the same keys.
"""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.types import StringConstraints
from pydantic_core import PydanticUndefined

from keras_distil.config.losses_section import (
    AnyLossMap,
    LossSchedules,
    NamedSettings,
)
from keras_distil.config.schedules import Schedule
from keras_distil.config.schema import Recipe
from keras_distil.losses import registry

FOLDER = "reference/recipe"
TEXTS = Path(__file__).parents[1] / "recipe_keys.yaml"
_HEADS = {
    "index": "# Recipe keys\n\nEvery key that a recipe may have. A recipe is a "
    "YAML file, and `keras-distil run RECIPE --set KEY=VALUE` sets a key from "
    "the command line. A key that is not here is an error that names the "
    "nearest one.\n",
    "losses": "# Losses\n\nThe settings of each loss, wherever a recipe has "
    "`losses`: in `distill`, in `finetune` and in its stages. "
    "[Losses](../../losses.md) says what each computes.\n",
    "schedules": "# Schedules\n\nThe forms of a schedule, such as "
    "`distill.schedules.soft_target.temperature`: `weight` of each loss, and "
    "`temperature` of those that have one. "
    "[Schedules](../../schedules.md) says when to use one.\n",
}
_NOUNS = {
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    str: "text",
}


class Section(NamedTuple):
    """A section of a recipe as it is documented.

    Attributes:
        path: where it is in a recipe; "" for the whole, `losses.NAME` for the
            settings of a loss wherever they are.
        models: its class; of a loss, the classes of its settings for text and
            for tasks.
    """

    path: str
    models: tuple[type[BaseModel], ...]

    @property
    def keys(self) -> dict[str, type[BaseModel]]:
        """Its keys, each with a class that has it."""
        found: dict[str, type[BaseModel]] = {}
        for model in self.models:
            for key in _own_keys(model):
                found.setdefault(key, model)
        return found

    def path_of(self, key: str) -> str:
        """The path of one of its keys."""
        return f"{self.path}.{key}" if self.path else key


def sections_by_page() -> dict[str, list[Section]]:
    """All sections, by the name of the page that they are on."""
    pages: dict[str, list[Section]] = {"index": [Section("", (Recipe,))]}
    for name, field in Recipe.model_fields.items():
        found = list(_sections(name, field.annotation))
        if found:
            pages[name] = found
    pages["losses"] = [
        Section(f"losses.{name}", tuple(models))
        for name, models in _settings_of_losses().items()
    ]
    pages["schedules"] = [
        Section(f"schedules[{_kind(model)}]", (model,))
        for model in _models(Schedule)
    ]
    return pages


def pages() -> dict[str, str]:
    """The Markdown of every page, by its path in the site."""
    texts = yaml.safe_load(TEXTS.read_text("utf-8"))
    made = {}
    for name, sections in sections_by_page().items():
        parts = [_HEADS.get(name, f"# `{name}`\n")]
        if name == "index":
            parts += [_all_paths(), "## Keys of the recipe itself\n"]
        for section in sections:
            parts += _section(section, texts, with_heading=name != "index")
        made[f"{FOLDER}/{name}.md"] = "\n".join(parts)
    return made


def missing_texts() -> list[str]:
    """Says which keys have no text, and which texts have no key."""
    texts = yaml.safe_load(TEXTS.read_text("utf-8"))
    given = {f"{name}.{key}" for name, keys in texts.items() for key in keys}
    wanted = {
        f"{owner(model, key)}.{key}"
        for sections in sections_by_page().values()
        for section in sections
        for key, model in section.keys.items()
    }
    return [f"{key} has no text" for key in sorted(wanted - given)] + [
        f"{key} is not a key of a recipe" for key in sorted(given - wanted)
    ]


def owner(model: type[BaseModel], key: str) -> str:
    """The class that defines a key first: its text is by that name."""
    owners = [
        each.__name__
        for each in model.__mro__
        if key in getattr(each, "model_fields", {})
    ]
    return owners[-1]


def describe_type(annotation: Any, constraints: Any = ()) -> str:
    """A type and its range in words, such as "whole number, at least 1"."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return describe_type(inner[0], [*inner[1:], *constraints])
    if origin in (typing.Union, types.UnionType):
        parts = [describe_type(x) for x in inner if x is not types.NoneType]
        parts += ["`null`"] if types.NoneType in inner else []
        return ", or ".join(dict.fromkeys(parts))
    limits = _limits(annotation, constraints)
    if origin is Literal:
        return " or ".join(f"`{x}`" for x in inner)
    if origin is list:
        return f"list{limits} (each: {describe_type(inner[0])})"
    if origin is dict:
        return f"map{limits} of names (each: {describe_type(inner[1])})"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return f"{_NOUNS.get(annotation, 'value')}{limits}"


def _limits(annotation: Any, constraints: Any) -> str:
    """The range that constraints say, beginning with a comma."""
    found = []
    for each in _flat(constraints):
        match each:
            case annotated_types.Ge(ge=limit):
                found.append(f"at least {limit}")
            case annotated_types.Gt(gt=limit):
                found.append(f"above {limit}")
            case annotated_types.Le(le=limit):
                found.append(f"at most {limit}")
            case annotated_types.Lt(lt=limit):
                found.append(f"below {limit}")
            case annotated_types.MinLen(min_length=limit):
                found.append(
                    "not empty" if limit == 1 else f"at least {limit} entries"
                )
            case annotated_types.MaxLen(max_length=limit):
                found.append(f"at most {limit} characters")
            case StringConstraints(pattern=str(pattern)):
                found.append(f"a match of `{pattern}`")
    return "".join(f", {x}" for x in found)


def _flat(constraints: Any) -> Iterator[Any]:
    for each in constraints:
        if isinstance(each, FieldInfo):
            yield from each.metadata
        elif isinstance(each, annotated_types.GroupedMetadata):
            yield from each
        else:
            yield each


def _sections(path: str, annotation: Any) -> Iterator[Section]:
    """The section at a path and those below it; none for a plain value."""
    models = [x for x in _models(annotation) if _own_keys(x)]
    for model in models:
        here = path + _entry(annotation)
        if len(models) > 1:
            here = f"{path}[{_kind(model)}]"
        yield Section(here, (model,))
        for name in _own_keys(model):
            field = model.model_fields[name]
            yield from _sections(f"{here}.{name}", field.annotation)


def _entry(annotation: Any) -> str:
    """What stands behind the path of a list's or a map's entries."""
    origin = typing.get_origin(annotation)
    if origin is dict:
        return ".NAME"
    if origin is list:
        return "[]"
    return next(filter(None, map(_entry, typing.get_args(annotation))), "")


def _own_keys(model: type[BaseModel]) -> list[str]:
    """Keys but for the names of losses, whose settings have their own page."""
    if not issubclass(model, NamedSettings):
        return list(model.model_fields)
    losses = registry.rows_for(registry.KINDS)
    return [name for name in model.model_fields if name not in losses]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _settings_of_losses() -> dict[str, list[type[BaseModel]]]:
    """By name of a loss, the classes of its settings in all maps of losses."""
    found: dict[str, list[type[BaseModel]]] = {}
    for losses in _loss_maps(Recipe):
        for name, field in losses.model_fields.items():
            for model in _models(field.annotation):
                if model not in found.setdefault(name, []):
                    found[name].append(model)
    return found


def _loss_maps(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            if issubclass(inner, AnyLossMap):
                yield inner
            elif not issubclass(inner, NamedSettings):
                yield from _loss_maps(inner)


def _kind(model: type[BaseModel]) -> str:
    """What tells a class from others at the same place: its `kind`."""
    field = model.model_fields.get("kind")
    if field is None or typing.get_origin(field.annotation) is not Literal:
        return "mapping"
    return "/".join(typing.get_args(field.annotation))


def _all_paths() -> str:
    lines = ["## All keys\n"]
    for page, sections in sections_by_page().items():
        lines.append(f"**{'recipe' if page == 'index' else page}**\n")
        for section in sections:
            paths = [section.path_of(key) for key in section.keys]
            links = [f"[`{x}`]({page}.md#{anchor(x)})" for x in paths]
            lines.append(f"{', '.join(links)}\n")
    return "\n".join(lines)


def anchor(path: str) -> str:
    """The id of a key's heading."""
    return re.sub(r"[^\w.-]+", "-", path).strip("-")


def _section(
    section: Section, texts: Any, *, with_heading: bool
) -> Iterator[str]:
    """The heading of a section, what it is for, and its keys."""
    if with_heading:
        yield f"## Section `{section.path}`\n"
    yield f"{_purpose(section)}\n"
    first = section.models[0]
    losses = [x for x in first.model_fields if x not in section.keys]
    if losses:
        names = ", ".join(f"`{section.path_of(x)}`" for x in losses)
        yield f"By the name of a loss, a number above 0: {names}.\n"
    for key, model in section.keys.items():
        text = texts.get(owner(model, key), {}).get(key, "")
        path = section.path_of(key)
        yield f"### `{path}` {{#{anchor(path)}}}\n"
        yield _facts(model.model_fields[key], text)


def _purpose(section: Section) -> str:
    """What a section is for: of a loss its classes, else its docstring."""
    page, _, loss = section.path.partition(".")
    rows = [row for row in registry.ROWS if row.name == loss]
    if page != "losses" or not rows:
        return inspect.getdoc(section.models[0]) or ""
    lines = []
    for name in dict.fromkeys(row.class_name for row in rows):
        of = [x for row in rows if row.class_name == name for x in row.kinds]
        kinds = ", ".join(f"`{kind}`" for kind in of)
        link = f"../losses.md#keras_distil.losses.{name}"
        lines.append(f"- [{name}]({link}), for {kinds}")
    return "\n".join(lines)


def _facts(field: FieldInfo, text: Any) -> str:
    """What a key does, and its type, range and default."""
    shown = describe_type(field.annotation, field.metadata)
    if isinstance(text, dict):
        shown, text = text["type"], text["text"]
    lines = [f"{text}\n", f"- Type: {shown}", f"- Default: {_default(field)}"]
    page = _page_of(field.annotation)
    if page is not None:
        lines.append(f"- Keys: [{page}]({page}.md)")
    return "\n".join([*lines, ""])


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "none, the key is required"
    if isinstance(value, AnyLossMap):
        return ", ".join(f"`{name}: {{}}`" for name in value.by_name)
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
        if not value:
            return "the defaults of its keys"
    shown = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return f"`{shown.removesuffix('...' + chr(10)).strip()}`"


def _page_of(annotation: Any) -> str | None:
    """The common page of losses or schedules, if a key holds those."""
    for model in _models(annotation):
        if issubclass(model, AnyLossMap):
            return "losses"
        if issubclass(model, LossSchedules):
            return "schedules"
    return None
