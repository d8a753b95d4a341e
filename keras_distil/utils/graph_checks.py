"""Checks of tensors, in graphs and eagerly, with errors of one line.

TensorFlow shows a failed assertion in a graph as a traceback of many lines.
Here an assertion carries its message, and `failed_check` extracts it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Tensor = Any

_MARK = "keras_distil check: "
_FAILED = re.compile(
    rf"assertion failed: \[{_MARK}(?P<message>[^\]]*)\]"
    r"(?P<values>(?: \[[^\]]*\])*)"
)


class BatchError(ValueError):
    """A batch does not fit together, or does not fit the model."""

    # Keras would add all arguments of `call` to the message.
    _keras_call_info_injected = True


def require(
    condition: Tensor, message: str, values: Callable[[], Sequence[Tensor]]
) -> list[Tensor]:
    """Asserts a condition: at once in eager execution, else in the graph.

    Args:
        condition: bool scalar.
        message: one line without square brackets, with a `{}` for each value.
        values: function that computes scalars or vectors for the message. It
            runs only if the condition is false.

    Returns:
        Tensors to evaluate before anything that relies on the condition; see
        `after`. Empty in eager execution.

    Raises:
        BatchError: in eager execution, if the condition is false.
    """
    if tf.executing_eagerly():
        if bool(condition):
            return []
        raise BatchError(_fill(message, map(_format, values())))

    def fail() -> Tensor:
        # In a separate branch: on a GPU, the values stay where they are
        # unless the assertion fails.
        data = [_MARK + message, *values()]
        with tf.control_dependencies([tf.debugging.Assert(False, data, 8)]):
            return tf.constant(False)

    return [tf.cond(condition, lambda: tf.constant(True), fail)]


def require_all(
    requirements: Sequence[tuple[Tensor, str, Callable[[], Sequence[Tensor]]]],
) -> list[Tensor]:
    """Asserts several conditions by a single branch in the graph.

    Args:
        requirements: the arguments of `require`, for each condition. In eager
            execution, the first that is false raises its error.

    Returns:
        As `require`.
    """
    if tf.executing_eagerly() or len(requirements) < 2:
        return [x for each in requirements for x in require(*each)]

    def fail() -> Tensor:
        checks: list[Tensor] = []
        for each in requirements:
            with tf.control_dependencies(checks):
                checks = require(*each)
        return after(checks, tf.constant(False))

    good = tf.reduce_all(tf.stack([each[0] for each in requirements]))
    return [tf.cond(good, lambda: tf.constant(True), fail)]


def after(checks: Sequence[Tensor], values: Any) -> Any:
    """Returns the same values, available only once the checks pass.

    Args:
        checks: from `require`.
        values: a nested structure of tensors.
    """
    if not checks:
        return values
    with tf.control_dependencies(list(checks)):
        return tf.nest.map_structure(tf.identity, values)


def failed_check(error: Exception) -> BatchError | None:
    """Extracts a failed check from TensorFlow's error, if there is one."""
    match = _FAILED.search(str(error))
    if match is None:
        return None
    values = re.findall(r"\[([^\]]*)\]", match["values"])
    return BatchError(_fill(match["message"], values))


def _fill(message: str, values: Any) -> str:
    filled = message.format(*[value.replace(" ", ", ") for value in values])
    # The shape of a vector, in Python's form.
    return re.sub(r"shape \((\d+)\)", r"shape (\1,)", filled)


def _format(value: Tensor) -> str:
    """Formats a value as TensorFlow's assertion prints it."""
    array = tf.convert_to_tensor(value).numpy()
    return " ".join(
        f"{x:g}" if x.dtype.kind == "f" else str(x) for x in array.reshape(-1)
    )
