"""Memory of the losses on logits, in chunks and on whole logits.

Every turn goes one step further and answers with the peak so far: the inputs of
the losses, then the losses in chunks, then on full logits.
"""

import functools
from typing import Any

import tensorflow as tf

import contestants
from contestants.shapes import Shape
from contestants.turns import Turns
from keras_distil import losses
from keras_distil.losses import chunked

Tensor = Any

DTYPES = {"float32": tf.float32, "mixed_bfloat16": tf.bfloat16}


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Answers three turns."""
    rows, vocabulary = shape.batch * shape.length, shape.sizes.vocabulary
    teacher, student = (
        chunked.VocabularyProjection(
            features=_random(rows, shape.sizes.width, DTYPES[precision]),
            kernel=_random(vocabulary, shape.sizes.width, DTYPES[precision]),
            bias=tf.zeros([vocabulary]),
        )
        for _ in range(2)
    )
    token_ids = tf.random.uniform([rows], maxval=vocabulary, dtype=tf.int32)
    mlm, soft_target, _ = losses.triple_loss(
        temperature=contestants.TEMPERATURE
    )
    in_chunks = tf.function(functools.partial(chunks, [mlm, soft_target]))
    for part in (lambda *_: None, in_chunks, tf.function(whole)):
        turns.next_command()
        part(teacher, student, token_ids)
        turns.answer({})
    turns.next_command()


def _random(rows: int, width: int, dtype: tf.DType) -> Tensor:
    return tf.cast(tf.random.normal([rows, width], stddev=0.1), dtype)


def chunks(
    logits_losses: list[losses.LogitsLoss],
    teacher: chunked.VocabularyProjection,
    student: chunked.VocabularyProjection,
    token_ids: Tensor,
) -> tuple:
    """Returns the losses as summed by keras_distil, and the gradients."""
    ones = tf.ones_like(token_ids, tf.float32)
    return chunked.chunked_losses(
        logits_losses,
        [tf.ones([]), tf.ones([])],
        student=student,
        teacher=teacher,
        token_ids=token_ids,
        row_weights=[ones, ones],
        metric_weight=ones,
        jit_compile=True,
    )


def whole(
    teacher: chunked.VocabularyProjection,
    student: chunked.VocabularyProjection,
    token_ids: Tensor,
) -> list:
    """Returns the same sum on full logits, and its gradients."""
    teacher_logits = _logits(teacher) / contestants.TEMPERATURE
    parts = [student.features, student.kernel, student.bias]
    with tf.GradientTape() as tape:
        tape.watch(parts)
        logits = _logits(student)
        log_teacher = tf.nn.log_softmax(teacher_logits)
        log_student = tf.nn.log_softmax(logits / contestants.TEMPERATURE)
        divergence = tf.exp(log_teacher) * (log_teacher - log_student)
        crossentropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            token_ids, logits
        )
        total = tf.reduce_sum(crossentropy)
        total += contestants.TEMPERATURE**2 * tf.reduce_sum(divergence)
    return tape.gradient(total, parts)


def _logits(projection: chunked.VocabularyProjection) -> Tensor:
    product = tf.matmul(
        projection.features, projection.kernel, transpose_b=True
    )
    return tf.cast(product, tf.float32) + projection.bias
