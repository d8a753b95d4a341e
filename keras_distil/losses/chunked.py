"""Losses on vocabulary logits that never hold all the logits at once.

The logits of teacher and student, their softmaxes and their gradients have
`rows x vocabulary` values each and would dominate the memory of a step. Here
the rows are processed in chunks, and the gradient is taken inside each chunk,
so that only the gradients for the features and the vocabulary matrix leave it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.base import (
    DistillationLoss,
    checked_values,
    loss_values,
)
from keras_distil.losses.mixtures import (
    SeveralLogits,
    joint_logits,
    one_or_several,
)
from keras_distil.losses.top_logits import TopLogits

Tensor = Any

DEFAULT_CHUNK_SIZE = 256

# What XLA compiles: nothing, the operations between the matrix products, or the
# products as well.
JitCompile: TypeAlias = bool | Literal["products"]


class VocabularyProjection(NamedTuple):
    """The factors of logits: `features @ kernel^T + bias`.

    Attributes:
        features: float, (rows, width), in the compute precision.
        kernel: float, (vocabulary, width), in the compute precision; None
            if `decoder` computes the products.
        bias: float32, (vocabulary,).
        decoder: function from features to products, for models whose decoder
            is not a plain matrix product, such as a quantised teacher.
    """

    features: Tensor
    kernel: Tensor | None
    bias: Tensor
    decoder: Callable[[Tensor], Tensor] | None = None

    def products(self, features: Tensor | None = None) -> Tensor:
        """Returns the logits without the bias, (rows, vocabulary).

        Args:
            features: some of the rows, or all of them if None.
        """
        rows = self.features if features is None else features
        if self.decoder is not None:
            return self.decoder(rows)
        return tf.matmul(rows, self.kernel, transpose_b=True)


# The teacher's side of the losses.
Teacher: TypeAlias = (
    VocabularyProjection | Sequence[VocabularyProjection] | TopLogits | None
)


class ChunkedResult(NamedTuple):
    """Sums over the rows and the gradients of the weighted total.

    Attributes:
        sums: float32, (losses,), weighted sum of each loss over the rows.
        correct: float32 scalar, weight of rows whose argmax is the label.
        agreeing: float32 scalar, weight of rows where both argmaxes agree.
        statistics: float32, (losses with a statistic,), weighted sum of each
            statistic over the rows.
        feature_gradient: float, (rows, width), or None.
        kernel_gradient: float32, (vocabulary, width), or None.
        bias_gradient: float32, (vocabulary,), or None.
    """

    sums: Tensor
    correct: Tensor
    agreeing: Tensor
    statistics: Tensor
    feature_gradient: Tensor | None = None
    kernel_gradient: Tensor | None = None
    bias_gradient: Tensor | None = None


def chunked_losses(
    losses: Sequence[DistillationLoss],
    scales: Sequence[Tensor],
    *,
    student: VocabularyProjection,
    teacher: Teacher,
    token_ids: Tensor,
    row_weights: Sequence[Tensor],
    metric_weight: Tensor,
    masked_rows: Tensor | None = None,
    chunk_size: int = DEFAULT_CHUNK_SIZE,
    jit_compile: JitCompile = False,
    with_gradients: bool = True,
) -> ChunkedResult:
    """Evaluates `losses` on all rows, one chunk of rows at a time.

    Args:
        losses: the losses to evaluate.
        scales: float32 scalars, one per loss: the factor of its summed value
            in the total whose gradient is taken (weight over global count).
        student: the student's rows, for which gradients are taken.
        teacher: the teacher's rows, same number and vocabulary; a list of
            those of several teachers, whose logits exist for one chunk at a
            time as well; or the largest logits of each row. None if no loss
            needs them.
        token_ids: int32, (rows,), the original tokens.
        row_weights: float32, (rows,), one per loss.
        metric_weight: float32, (rows,), weights for accuracy and agreement.
        masked_rows: int scalar or None. From this row on, losses on masked
            positions and metrics have weight 0, so chunks beyond it skip
            them. None means that any row may have weight.
        chunk_size: number of rows per chunk.
        jit_compile: whether XLA compiles the operations between the matrix
            products; with "products", the products as well. Which is faster
            depends on the processor (`training.compilation`).
        with_gradients: whether to compute gradients.

    Returns:
        A `ChunkedResult`.
    """
    rows = tf.shape(student.features)[0]
    masked_rows = rows if masked_rows is None else masked_rows
    chunks = tf.maximum((rows + chunk_size - 1) // chunk_size, 1)
    # XLA needs one static size, so its inputs from the last chunk are padded.
    # Otherwise the chunks are of equal size, so that none has only a few rows.
    size = chunk_size if jit_compile else (rows + chunks - 1) // chunks
    width = student.features.shape[-1]

    def body(index: Tensor, carry: dict[str, Any]) -> tuple:
        start, stop = index * size, tf.minimum((index + 1) * size, rows)

        def part(tensor: Tensor) -> Tensor:
            return tensor[start:stop]

        def fill(tensor: Tensor) -> Tensor:
            return _filled(tensor, size) if jit_compile else tensor

        def filled_part(tensor: Tensor) -> Tensor:
            return fill(part(tensor))

        some = _Rows(
            student=student._replace(features=part(student.features)),
            teachers=_of_rows(teacher, part),
            teacher_top=teacher.of_rows(filled_part)
            if isinstance(teacher, TopLogits)
            else None,
            token_ids=filled_part(token_ids),
            row_weights=[filled_part(weight) for weight in row_weights],
            metric_weight=filled_part(metric_weight),
        )
        values, gradients = _evaluate(
            losses,
            scales,
            some,
            fill=fill,
            any_masked=start < masked_rows,
            jit_compile=jit_compile,
            with_gradients=with_gradients,
        )
        carry = dict(carry, values=carry["values"] + values)
        if with_gradients:
            of_features = gradients.features[: stop - start]
            carry["features"] = carry["features"].write(index, of_features)
            # Chunks are summed in float32 whatever the compute precision.
            carry["kernel"] += tf.cast(gradients.kernel, tf.float32)
            carry["bias"] += gradients.bias
        return index + 1, carry

    _, end = tf.while_loop(
        lambda index, _: index < chunks,
        body,
        (tf.constant(0), _zeros(losses, student, chunks, with_gradients)),
        parallel_iterations=1,
    )
    observed = sum(loss.statistic is not None for loss in losses)
    sums, metrics, statistics = tf.split(
        end["values"], [len(losses), 2, observed]
    )
    result = ChunkedResult(sums, metrics[0], metrics[1], statistics)
    if not with_gradients:
        return result
    return result._replace(
        feature_gradient=tf.ensure_shape(
            end["features"].concat(), [None, width]
        ),
        kernel_gradient=end["kernel"],
        bias_gradient=end["bias"],
    )


class _Rows(NamedTuple):
    """Some rows of the models' features, and what the losses read of them."""

    student: VocabularyProjection
    teachers: list[VocabularyProjection]
    teacher_top: TopLogits | None
    token_ids: Tensor
    row_weights: list[Tensor]
    metric_weight: Tensor


