"""Reads a recipe: YAML, overrides, and all its errors in one message."""

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from keras_distil.config import earlier_form, finetune_section, shipped
from keras_distil.config.distill_section import DURATIONS
from keras_distil.config.schema import Recipe
from keras_distil.config.search_section import replaced
from keras_distil.config.unknown_keys import describe_unknown_key
from keras_distil.losses import registry
from keras_distil.utils.private_text import shown_values

_Location = tuple[str | int, ...]

# Shortens received values: a recipe with YAML aliases can be enormous when
# written out.
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 2

# A recipe has about a hundred; a few lines of nested aliases can have billions.
_MOST_VALUES = 10_000

_LOSSES = ("distill.losses", "finetune.losses")

# One of these says how long a recipe trains.
_DURATIONS = {"minutes", *(f"distill.{name}" for name in DURATIONS)}


class RecipeError(ValueError):
    """Everything that is wrong with a recipe, one line for each error."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    problem=f"the key `{key.value}` is given twice",
                    problem_mark=key.start_mark,
                )
            seen.add(key.value)
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {})
        return node

    def construct_bounded_int(self, node: yaml.ScalarNode) -> int:
        value = self.construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(
                problem="an integer does not fit 64 bits",
                problem_mark=node.start_mark,
            )
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_bounded_int)


def _count_values(node: yaml.Node, counted: dict[int, int | None]) -> int:
    """Counts the values in `node` with its aliases written out."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in counted:
        known = counted[id(node)]
        if known is None:
            raise yaml.composer.ComposerError(
                problem="an alias stands for what it is part of",
                problem_mark=node.start_mark,
            )
        return known
    counted[id(node)] = None
    count = 1
    for entry in node.value:
        for child in entry if isinstance(entry, tuple) else (entry,):
            count += _count_values(child, counted)
    if count > _MOST_VALUES:
        raise yaml.composer.ComposerError(
            problem=f"aliases stand for more than {_MOST_VALUES:,} values",
            problem_mark=node.start_mark,
        )
    counted[id(node)] = count
    return count


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes text that `_Loader` would read as a number."""


# YAML 1.1 requires a dot in every float and a sign in every exponent, so that
# `1e-3` and `5.0e4` would be strings. This is the rule of YAML 1.2.
for _yaml_class in (_Loader, _Dumper):
    _yaml_class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def load_recipe(
    path: str | PathLike[str], overrides: Sequence[str] = ()
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: the YAML file.
        overrides: strings `key.path=value`, applied in order. The value is
            YAML; list entries are named by their index, counted from 0
            (`data.sources.0.packages=[numpy]`). One that says how long to
            train, such as `distill.steps`, replaces what the recipe says.

    Returns:
        The recipe, with every default filled in.

    Raises:
        RecipeError: with one line for each thing that is wrong.

    Example:
        >>> recipe = load_recipe(
        ...     "recipes/quickstart.yaml", ["distill.steps=2"]
        ... )
        >>> recipe.distill.steps
        2
    """
    where = shipped.shorten_path(path)
    values = read_yaml(_read(path), where=where)
    if values is None:
        raise RecipeError(f"{where}: the file is empty; it must hold a recipe.")
    if not isinstance(values, dict):
        raise RecipeError(
            f"{where}: a recipe must be a mapping of keys such as `name:`. "
            f"Received: a {type(values).__name__}."
        )
    _drop_replaced_durations(values, overrides)
    for override in overrides:
        _apply_override(values, override)
    return _validated(values, where=where)


