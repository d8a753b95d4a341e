"""Pairs of layers that a loss compares, without TensorFlow."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

# The number of a transformer layer, from 0, one of the two names below, or the
# name of a Keras layer.
Layer: TypeAlias = int | str
Pair: TypeAlias = tuple[Layer, Layer]
Layers: TypeAlias = str | tuple[Pair, ...]

# The output of the last layer.
LAST = "last"
# The input of the first layer.
EMBEDDINGS = "embeddings"
UNIFORM = "uniform"
LAST_PAIR: Pair = (LAST, LAST)


@dataclasses.dataclass(frozen=True)
class Attention:
    """Stands for a layer's queries, keys and values among its model's states.

    Attributes:
        layer: number of the layer, or "last".
    """

    layer: Layer


_FORM = (
    "`layers` must be 'last', 'uniform' or a list of pairs (teacher, student) "
    "of layer numbers from 0 or 'embeddings', such as [(1, 0), (3, 1)]"
)
_NO_ATTENTION = (
    "The embeddings have no attention: `layers` must pair layers by their "
    "numbers from 0. "
)
_NAMES = "; for models of other kinds, of names of layers"


def check_layers(
    layers: Any, *, names: bool = False, embeddings: bool = True
) -> Layers:
    """Checks the `layers` of a loss; returns them with pairs as tuples.

    Args:
        layers: the user's value.
        names: whether a pair may hold two names of Keras layers.
        embeddings: whether a pair may hold the input of the first layer.

    Raises:
        ValueError: if it has another form, or a pair is listed twice.
    """
    if isinstance(layers, str) and layers in (LAST, UNIFORM):
        return layers
    form = f"{_FORM}{_NAMES if names else ''}. "
    if not isinstance(layers, list | tuple) or not layers:
        raise ValueError(f"{form}Received: layers={layers!r}.")
    pairs = []
    for pair in layers:
        if not _is_pair(pair, names=names):
            raise ValueError(f"{form}Received: the pair {pair!r}.")
        if EMBEDDINGS in pair and not embeddings:
            raise ValueError(f"{_NO_ATTENTION}Received: the pair {pair!r}.")
        if tuple(pair) in pairs:
            raise ValueError(
                "`layers` must list each pair once. "
                f"Received: {tuple(pair)!r} twice."
            )
        pairs.append((pair[0], pair[1]))
    return tuple(pairs)


def check_attention_layers(layers: Any) -> Layers:
    """Checks the `layers` of a loss on attention, as `check_layers` does."""
    return check_layers(layers, embeddings=False)


def _is_pair(pair: Any, *, names: bool) -> bool:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        return False
    if names and all(isinstance(layer, str) and layer for layer in pair):
        return True
    return all(map(_is_layer, pair))


def _is_layer(layer: Any) -> bool:
    if isinstance(layer, bool) or not isinstance(layer, int):
        return isinstance(layer, str) and layer == EMBEDDINGS
    return layer >= 0


def find_pairs(
    layers: Layers, teacher_layers: int | None, student_layers: int | None
) -> tuple[Pair, ...]:
    """Returns the pairs for two models, with each last layer named "last".

    Args:
        layers: as `check_layers` returns it.
        teacher_layers: number of the teacher's layers; None if only its last
            hidden states are available.
        student_layers: likewise for the student.

    Raises:
        ValueError: if a layer does not exist, or the layers cannot be paired.
    """
    if layers == LAST:
        return (LAST_PAIR,)
    counts = {"teacher": teacher_layers, "student": student_layers}
    for role, count in counts.items():
        if count is None:
            raise ValueError(
                f"The {role} has hidden states of its last layer only: use "
                f"layers='last'. Received: layers={layers!r}."
            )
    pairs = layers if not isinstance(layers, str) else _uniform(**counts)
    return tuple(
        (
            _existing("teacher", teacher, teacher_layers),
            _existing("student", student, student_layers),
        )
        for teacher, student in pairs
    )


def _uniform(teacher: Any, student: Any) -> Sequence[Pair]:
    if teacher % student:
        raise ValueError(
            "layers='uniform' needs a teacher whose number of layers is a "
            f"multiple of the student's. Received: {teacher} and {student} "
            "layers; give pairs."
        )
    every = teacher // student
    return [((i + 1) * every - 1, i) for i in range(student)]


def _existing(role: str, layer: Layer, count: Any) -> Layer:
    if isinstance(layer, str):
        if layer != EMBEDDINGS:
            raise ValueError(
                f"The {role} is an encoder, whose layers have numbers, 0 to "
                f"{count - 1}, and 'embeddings'. Received: layer {layer!r}."
            )
        return layer
    if layer >= count:
        raise ValueError(
            f"The {role} has {count} layers, 0 to {count - 1}. "
            f"Received: layer {layer}."
        )
    return LAST if layer == count - 1 else layer