class _Chunk(NamedTuple):
    """The inputs of the losses for one chunk of rows."""

    student_product: Tensor
    student_bias: Tensor
    teacher_products: list[Tensor]
    teacher_biases: list[Tensor]
    teacher_top: TopLogits | None
    token_ids: Tensor
    row_weights: list[Tensor]
    metric_weight: Tensor


class _Gradients(NamedTuple):
    """Gradients of one chunk, as of a `ChunkedResult`."""

    features: Tensor
    kernel: Tensor
    bias: Tensor


def _of_rows(
    teacher: Teacher, part: Callable[[Tensor], Tensor]
) -> list[VocabularyProjection]:
    """Returns some rows of the teachers whose logits are computed here."""
    several: Sequence[VocabularyProjection] = ()
    if isinstance(teacher, VocabularyProjection):
        several = [teacher]
    elif teacher is not None and not isinstance(teacher, TopLogits):
        several = teacher
    return [x._replace(features=part(x.features)) for x in several]


def _with_products(rows: _Rows, fill: Callable[[Tensor], Tensor]) -> _Chunk:
    return _Chunk(
        student_product=fill(rows.student.products()),
        student_bias=rows.student.bias,
        teacher_products=[fill(x.products()) for x in rows.teachers],
        teacher_biases=[x.bias for x in rows.teachers],
        teacher_top=rows.teacher_top,
        token_ids=rows.token_ids,
        row_weights=rows.row_weights,
        metric_weight=rows.metric_weight,
    )


