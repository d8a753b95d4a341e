"""KL divergence of attention tables that never holds all of them at once.

A table has one row and one column per token of a sequence, for each head:
`softmax(left @ right^T / sqrt(size))`. All tables of a batch have `batch x
heads x length^2` values. Here they are computed a few at a time, and the
gradient for the student's vectors is taken from each before it is dropped, so
that memory grows with the tokens of a batch only.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.divergences import divergence_of_softmaxes, softmax

Tensor = Any

# Numbers in the tables that exist at once, unless a single one has more. It
# is small enough for a processor's cache: 16 tables of 128 tokens.
_AT_ONCE = 2**18
# Score of columns at padding; its `exp` is 0.
_NEVER = -1e9

# The parts of a layer's vectors.
QUERIES, KEYS, VALUES = range(3)


class Table(NamedTuple):
    """The vectors whose products are the scores of a table.

    Attributes:
        left: the part that gives the rows, such as `QUERIES`.
        right: the part that gives the columns.
        weight: float >= 0, factor of the table's divergence.
    """

    left: int
    right: int
    weight: float = 1.0


def divergence_sum(
    teacher_attention: Tensor,
    student_attention: Tensor,
    *,
    tables: Sequence[Table],
    heads: int,
    padding_mask: Tensor,
    weight: Tensor,
    with_gradient: bool = True,
) -> Tensor:
    """Weighted sum over all tokens of the divergence of their rows.

    Formula:
        p = softmax(left_t @ right_t^T / sqrt(size_t))
        q = softmax(left_s @ right_s^T / sqrt(size_s))    # over real tokens
        row = mean over heads of sum(p * (log p - log q))         # nats
        sum = sum over tables and tokens of table_weight * weight * row

    Args:
        teacher_attention: float, (batch, length, 3, heads, size): queries,
            keys and values, which are split into `heads` heads anew. Gets no
            gradient.
        student_attention: float, the same, of its own width.
        tables: the tables to compare.
        heads: int, which divides both widths.
        padding_mask: (batch, length), above 0 at real tokens.
        weight: float32, (batch, length), weight of each token's row; 0 at
            padding.
        with_gradient: whether a gradient will be asked for. It is computed
            with the value.

    Returns:
        Scalar float32.
    """
    real = padding_mask > 0
    used = [table for table in tables if table.weight > 0]
    theirs = _split(teacher_attention, real, heads)

    @tf.custom_gradient
    def divergence(student: Tensor) -> tuple[Tensor, Any]:
        ours = _split(tf.stop_gradient(student), real, heads)
        value, slopes = _add_up(
            tf.stop_gradient(theirs),
            ours,
            used,
            real=tf.repeat(real, heads, axis=0),
            weight=tf.repeat(weight, heads, axis=0) / heads,
            with_gradient=with_gradient,
        )

        def gradient(upstream: Tensor) -> Tensor:
            joined = _join(slopes, tf.shape(student), heads)
            return tf.cast(upstream * joined, student.dtype)

        return value, gradient

    return divergence(student_attention)


def _split(vectors: Tensor, real: Tensor, heads: int) -> Tensor:
    """Returns float32, (batch * heads, 3, length, size), 0 at padding."""
    batch, length = tf.unstack(tf.shape(real))
    size = math.prod(vectors.shape[3:]) // heads
    vectors = tf.reshape(vectors, [batch, length, 3, heads, size])
    # Padding may hold anything, and 0 * NaN is NaN.
    vectors = tf.where(
        real[:, :, tf.newaxis, tf.newaxis, tf.newaxis],
        tf.cast(vectors, tf.float32),
        0.0,
    )
    vectors = tf.transpose(vectors, [0, 3, 2, 1, 4])
    return tf.reshape(vectors, [batch * heads, 3, length, size])


def _join(slopes: Tensor, shape: Tensor, heads: int) -> Tensor:
    """Reverses `_split`."""
    batch, length = shape[0], shape[1]
    size = slopes.shape[-1]
    slopes = tf.reshape(slopes, [batch, heads, 3, length, size])
    return tf.reshape(tf.transpose(slopes, [0, 3, 2, 1, 4]), shape)


def _add_up(
    theirs: Tensor,
    ours: Tensor,
    tables: Sequence[Table],
    *,
    real: Tensor,
    weight: Tensor,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Returns the sum, and the gradient for `ours` if asked for.

    The first axis of all arguments is that of sequences and heads.
    """
    count, length = tf.unstack(tf.shape(real))
    size = tf.maximum(_AT_ONCE // tf.maximum(length * length, 1), 1)
    # At least one, so that a batch without sequences has a gradient, too.
    chunks = tf.maximum((count + size - 1) // size, 1)

    def body(index: Tensor, total: Tensor, written: Any) -> tuple:
        chosen = slice(index * size, (index + 1) * size)
        value, slopes = _few_tables(
            theirs[chosen],
            ours[chosen],
            tables,
            real=real[chosen],
            weight=weight[chosen],
            with_gradient=with_gradient,
        )
        if with_gradient:
            written = written.write(index, slopes)
        return index + 1, total + value, written

    written = tf.TensorArray(
        tf.float32,
        size=chunks if with_gradient else 0,
        element_shape=[None, 3, None, ours.shape[-1]],
        infer_shape=False,
    )
    _, total, written = tf.while_loop(
        lambda index, *_: index < chunks,
        body,
        (tf.constant(0), tf.zeros([]), written),
        parallel_iterations=1,
    )
    return total, written.concat() if with_gradient else tf.zeros([])


def _few_tables(
    theirs: Tensor,
    ours: Tensor,
    tables: Sequence[Table],
    *,
    real: Tensor,
    weight: Tensor,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """As `_add_up`, with all tables at once."""
    total = tf.zeros([])
    slopes = [tf.zeros_like(ours[:, part]) for part in range(3)]
    for table in tables:
        p, t, t_normaliser = _rows(theirs, table, real)
        q, s, s_normaliser = _rows(ours, table, real)
        ratio = (t - s) - (t_normaliser - s_normaliser)
        rows = weight * table.weight
        total += functional.weighted_sum(
            divergence_of_softmaxes(p, q, ratio), rows
        )
        if with_gradient:
            scale = _scale(ours)
            above = (scale * rows)[:, :, tf.newaxis] * (q - p)
            slopes[table.left] += tf.matmul(above, ours[:, table.right])
            slopes[table.right] += tf.matmul(
                above, ours[:, table.left], transpose_a=True
            )
    return total, tf.stack(slopes, axis=1)


def _rows(
    vectors: Tensor, table: Table, real: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the table, its scores, and the log normaliser of each row."""
    scores = tf.matmul(
        _scale(vectors) * vectors[:, table.left],
        vectors[:, table.right],
        transpose_b=True,
    )
    scores = tf.where(real[:, tf.newaxis], scores, _NEVER)
    probabilities, normaliser = softmax(scores)
    return probabilities, scores, normaliser


def _scale(vectors: Tensor) -> float:
    return 1.0 / math.sqrt(vectors.shape[-1])
