"""Toy models that tests take, change and give back.

Building a toy model takes as long as ten of its training steps, and most tests
ask for the same few. A process therefore builds each of them once, as often as
a test needs it at the same time. What a test gets is as new: its weights, the
states of its dropout layers and its trainable flags are set back, and if
anything else of it was changed, another is built.

Fixtures for more than a test get models of their own.
"""

import contextlib
import dataclasses
import functools
import random
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import pytest

# Attributes of layers and variables that make no other model of one.
_HARMLESS = {"_trainable", "_called", "_parent_path", "_jit_compile"}
_PLAIN = (bool, int, float, str, type(None))
_MISSING = object()

_free: dict[Hashable, list["_Kept"]] = {}
_taken: list["_Kept"] = []
# What is known of each model, by its id.
_known: dict[int, "_Kept"] = {}
# What models are taken for: a fixture's scope, "function" for a single test.
_scope = "session"


def pooled(build: Callable) -> Callable:
    """Makes a function return models of the pool.

    Args:
        build: returns a model, or a sequence of models that share no layer
            with its arguments. They depend on the arguments alone: plain
            values, and models of the pool.
    """

    @functools.wraps(build)
    def take(*arguments, **settings):
        key = _key_of(build, arguments, settings)
        if key is None or _scope == "build":
            return build(*arguments, **settings)
        kept = _take_free(key) if _scope == "function" else None
        if kept is None:
            with _from_a_seed(), a_scope_of("build"):
                kept = _Kept(key, build(*arguments, **settings))
            _known.update((id(model), kept) for model in kept.models)
        if _scope == "function":
            _taken.append(kept)
        return kept.value

    return take


@contextlib.contextmanager
def a_scope_of(scope: str) -> Iterator[None]:
    """Says what models are taken for; "function" is a single test."""
    global _scope
    before, _scope = _scope, scope
    try:
        yield
    finally:
        _scope = before


def give_back() -> None:
    """Ends the use of all models that a test has taken."""
    for kept in _taken:
        _free.setdefault(kept.key, []).append(kept)
    _taken.clear()


@contextlib.contextmanager
def _from_a_seed() -> Iterator[None]:
    """Lets no build depend on those before it, nor change those after it."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def _take_free(key: Hashable) -> "_Kept | None":
    free = _free.get(key, [])
    while free:
        kept = free.pop()
        if kept.set_back():
            return kept
        for model in kept.models:
            del _known[id(model)]
    return None


def _key_of(build, arguments, settings) -> Hashable | None:
    """What determines a model, or None if that is not known."""
    import keras
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return None
    parts = [_part_of(value) for value in (arguments, settings)]
    if None in parts:
        return None
    policy = keras.config.dtype_policy().name
    return build, policy, keras.config.floatx(), *parts


def _part_of(value: Any) -> Hashable | None:
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, dict):
        value = tuple(sorted(value.items()))
    if isinstance(value, (tuple, list)):
        parts = tuple(_part_of(part) for part in value)
        return None if None in parts else parts
    kept = _known.get(id(value))
    if kept is None or not kept.is_as_new():
        return None
    return kept.key, kept.models.index(value), kept.trainable_flags()


@dataclasses.dataclass(frozen=True)
class _Attribute:
    value: Any
    content: Any

    @classmethod
    def of(cls, value: Any) -> "_Attribute":
        kinds = (list, tuple, dict, set)
        kind = next((k for k in kinds if isinstance(value, k)), None)
        return cls(value, None if kind is None else kind(value))

    def is_still(self, value: Any) -> bool:
        if isinstance(self.value, _PLAIN):
            return type(value) is type(self.value) and value == self.value
        if value is not self.value:
            return False
        if isinstance(self.content, (list, tuple)):
            return _are_same(self.content, value)
        if isinstance(self.content, dict):
            return _are_same(self.content, value) and _are_same(
                self.content.values(), value.values()
            )
        return self.content is None or self.content == value


def _are_same(left, right) -> bool:
    return len(left) == len(right) and all(
        one is other for one, other in zip(left, right, strict=True)
    )


class _Kept:
    """Models, and what they were like when they were new."""

    def __init__(self, key: Hashable, value: Any) -> None:
        self.key, self.value = key, value
        several = isinstance(value, (tuple, list))
        self.models = list(value) if several else [value]
        parts: dict[int, Any] = {}
        for model in self.models:
            for layer in model._flatten_layers():
                parts[id(layer)] = layer
                parts.update((id(v), v) for v in layer.variables)
        self.attributes = [
            (part, {k: _Attribute.of(v) for k, v in vars(part).items()})
            for part in parts.values()
        ]
        # Tensors: variables do not change them, as they would arrays.
        self.weights = [
            (variable, variable.value.read_value())
            for model in self.models
            for variable in model.variables
        ]

    def set_back(self) -> bool:
        """Makes them as they were; returns whether that could be done."""
        for part, name, before in self._differences():
            if not isinstance(before, _PLAIN):
                return False
            vars(part)[name] = before
        for variable, value in self.weights:
            variable.value.assign(value)
        return True

    def is_as_new(self) -> bool:
        """Whether models made of them are those made of new ones."""
        return {
            name for _, name, _ in self._differences()
        } <= _HARMLESS and all(
            variable.value.numpy().tobytes() == value.numpy().tobytes()
            for variable, value in self.weights
        )

    def _differences(self) -> list[tuple[Any, str, Any]]:
        """Returns parts, attributes that differ, and their values before."""
        return [
            (part, name, attributes.get(name, _Attribute.of(_MISSING)).value)
            for part, attributes in self.attributes
            for name in {**attributes, **vars(part)}
            if name not in attributes
            or not attributes[name].is_still(vars(part).get(name, _MISSING))
        ]

    def trainable_flags(self) -> tuple[bool, ...]:
        return tuple(
            part._trainable
            for part, attributes in self.attributes
            if "_trainable" in attributes
        )


# === Hooks of pytest ===


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Gives a test models of the pool, and takes them back."""
    with a_scope_of("function"):
        result = yield
    give_back()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef) -> Iterator[None]:
    """Keeps models of the pool out of fixtures that outlive a test."""
    with a_scope_of(fixturedef.scope):
        return (yield)
