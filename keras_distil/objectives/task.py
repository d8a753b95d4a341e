"""Distillation of one batch of a task: forwards, losses, gradients."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.losses import (
    DistillationLoss,
    HiddenStateLoss,
    LabelSquaredError,
    LogitsLoss,
    SoftTargetSquaredError,
    functional,
)
from keras_distil.models import forward
from keras_distil.models.task_model import kind_of
from keras_distil.objectives import shared

Tensor = Any

# Logits of positions that cannot be chosen. Finite, so that a difference of
# two such logits is 0 and not NaN; far below any real one.
_NEVER = -1e9


class TaskBatch(NamedTuple):
    """A Keras triple with its parts named.

    Attributes:
        inputs: "token_ids", "padding_mask" and perhaps "segment_ids", int32,
            (batch, length).
        targets: the labels: int32 (batch,) of a classification, float32
            (batch,) of a regression, int32 (batch, length) of a token
            classification, int32 (batch, 2), start and end, of a span.
        weight: float32, (batch,), or (batch, length) of a token
            classification; 0 leaves an example out.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    weight: Tensor

    @property
    def token_weight(self) -> Tensor:
        """float32, (batch, length), 1 at real tokens."""
        return tf.cast(self.inputs["padding_mask"], tf.float32)

    def part(self, index: Tensor, parts: int) -> "TaskBatch":
        """The `index`-th of `parts` consecutive, nearly equal micro-batches."""
        size = tf.shape(self.targets)[0]
        start, stop = index * size // parts, (index + 1) * size // parts
        return tf.nest.map_structure(lambda value: value[start:stop], self)


class _Rows(NamedTuple):
    """Every decision that a model takes in a batch, one a row.

    Attributes:
        targets: (rows,), the right choice.
        weight: float32, (rows,).
        logits: function of a model's outputs to (rows, choices).
    """

    targets: Tensor
    weight: Tensor
    logits: Any


