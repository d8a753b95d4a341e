"""Names the key that was probably meant by an unknown one."""

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from keras_distil.config.schema import Recipe

# Similarity (0 to 1) from which one key is suggested in place of another, of
# the same section or anywhere.
_NEAR_HERE = 0.6
_NEAR = 0.75
# Similarity of a key to its beginning, or to one of its words.
_SHORTENED = 0.9


def describe_unknown_key(
    location: Sequence[str | int], values: dict[str, Any]
) -> str:
    """Says that a recipe's key is unknown, and names the nearest valid key.

    A key of the same section comes first, because a typo is likelier than a
    wrong section; then one that is nearer, elsewhere in the recipe.

    Args:
        location: keys and indices that lead to the unknown key.
        values: the recipe's values.
    """
    *parents, unknown = location
    siblings = _keys_at(parents, values)
    everywhere = list(_all_keys(Recipe))
    if _schema_path(location) in everywhere:  # the key of another `kind`
        return f"unknown key; valid keys for this kind: {', '.join(siblings)}"
    section = "".join(f"{parent}." for parent in parents)

    def similarity(path: str) -> float:
        return _similarity(str(unknown), path.rpartition(".")[2])

    def nearness(path: str) -> tuple[float, int, int]:
        # Among equals, that of the nearest section, then of the nearest to the
        # top of the recipe.
        shared = os.path.commonprefix([path.split("."), section.split(".")])
        return similarity(path), len(shared), -path.count(".")

    here = section + max(siblings, key=similarity)
    away = max(everywhere, key=nearness)
    near = [here] if similarity(here) >= _NEAR_HERE else []
    if similarity(away) > max(similarity(here), _NEAR):
        near.append(away)
    if not near:
        return f"unknown key; valid keys here: {', '.join(siblings)}"
    return f"unknown key; nearest valid key: {', or '.join(near)}"


def _similarity(unknown: str, key: str) -> float:
    """Returns how near two keys are, from 0 to 1."""
    ratio = difflib.SequenceMatcher(None, unknown, key).ratio()
    # Such as `temp` or `batch`.
    shortened = len(unknown) > 2 and (
        key.startswith(unknown) or unknown in key.split("_")
    )
    return max(ratio, _SHORTENED) if shortened else ratio


def _keys_at(parents: Sequence[str | int], values: Any) -> list[str]:
    """Returns the valid keys of the section at the path `parents`."""
    models: list[type[BaseModel]] = [Recipe]
    node = values
    for entry in parents:
        node = node[entry]
        # An index in a list, or a key of a mapping such as a task's name.
        if entry not in models[0].model_fields:
            continue
        annotation = models[0].model_fields[str(entry)].annotation
        models = list(_models_in(annotation))
    if len(models) > 1:
        models = [
            model
            for model in models
            if node["kind"] in get_args(model.model_fields["kind"].annotation)
        ]
    return list(models[0].model_fields)


def _schema_path(location: Sequence[str | int]) -> str:
    """Returns `location` in the notation of `_all_keys`."""
    return ".".join("N" if isinstance(e, int) else e for e in location)


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the path of every key below `model`.

    N stands for a list index, KEY for a key of a mapping.
    """
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = f"{prefix}{name}."
        if field.annotation is not None and "list[" in str(field.annotation):
            inner += "N."
        if "dict[" in str(field.annotation):
            inner += "KEY."
        for section in _models_in(field.annotation):
            yield from _all_keys(section, inner)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the section classes inside a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