def _filled(tensor: Tensor, size: int) -> Tensor:
    """Pads a tensor with rows of zeros to `size` rows."""
    missing = size - tf.shape(tensor)[0]
    fill = [[0, missing]] + [[0, 0]] * (tensor.shape.rank - 1)
    # Most chunks are full, and copying a table of logits is slow.
    filled = tf.cond(missing > 0, lambda: tf.pad(tensor, fill), lambda: tensor)
    return tf.ensure_shape(filled, [size, *tensor.shape[1:]])


def _zeros(
    losses: Sequence[DistillationLoss],
    student: VocabularyProjection,
    chunks: Tensor,
    with_gradients: bool,
) -> dict[str, Any]:
    """Initial values of the loop over the chunks."""
    observed = sum(loss.statistic is not None for loss in losses)
    zeros: dict[str, Any] = {"values": tf.zeros([len(losses) + 2 + observed])}
    if with_gradients:
        zeros["features"] = tf.TensorArray(
            student.features.dtype,
            size=chunks,
            element_shape=[None, student.features.shape[-1]],
            infer_shape=False,
        )
        zeros["kernel"] = tf.zeros(tf.shape(student.kernel))
        zeros["bias"] = tf.zeros(tf.shape(student.bias))
    return zeros


def logits(projection: VocabularyProjection) -> Tensor:
    """Returns all logits of some rows, float32, (rows, vocabulary)."""
    return _logits(projection.products(), projection.bias)


def _evaluate(
    losses: Sequence[DistillationLoss],
    scales: Sequence[Tensor],
    rows: _Rows,
    *,
    fill: Callable[[Tensor], Tensor],
    any_masked: Tensor,
    jit_compile: JitCompile,
    with_gradients: bool,
) -> tuple[Tensor, _Gradients]:
    """Selects the losses that the chunk needs, and compiles if requested.

    Returns the sums of `_evaluate_chunk`, and the gradients.
    """
    models = [rows.student, *rows.teachers]
    has_kernels = all(model.decoder is None for model in models)

    def evaluate(masked: bool) -> Callable[[], tuple[Tensor, _Gradients]]:
        def on_logits(scales: Sequence[Tensor], chunk: _Chunk) -> Any:
            return _evaluate_chunk(
                losses,
                scales,
                chunk,
                masked=masked,
                with_gradients=with_gradients,
            )

        def on_features(scales: Sequence[Tensor], rows: _Rows) -> Any:
            found = on_logits(scales, _with_products(rows, lambda x: x))
            return _through_products(rows, found, with_gradients)

        if not jit_compile:
            return lambda: on_features(scales, rows)
        if jit_compile == "products" and has_kernels:
            whole = tf.function(on_features, jit_compile=True, autograph=False)
            return lambda: whole(scales, _with_filled_features(rows, fill))
        compiled = tf.function(on_logits, jit_compile=True, autograph=False)

        def around_compiled() -> tuple[Tensor, _Gradients]:
            # Products are computed for the real rows only.
            found = compiled(scales, _with_products(rows, fill))
            return _through_products(rows, found, with_gradients)

        return around_compiled

    if all(loss.counts == "masked" for loss in losses):
        return evaluate(True)()
    return tf.cond(any_masked, evaluate(True), evaluate(False))


