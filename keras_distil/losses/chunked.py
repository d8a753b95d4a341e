"""Losses on vocabulary logits that never hold all the logits at once.

The logits of a batch, of teacher and student, their softmaxes and gradients
are `rows x vocabulary` each and would dominate the memory of a step. Here the
rows go through the vocabulary in chunks, and the gradient is taken inside the
chunk, so that only the gradients for the features and the vocabulary matrix
leave it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.base import LogitsLoss

Tensor = Any

DEFAULT_CHUNK_SIZE = 256


class VocabularyProjection(NamedTuple):
    """What makes logits: `features @ kernel^T + bias`.

    Attributes:
        features: float, (rows, width), in the compute precision.
        kernel: float, (vocabulary, width), in the compute precision.
        bias: float32, (vocabulary,).
    """

    features: Tensor
    kernel: Tensor
    bias: Tensor


class ChunkedResult(NamedTuple):
    """Sums over the rows and the gradients of the weighted total.

    Attributes:
        sums: float32, (losses,), weighted sum of each loss over the rows.
        correct: float32 scalar, weight of rows whose argmax is the label.
        agreeing: float32 scalar, weight of rows where both argmaxes agree.
        feature_gradient: float, (rows, width), or None.
        kernel_gradient: float32, (vocabulary, width), or None.
        bias_gradient: float32, (vocabulary,), or None.
    """

    sums: Tensor
    correct: Tensor
    agreeing: Tensor
    feature_gradient: Tensor | None = None
    kernel_gradient: Tensor | None = None
    bias_gradient: Tensor | None = None


def chunked_losses(
    losses: Sequence[LogitsLoss],
    scales: Sequence[Tensor],
    *,
    student: VocabularyProjection,
    teacher: VocabularyProjection | None,
    token_ids: Tensor,
    row_weights: Sequence[Tensor],
    metric_weight: Tensor | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    with_gradients: bool = True,
) -> ChunkedResult:
    """Evaluates `losses` on all rows, a chunk of rows at a time.

    Args:
        losses: the losses to evaluate.
        scales: float32 scalars, one per loss: the factor of its summed value
            in the total whose gradient is taken (weight over global count).
        student: the student's rows; the gradients are taken for these.
        teacher: the teacher's rows, same number and vocabulary, or None if
            no loss needs them.
        token_ids: int32, (rows,), the original tokens.
        row_weights: float32, (rows,), one per loss.
        metric_weight: float32, (rows,), the rows that accuracy and agreement
            count, or None to leave both out (they cost a pass over the
            logits).
        chunk_size: rows at a time.
        with_gradients: whether gradients are wanted.

    Returns:
        A `ChunkedResult`.
    """
    rows = tf.shape(student.features)[0]
    # Chunks of equal size: a last chunk of a few rows would waste a full pass
    # over the vocabulary matrix.
    chunks = tf.maximum((rows + chunk_size - 1) // chunk_size, 1)
    size = (rows + chunks - 1) // chunks
    width = student.features.shape[-1]

    def body(index: Tensor, carry: dict[str, Tensor]) -> tuple:
        part = slice(index * size, tf.minimum((index + 1) * size, rows))
        chunk = _chunk_of(student, part)
        values, logits_gradient = _evaluate_chunk(
            losses,
            scales,
            student_logits=_logits(chunk),
            teacher_logits=(
                None if teacher is None else _logits(_chunk_of(teacher, part))
            ),
            token_ids=token_ids[part],
            row_weights=[weight[part] for weight in row_weights],
            metric_weight=(
                None if metric_weight is None else metric_weight[part]
            ),
            with_gradients=with_gradients,
        )
        carry = dict(carry, values=carry["values"] + values)
        if with_gradients:
            carry.update(_accumulate(carry, index, chunk, logits_gradient))
        return index + 1, carry

    start: dict[str, Any] = {"values": tf.zeros([len(losses) + 2])}
    if with_gradients:
        start["features"] = tf.TensorArray(
            student.features.dtype,
            size=chunks,
            element_shape=[None, width],
            infer_shape=False,
        )
        start["kernel"] = tf.zeros(tf.shape(student.kernel))
        start["bias"] = tf.zeros(tf.shape(student.bias))
    _, end = tf.while_loop(
        lambda index, _: index < chunks,
        body,
        (tf.constant(0), start),
        parallel_iterations=1,
    )
    sums, metrics = tf.split(end["values"], [len(losses), 2])
    result = ChunkedResult(sums, metrics[0], metrics[1])
    if not with_gradients:
        return result
    return result._replace(
        feature_gradient=tf.ensure_shape(
            end["features"].concat(), [None, width]
        ),
        kernel_gradient=end["kernel"],
        bias_gradient=end["bias"],
    )


def _chunk_of(
    projection: VocabularyProjection, part: slice
) -> VocabularyProjection:
    return projection._replace(features=projection.features[part])


def _logits(projection: VocabularyProjection) -> Tensor:
    logits = tf.matmul(projection.features, projection.kernel, transpose_b=True)
    return tf.cast(logits, tf.float32) + projection.bias


def _evaluate_chunk(
    losses: Sequence[LogitsLoss],
    scales: Sequence[Tensor],
    *,
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    token_ids: Tensor,
    row_weights: Sequence[Tensor],
    metric_weight: Tensor | None,
    with_gradients: bool,
) -> tuple[Tensor, Tensor | None]:
    """Sums of the chunk, (losses + 2,), and the total's logits gradient."""
    sums = []
    total = tf.zeros([])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(student_logits)
        for loss, scale, weight in zip(
            losses, scales, row_weights, strict=True
        ):
            values = loss.token_values(
                token_ids=token_ids,
                teacher_logits=teacher_logits,
                student_logits=student_logits,
            )
            sums.append(functional.weighted_sum(values, weight))
            total += scale * sums[-1]
    gradient = tape.gradient(total, student_logits) if with_gradients else None
    metrics = [tf.zeros([]), tf.zeros([])]
    if metric_weight is not None:
        metrics = _argmax_metrics(
            student_logits, teacher_logits, token_ids, metric_weight
        )
    return tf.stack(sums + metrics), gradient


def _argmax_metrics(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    token_ids: Tensor,
    metric_weight: Tensor,
) -> list[Tensor]:
    best = tf.argmax(student_logits, axis=-1, output_type=tf.int32)
    correct = tf.cast(best == token_ids, tf.float32)
    correct_sum = tf.reduce_sum(correct * metric_weight)
    if teacher_logits is None:
        return [correct_sum, tf.zeros([])]
    teacher_best = tf.argmax(teacher_logits, axis=-1, output_type=tf.int32)
    agreeing = tf.cast(best == teacher_best, tf.float32)
    return [correct_sum, tf.reduce_sum(agreeing * metric_weight)]


def _accumulate(
    carry: dict[str, Any],
    index: Tensor,
    chunk: VocabularyProjection,
    logits_gradient: Tensor,
) -> dict[str, Any]:
    """Adds the chunk's gradients to what the loop carries."""
    compute_dtype = chunk.features.dtype
    bias_gradient = tf.reduce_sum(logits_gradient, axis=0)
    logits_gradient = tf.cast(logits_gradient, compute_dtype)
    kernel_gradient = tf.matmul(
        logits_gradient, chunk.features, transpose_a=True
    )
    return {
        "features": carry["features"].write(
            index, tf.matmul(logits_gradient, chunk.kernel)
        ),
        # Chunks are added in float32 whatever the compute precision.
        "kernel": carry["kernel"] + tf.cast(kernel_gradient, tf.float32),
        "bias": carry["bias"] + bias_gradient,
    }