class TaskObjective:
    """The losses of one batch of a task and their gradients.

    Sums and sizes are kept apart as in `MaskedLMObjective`. Losses on logits
    divide by the number of decisions: texts, tokens with a label, or two a
    span; those on hidden states by the number of tokens.

    Args:
        teacher: a model for the same task, or None.
        student: a model of `models.task_model`.
        losses: the losses to add up.

    Raises:
        TypeError: if a model is for another task, or a loss for another kind
            of output.
        ValueError: if vocabularies or classes differ, loss names repeat, a
            loss needs a teacher and there is none, or under `mixed_float16`.
    """

    # Settings of the vocabulary losses, which tasks have none of.
    chunk_size = 0
    jit_compile = False

    def __init__(
        self,
        teacher: keras.Model | None,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
    ) -> None:
        self.kind = _check_kinds(teacher, student)
        shared.check_pair(teacher, student)
        shared.check_losses(losses, teacher)
        self._logits_losses = [x for x in losses if isinstance(x, LogitsLoss)]
        self._hidden_losses = [
            x for x in losses if isinstance(x, HiddenStateLoss)
        ]
        _check_outputs(self.kind, self._logits_losses)
        self.teacher = teacher
        self.student = student
        self.losses = list(losses)
        self.projection = shared.hidden_state_projection(
            teacher, student, losses
        )

    @property
    def ratios(self) -> dict[str, tuple[str, str]]:
        """Each log as (key of a sum, key of the size that divides it)."""
        ratios = {
            f"{loss.name}_loss": (f"{loss.name}_sum", _size_of(loss))
            for loss in self.losses
        }
        ratios |= shared.statistic_ratios(self._logits_losses, _size_of)
        if self.kind == "regression":
            ratios["mean_absolute_error"] = ("error", "rows")
            return ratios
        ratios["accuracy"] = ("correct", "rows")
        if self.teacher is not None:
            ratios["teacher_agreement"] = ("agreeing", "rows")
        return ratios

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that the gradients are taken for."""
        variables = list(self.student.trainable_variables)
        if self.projection is not None:
            variables += self.projection.trainable_variables
        left_out: set[int] = set()
        pooler = getattr(self.student.backbone, "pooled_dense", None)
        if pooler is not None and self.kind in ("span", "token_classification"):
            # BERT's pooler takes no part in the outputs of tokens.
            left_out = {id(v) for v in pooler.variables}
        return [v for v in variables if id(v) not in left_out]

    def batch(self, data: Any) -> TaskBatch:
        """The parts of a Keras triple, checked and named.

        Raises:
            ValueError: if a part is missing or of another form.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        _check_inputs(x)
        if y is None:
            raise ValueError(
                "A batch must hold the labels as `y`. Received: y=None."
            )
        inputs = {name: tf.cast(value, tf.int32) for name, value in x.items()}
        targets = _targets(self.kind, y)
        shape = tf.shape(targets)
        if self.kind == "span":
            shape = shape[:1]
        if sample_weight is None:
            weight = tf.ones(shape)
        else:
            weight = tf.cast(sample_weight, tf.float32)
        if self.kind == "token_classification":
            weight *= tf.cast(inputs["padding_mask"], tf.float32)
        return TaskBatch(inputs, targets, weight)

    def outputs(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """The student's outputs, float32; see `forward.encode_task`."""
        return forward.encode_task(self.student, inputs, training=training)[1]

    def sizes(self, batch: TaskBatch) -> dict[str, Tensor]:
        """What the means of this batch divide by, float32 scalars."""
        return {
            "rows": tf.reduce_sum(self._rows(batch).weight),
            "tokens": tf.reduce_sum(batch.token_weight),
        }

    def evaluate(
        self,
        batch: TaskBatch,
        sizes: dict[str, Tensor],
        *,
        training: bool,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """One forward of each model, the losses and, in training, gradients.

        Args:
            batch: a batch, or a part of one.
            sizes: of the whole global batch; see `sizes`.
            training: whether dropout is active and gradients are wanted.

        Returns:
            The sums that `ratios` names, and the gradients of the weighted
            total for `variables` (none without `training`).
        """
        rows = self._rows(batch)
        scales = {
            loss.name: tf.math.divide_no_nan(
                tf.convert_to_tensor(loss.weight), sizes[_size_of(loss)]
            )
            for loss in self.losses
        }
        teacher_states = teacher_logits = None
        if self.teacher is not None:
            teacher_states, outputs = forward.encode_task(
                self.teacher, batch.inputs, training=False
            )
            teacher_logits = rows.logits(outputs)
        with tf.GradientTape() as tape:
            student_states, outputs = forward.encode_task(
                self.student, batch.inputs, training=training
            )
            student_logits = rows.logits(outputs)
            total, sums = shared.hidden_state_losses(
                self._hidden_losses,
                scales,
                token_weight=batch.token_weight,
                teacher_states=teacher_states,
                student_states=student_states,
                projection=self.projection,
            )
            for loss in self._logits_losses:
                values = loss.token_values(
                    targets=rows.targets,
                    teacher_logits=teacher_logits,
                    student_logits=student_logits,
                )
                added = functional.weighted_sum(values, rows.weight)
                sums[f"{loss.name}_sum"] = added
                total += scales[loss.name] * added
                if loss.statistic is not None:
                    sums[f"{loss.name}_statistic"] = functional.weighted_sum(
                        loss.token_statistic(student_logits), rows.weight
                    )
        sums |= self._metrics(rows, teacher_logits, student_logits)
        if not training:
            return sums, []
        return sums, _gradients(tape, total, self.variables)

    def _rows(self, batch: TaskBatch) -> _Rows:
        if self.kind == "token_classification":
            return _Rows(
                tf.reshape(batch.targets, [-1]),
                tf.reshape(batch.weight, [-1]),
                lambda outputs: tf.reshape(outputs, [-1, outputs.shape[-1]]),
            )
        if self.kind == "span":
            real = batch.inputs["padding_mask"] > 0

            def logits(outputs: Tensor) -> Tensor:
                masked = tf.where(real[:, :, None], outputs, _NEVER)
                return tf.concat([masked[:, :, 0], masked[:, :, 1]], axis=0)

            return _Rows(
                tf.concat([batch.targets[:, 0], batch.targets[:, 1]], axis=0),
                tf.concat([batch.weight, batch.weight], axis=0),
                logits,
            )
        return _Rows(batch.targets, batch.weight, lambda outputs: outputs)

    def _metrics(
        self, rows: _Rows, teacher_logits: Tensor, student_logits: Tensor
    ) -> dict[str, Tensor]:
        """Sums of the metrics that `ratios` names."""
        if self.kind == "regression":
            error = tf.abs(student_logits[:, 0] - rows.targets)
            return {"error": functional.weighted_sum(error, rows.weight)}
        best = tf.argmax(student_logits, axis=-1, output_type=tf.int32)

        def share(others: Tensor) -> Tensor:
            equal = tf.cast(best == others, tf.float32)
            return functional.weighted_sum(equal, rows.weight)

        sums = {"correct": share(rows.targets)}
        if teacher_logits is not None:
            sums["agreeing"] = share(
                tf.argmax(teacher_logits, axis=-1, output_type=tf.int32)
            )
        return sums


def _size_of(loss: DistillationLoss) -> str:
    """Which size of the batch divides the sum of `loss`."""
    return "tokens" if isinstance(loss, HiddenStateLoss) else "rows"


def _gradients(
    tape: tf.GradientTape, total: Tensor, variables: list[keras.Variable]
) -> list[Tensor]:
    """Dense gradients of a scalar."""
    found = tape.gradient(total, variables)
    for variable, gradient in zip(variables, found, strict=True):
        if gradient is None:
            raise ValueError(
                f"No loss reaches the trainable variable {variable.path!r}. "
                "Set the layer's `trainable` to False."
            )
    return [tf.convert_to_tensor(gradient) for gradient in found]


def _targets(kind: str, y: Any) -> Tensor:
    """The labels in the type and shape of `TaskBatch.targets`."""
    if kind == "span":
        if not isinstance(y, dict) or set(y) != {"start", "end"}:
            received = sorted(y) if isinstance(y, dict) else type(y).__name__
            raise ValueError(
                "The labels of a span must be {'start', 'end'}, each (batch,). "
                f"Received: y={received}."
            )
        return tf.stack(
            [tf.cast(y[name], tf.int32) for name in ("start", "end")], axis=1
        )
    if isinstance(y, dict):
        raise ValueError(
            f"The labels of a {kind.replace('_', ' ')} must be one array. "
            f"Received: y={sorted(y)}."
        )
    return tf.cast(y, tf.float32 if kind == "regression" else tf.int32)


def _check_inputs(x: Any) -> None:
    wanted = {"token_ids", "padding_mask"}
    if not isinstance(x, dict) or not wanted <= set(x) <= {
        *wanted,
        "segment_ids",
    }:
        received = sorted(x) if isinstance(x, dict) else type(x).__name__
        raise ValueError(
            "A batch must be `({'token_ids', 'padding_mask'}, labels)`, with "
            "'segment_ids' if wanted and with weights as a third part. "
            f"Received: x={received}."
        )


def _check_kinds(teacher: keras.Model | None, student: keras.Model) -> str:
    """The kind of task; raises an error unless both models are for it."""
    kind = kind_of(student)
    if kind is None:
        raise TypeError(
            "`student` must be a model of `models.task_model`. "
            f"Received: {type(student).__name__}."
        )
    if teacher is None:
        return kind
    if kind_of(teacher) != kind:
        raise TypeError(
            "Teacher and student must be for the same kind of task. Received: "
            f"a teacher of {type(teacher).__name__}, a student for {kind}."
        )
    if kind != "span" and teacher.num_classes != student.num_classes:
        raise ValueError(
            "Teacher and student must have the same classes. Received: "
            f"{teacher.num_classes} and {student.num_classes}."
        )
    return kind


def _check_outputs(kind: str, losses: Sequence[LogitsLoss]) -> None:
    """Raises TypeError for a loss on another kind of output."""
    of_numbers = (LabelSquaredError, SoftTargetSquaredError)
    for loss in losses:
        if isinstance(loss, of_numbers) != (kind == "regression"):
            raise TypeError(
                f"{type(loss).__name__} is not for a {kind.replace('_', ' ')}. "
                "`losses.task_loss` makes the losses of each kind."
            )
        if loss.positions == "masked":
            raise TypeError(
                f"The loss {loss.name!r} counts masked positions, and a "
                f"{kind.replace('_', ' ')} has none."
            )