def _with_filled_features(
    rows: _Rows, fill: Callable[[Tensor], Tensor]
) -> _Rows:
    student, *teachers = [
        x._replace(features=fill(x.features))
        for x in (rows.student, *rows.teachers)
    ]
    return rows._replace(student=student, teachers=teachers)


def _through_products(
    rows: _Rows,
    found: tuple[Tensor, Tensor, Tensor],
    with_gradients: bool,
) -> tuple[Tensor, _Gradients]:
    """Takes the gradient for the logits on to features and vocabulary."""
    values, gradient, bias_gradient = found
    if not with_gradients:
        return values, _Gradients(gradient, gradient, bias_gradient)
    features = rows.student.features
    gradient = gradient[: tf.shape(features)[0]]
    return values, _Gradients(
        features=tf.matmul(gradient, rows.student.kernel),
        kernel=tf.matmul(gradient, features, transpose_a=True),
        bias=bias_gradient,
    )


def _evaluate_chunk(
    losses: Sequence[DistillationLoss],
    scales: Sequence[Tensor],
    chunk: _Chunk,
    *,
    masked: bool,
    with_gradients: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns sums, and the total's gradients for the logits and the bias.

    The sums are those of the losses, of two metrics and of the statistics.
    """
    student_logits = _logits(chunk.student_product, chunk.student_bias)
    teacher_logits: Tensor | SeveralLogits | TopLogits | None
    teacher_logits = chunk.teacher_top
    if chunk.teacher_products:
        teacher_logits = one_or_several(
            list(map(_logits, chunk.teacher_products, chunk.teacher_biases))
        )
    sums, statistics = [], []
    total = tf.zeros([])
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(student_logits)
        for loss, scale, weight in zip(
            losses, scales, chunk.row_weights, strict=True
        ):
            if loss.counts == "masked" and not masked:
                sums.append(tf.zeros([]))
                statistics += [tf.zeros([])] * (loss.statistic is not None)
                continue
            if loss.statistic is not None:
                found = loss.token_statistic(student_logits)
                found = checked_values(loss, found, weight)
                statistics.append(functional.weighted_sum(found, weight))
            values = loss_values(
                loss,
                weight,
                targets=chunk.token_ids,
                teacher_logits=teacher_logits,
                student_logits=student_logits,
            )
            sums.append(functional.weighted_sum(values, weight))
            total += scale * sums[-1]
    metrics = [tf.zeros([]), tf.zeros([])]
    if masked:
        metrics = _argmax_metrics(student_logits, teacher_logits, chunk)
    values = tf.stack(sums + metrics + statistics)
    if not with_gradients:
        return values, tf.zeros([]), tf.zeros([])
    gradient = tape.gradient(total, student_logits)
    return (
        values,
        tf.cast(gradient, chunk.student_product.dtype),
        tf.reduce_sum(gradient, axis=0),
    )


def _logits(product: Tensor, bias: Tensor) -> Tensor:
    return tf.cast(product, tf.float32) + bias


def _argmax_metrics(
    student_logits: Tensor,
    teacher_logits: Tensor | SeveralLogits | TopLogits | None,
    chunk: _Chunk,
) -> list[Tensor]:
    best = tf.argmax(student_logits, axis=-1, output_type=tf.int32)
    correct = tf.cast(best == chunk.token_ids, tf.float32)
    correct_sum = tf.reduce_sum(correct * chunk.metric_weight)
    if teacher_logits is None:
        return [correct_sum, tf.zeros([])]
    if isinstance(teacher_logits, TopLogits):
        teacher_best = teacher_logits.token_ids[:, 0]
    else:
        teacher_best = tf.argmax(
            joint_logits(teacher_logits), axis=-1, output_type=tf.int32
        )
    agreeing = tf.cast(best == teacher_best, tf.float32)
    return [correct_sum, tf.reduce_sum(agreeing * chunk.metric_weight)]
