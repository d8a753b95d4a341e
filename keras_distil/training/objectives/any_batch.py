"""The batches of models of any kind, checked and in a uniform form."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_distil.training.objectives.batch_checks import (
    SUM_TOLERANCE,
    BatchChecks,
    check_dense,
    check_shape,
    parts_of,
)
from keras_distil.utils import graph_checks
from keras_distil.utils.graph_checks import BatchError

Tensor = Any

CLASSIFICATION = "classification"
REGRESSION = "regression"


class _CombinedChecks(BatchChecks):
    """Checks that take one branch in the graph together.

    A branch costs as much as many operations, and small models have few.
    """

    def __init__(self) -> None:
        super().__init__()
        self._required: list[Any] = []

    def require(self, condition: Tensor, message: str, values: Any) -> None:
        if tf.executing_eagerly():
            super().require(condition, message, values)
        else:
            self._required.append((condition, message, values))

    def combine(self) -> None:
        """Makes the assertions."""
        self.made += graph_checks.require_all(self._required)
        self._required = []

    def same_number(self, name: str, value: Tensor, other: Tensor) -> None:
        """Requires `y` to have as many examples as another part."""
        counts = other.shape[0], value.shape[0]
        message = (
            f"`y` must have the number of examples of `{name}`. Received: "
        )
        if None not in counts and counts[0] != counts[1]:
            raise BatchError(
                f"{message}`y` of shape {other.shape}, `{name}` of shape "
                f"{value.shape}."
            )
        if None in counts:
            shapes = tf.shape(other), tf.shape(value)
            self.require(
                shapes[0][0] == shapes[1][0],
                f"{message}`y` of shape ({{}}), `{name}` of shape ({{}}).",
                lambda: shapes,
            )


@dataclasses.dataclass(frozen=True)
class AnyBatch:
    """A Keras triple with its parts named.

    Attributes:
        inputs: what the models are called on: a tensor, or a list, a tuple or
            a dict of them.
        targets: classes, int32, (batch, ...); their probabilities, float32,
            (batch, ..., classes); or numbers, float32, (batch, ..., outputs).
        weight: float32, (batch,); 0 excludes an example.
        checks: assertions that must hold before an update or a log; see
            `graph_checks.after`. A part of a batch has none.
        updates: new values of the student's variables besides its weights,
            which the forward pass adds, and the step assigns if the loss is
            finite; None for a part, whose values are assigned at once.
    """

    inputs: Any
    targets: Tensor
    weight: Tensor
    checks: list[Tensor] = dataclasses.field(default_factory=list)
    updates: list[tuple[keras.Variable, Tensor]] | None = dataclasses.field(
        default_factory=list
    )

    def part(self, index: Tensor, parts: int) -> "AnyBatch":
        """Returns one of `parts` consecutive, nearly equal micro-batches."""
        size = tf.shape(self.weight)[0]
        start, stop = index * size // parts, (index + 1) * size // parts
        inputs, targets, weight = tf.nest.map_structure(
            lambda value: value[start:stop],
            (self.inputs, self.targets, self.weight),
        )
        return AnyBatch(inputs, targets, weight, updates=None)


def make_batch(
    data: Any, kind: str, *, inputs: Any, outputs: tuple[int | None, ...]
) -> AnyBatch:
    """Returns the checked parts of a pair or triple.

    Args:
        data: the user's batch.
        kind: "classification" or "regression".
        inputs: the models' inputs, as `keras.KerasTensor`s.
        outputs: shape of the models' outputs, (batch, ..., outputs).

    Raises:
        BatchError: if the parts do not match each other or the outputs.
    """
    x, y, sample_weight = parts_of(data)
    checks = _CombinedChecks()
    features = check_inputs(x, inputs)
    if y is None:
        raise BatchError(
            "A batch must be `(x, y)` or `(x, y, sample_weight)` with the "
            "labels as `y`. Received: y=None."
        )
    y = _check_labels(y, kind, outputs)
    for name, value in inputs_by_name(features):
        checks.same_number(name, value, y)
    if sample_weight is None:
        weight = tf.ones(tf.shape(y)[:1])
    else:
        weight = check_shape(
            "sample_weight", sample_weight, "batch", squeezed=True
        )
        checks.same_number("sample_weight", weight, y)
        weight = checks.weights("sample_weight", weight)
    targets = _targets(checks, y, weight, kind, outputs)
    checks.combine()
    # No operation may fail on the same problem first.
    targets, weight = graph_checks.after(checks.made, (targets, weight))
    return AnyBatch(features, targets, weight, checks.made)


def check_inputs(x: Any, expected: Any) -> Any:
    """Returns the inputs as dense tensors, in their structure.

    Args:
        x: the user's inputs.
        expected: the models' inputs, as `keras.KerasTensor`s.

    Raises:
        BatchError: if they are fewer or more, of other sizes, or not dense
            arrays.
    """
    counts = [len(keras.tree.flatten(each)) for each in (expected, x)]
    # Keras would leave out what is too much.
    if counts[0] != counts[1]:
        raise BatchError(
            f"The number of inputs in `x` must be {counts[0]}, as the models "
            f"take them. Received: {counts[1]}."
        )
    shapes = dict(inputs_by_name(expected))
    if counts[0] == 1:
        shapes = dict.fromkeys(
            [name for name, _ in inputs_by_name(x)], *shapes.values()
        )
    checked = [
        _check_input(name, value, shapes.get(name))
        for name, value in inputs_by_name(x)
    ]
    return keras.tree.pack_sequence_as(x, checked)


def _check_input(name: str, value: Any, expected: Any) -> Tensor:
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        check_dense(name, value)
    value = tf.convert_to_tensor(value)
    if value.shape.rank == 0:
        raise BatchError(
            f"`{name}` must have a batch axis. Received: a single number. "
            "Batch the data first."
        )
    # Keras adds or removes a last axis of size 1 by itself.
    if expected is None or value.shape.rank != len(expected.shape):
        return value
    sizes = expected.shape[1:]
    form = ", ".join(["batch", *("?" if x is None else str(x) for x in sizes)])
    message = (
        f"`{name}` must have shape ({form}), as the models take it. Received: "
    )
    if not value.shape[1:].is_compatible_with(sizes):
        raise BatchError(f"{message}shape {value.shape}.")
    known = [axis for axis, x in enumerate(sizes, start=1) if x is not None]
    if all(value.shape[axis] is not None for axis in known):
        return value
    # The sizes are unknown in a step that was traced for others before.
    shape = tf.shape(value)
    right = [shape[axis] == expected.shape[axis] for axis in known]
    checks = graph_checks.require(
        tf.reduce_all(right), f"{message}shape ({{}}).", lambda: (shape,)
    )
    return tf.ensure_shape(graph_checks.after(checks, value), (None, *sizes))


def inputs_by_name(inputs: Any) -> list[tuple[str, Any]]:
    """Returns all inputs with names for messages, such as "x['image']"."""
    return [
        ("x" + "".join(f"[{key!r}]" for key in path), value)
        for path, value in keras.tree.flatten_with_path(inputs)
    ]


def _check_labels(y: Any, kind: str, outputs: tuple[int | None, ...]) -> Tensor:
    """Returns the labels with as many axes as their kind has."""
    if isinstance(y, dict | list | tuple):
        raise BatchError(
            "The labels `y` must be one array. Received: "
            f"{sorted(y) if isinstance(y, dict) else f'{len(y)} arrays'}."
        )
    y = check_dense("y", y)
    rank, last = y.shape.rank, outputs[-1]
    if rank is None:
        raise BatchError(
            "`y` must have a known number of axes. Received: a tensor of "
            "unknown shape; use `tf.ensure_shape` where it is made."
        )
    wide = rank == len(outputs)
    if rank == len(outputs) - 1 and (kind == CLASSIFICATION or last == 1):
        y = y if kind == CLASSIFICATION else y[..., tf.newaxis]
    elif wide and kind == CLASSIFICATION and y.shape[-1] == 1:
        y = y[..., 0]
    elif not (wide and (kind == REGRESSION or y.dtype.is_floating)):
        raise BatchError(f"{_form(kind, outputs)} Received: {_shape(y)}.")
    expected = outputs if y.shape.rank == len(outputs) else outputs[:-1]
    if not y.shape.is_compatible_with((None, *expected[1:])):
        raise BatchError(f"{_form(kind, outputs)} Received: {_shape(y)}.")
    return _with_sizes(y, expected)


def _with_sizes(y: Tensor, expected: tuple[int | None, ...]) -> Tensor:
    """Gives labels the sizes that are known of the outputs."""
    return tf.ensure_shape(y, (y.shape[0], *expected[1:]))


def _form(kind: str, outputs: tuple[int | None, ...]) -> str:
    names = ["batch", *("?" if x is None else str(x) for x in outputs[1:-1])]
    positions = ", ".join(names)
    last = outputs[-1]
    one = f"({positions}{',' if len(names) == 1 else ''})"
    if kind == CLASSIFICATION:
        return (
            f"`y` must hold whole numbers of shape {one}, the classes, or "
            f"float probabilities of shape ({positions}, {last})."
        )
    also = f" or {one}" if last == 1 else ""
    return f"`y` must hold numbers of shape ({positions}, {last}){also}."


def _shape(y: Tensor) -> str:
    return f"`y` of shape {y.shape} and dtype {y.dtype.name}"


def _targets(
    checks: _CombinedChecks,
    y: Tensor,
    weight: Tensor,
    kind: str,
    outputs: tuple[int | None, ...],
) -> Tensor:
    """Checks the values of labels; see `AnyBatch.targets`."""
    wide = y.shape.rank == len(outputs)
    if kind == CLASSIFICATION and not wide:
        return checks.numbers("y", y, outputs[-1], "classes").values
    # What follows reads the weights, whose number must be right by then.
    checks.combine()
    weight = graph_checks.after(checks.made, weight)
    y = tf.cast(y, tf.float32)
    counts = tf.reshape(weight > 0.0, [-1] + [1] * (y.shape.rank - 1))
    if kind == REGRESSION:
        good = tf.math.is_finite(y)
        wrong = counts & ~good
        checks.require(
            ~tf.reduce_any(wrong),
            "`y` must be finite where the weight is not 0. Received: {}.",
            lambda: (tf.boolean_mask(y, wrong)[0],),
        )
        return tf.where(good, y, 0.0)
    total = tf.reduce_sum(y, axis=-1)
    good = tf.reduce_all(y >= 0.0, axis=-1) & (
        tf.abs(total - 1.0) <= SUM_TOLERANCE
    )
    wrong = ~good & counts[..., 0]
    checks.require(
        ~tf.reduce_any(wrong),
        "`y` with a number for each class must hold probabilities: at least "
        f"0, with a sum of 1 (within {SUM_TOLERANCE:g}). Received: a sum of "
        "{} with a least value of {}.",
        lambda: (
            tf.boolean_mask(total, wrong)[0],
            tf.reduce_min(tf.boolean_mask(y, wrong)[0]),
        ),
    )
    return tf.where(good[..., tf.newaxis], y, 0.0)