def make_recipe(values: dict[str, Any]) -> Recipe:
    """Checks a recipe given as nested values.

    Args:
        values: nested values as a YAML file would hold them.

    Raises:
        RecipeError: with one line for each thing that is wrong.
    """
    return _validated(values, where="the recipe")


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Returns the recipe of one trial of its search, without the search.

    Args:
        recipe: the recipe.
        values: by dotted key, such as `distill.losses.soft_target.temperature`.

    Raises:
        RecipeError: if the recipe does not allow this combination of values.
    """
    changed = {**recipe.model_dump(), "search": None}
    for key, value in values.items():
        changed = replaced(changed, key, value)
    return _validated(changed, where=recipe.name)


def _validated(values: dict[str, Any], *, where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{where}: {_describe(dict(details), values)}"
            for details in error.errors(include_url=False)
        ]
    raise RecipeError("\n".join(lines))


def dump_recipe(recipe: Recipe, *, without: Sequence[str] = ()) -> str:
    """Returns the recipe as YAML with every default written out.

    Home directories are written as `~`. `load_recipe` reads a complete one back
    as an equal recipe.

    Args:
        recipe: the recipe.
        without: dotted keys, or sections, to leave out.
    """
    values = shown_values(recipe.model_dump(mode="json"))
    for key in without:
        *sections, last = key.split(".")
        inner = values
        for name in sections:
            inner = inner[name]
        del inner[last]
    return yaml.dump(
        values,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
    )


def _read(path: str | PathLike[str]) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error


def read_yaml(text: str, *, where: str) -> Any:
    """Reads plain data from untrusted YAML.

    Aliases, integers and depth are limited in size.

    Args:
        text: the YAML.
        where: name of the YAML in the message.

    Raises:
        RecipeError: if it is invalid or exceeds a limit.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = error.problem or error.context
        if isinstance(error, yaml.constructor.ConstructorError):
            problem = f"{problem}; a recipe holds plain data only"
        problem = _shorten(" ".join(str(problem).split()), 200)
        raise RecipeError(f"{where}: line {line}: {problem}.") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: is nested too deeply.") from error
    # Also raised for impossible dates and numbers with too many digits.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        problem = _shorten(" ".join(str(error).split()), 200)
        raise RecipeError(f"{where}: is not valid YAML: {problem}.") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Writes one `key.path=value` into the nested `values`."""
    key_path, equals, text = override.partition("=")
    keys = key_path.strip().split(".")
    shown = _shorten(key_path.strip())
    where = f"--set {shown}"
    if not equals or not all(keys):
        raise RecipeError(
            "--set: must have the form key.path=value. "
            f"Received: {_shorten(repr(override), 200)}."
        )
    try:
        value = read_yaml(text, where=where)
    except RecipeError as error:
        raise RecipeError(
            f"{error} Quote text with special characters for YAML too: "
            f"""'{shown}="..."'."""
        ) from error
    node: Any = values
    for depth, key in enumerate(keys[:-1], 1):
        index = _entry(node, key, where)
        if isinstance(node, dict) and node.get(index) is None:
            # The section was missing or null. A map of losses turns off those
            # that it does not name; setting a single one must not do so.
            names = _default_losses(".".join(keys[:depth]), node)
            node[index] = {name: {} for name in names}
        node = node[index]
    node[_entry(node, keys[-1], where)] = value


def _default_losses(path: str, section: Any) -> Sequence[str]:
    """Returns the losses that a section without `losses` has."""
    if path not in _LOSSES:
        return ()
    if path.startswith("finetune."):
        return registry.TASK_DEFAULTS
    if isinstance(section, dict) and section.get("task") == registry.EMBEDDING:
        return registry.EMBEDDING_DEFAULTS
    return registry.TEXT_DEFAULTS


def _drop_replaced_durations(
    values: dict[str, Any], overrides: Sequence[str]
) -> None:
    """Removes how long the recipe trains if an override says it."""
    named = {override.partition("=")[0].strip() for override in overrides}
    distill = values.get("distill")
    if not named & _DURATIONS or not isinstance(distill, dict):
        return
    for name in DURATIONS:
        distill.pop(name, None)
    values.pop("minutes", None)


def _entry(node: Any, key: str, where: str) -> str | int:
    """Returns `key` in the form that indexes `node`: a key or a position."""
    if isinstance(node, dict):
        return key
    if isinstance(node, list):
        if key.isdecimal() and int(key) < len(node):
            return int(key)
        raise RecipeError(
            f"{where}: `{key}` must be an index below {len(node)}, the length "
            "of the list in the recipe."
        )
    raise RecipeError(
        f"{where}: `{key}` cannot be set inside {_BRIEF.repr(node)}, which "
        "is neither a mapping nor a list."
    )


def _describe(details: dict[str, Any], values: dict[str, Any]) -> str:
    """Returns `path: what is wrong` for one of pydantic's errors."""
    kind, context = details["type"], details.get("ctx", {})
    location = _without_tags(details["loc"], kind, values)
    path = ".".join(_shorten(str(entry)) for entry in location)
    if kind == "missing":
        return f"{path}: required key is missing."
    if kind == "extra_forbidden":
        moved = earlier_form.present_form(path, details["input"])
        return f"{path}: {moved or describe_unknown_key(location, values)}."
    if kind == "value_error":
        return f"{path}: {context['error']}"
    if kind == "union_tag_not_found":
        return f"{path}.kind: required key is missing."
    received = _BRIEF.repr(details["input"])
    if kind == "union_tag_invalid":
        return (
            f"{path}.kind: must be one of {context['expected_tags']}. "
            f"Received: {_BRIEF.repr(details['input']['kind'])}."
        )
    if kind in ("model_type", "model_attributes_type"):
        problem = "must be a mapping of keys"
    else:
        problem = details["msg"].replace("Input should", "must")
    near = ""
    if kind == "literal_error" and isinstance(details["input"], str):
        row = earlier_form.EARLIER_ROWS.get(details["input"])
        if row is not None and path.startswith("finetune.rows."):
            return f"{path}: write `{row}`. Received: {received}."
        names = re.findall("'([^']+)'", context["expected"])
        found = difflib.get_close_matches(details["input"], names, n=1)
        near = "".join(f"; the nearest is {name!r}" for name in found)
    return f"{path}: {problem}. Received: {received}{near}."


def _shorten(text: str, length: int = 60) -> str:
    """Shortens text that nobody would read to the end."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _without_tags(
    location: _Location, kind: str, values: dict[str, Any]
) -> _Location:
    """Drops the union tags that pydantic puts among the keys."""
    kept: list[str | int] = []
    node: Any = values
    tagged = False
    for entry in location:
        if entry in finetune_section.FORMS:
            continue
        is_mapping = isinstance(node, Mapping)
        if is_mapping and not tagged and node.get("kind") == entry:
            tagged = True
            continue
        tagged = False
        kept.append(entry)
        if is_mapping:
            node = node.get(entry)
        elif isinstance(node, list) and isinstance(entry, int):
            node = node[entry]
    return tuple(kept)
