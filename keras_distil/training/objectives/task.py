"""Distillation of one batch of a task: forwards, losses, gradients."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss, functional
from keras_distil.losses.binary import joint_label_logits
from keras_distil.losses.layers import LAST, Attention, Layer
from keras_distil.losses.mixtures import SeveralLogits, one_or_several
from keras_distil.models import forward
from keras_distil.teachers import CachedTaskOutputs, CachedTaskTeacher
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.base import dense_gradients
from keras_distil.training.objectives.batch_checks import (
    IGNORED,
    limits_of,
    parts_of,
)
from keras_distil.training.objectives.batch_parts import (
    Parts,
    call_inputs,
    task_parts,
)
from keras_distil.training.objectives.encoder import EncoderObjective
from keras_distil.training.objectives.teachers import Teacher, list_teachers
from keras_distil.utils import graph_checks

Tensor = Any

# The outputs of a span.
_SPAN = ("start", "end")


class TaskBatch(NamedTuple):
    """A Keras triple with its parts named.

    Attributes:
        inputs: "token_ids", "padding_mask" and perhaps "segment_ids", int32,
            (batch, length).
        targets: the labels. For a classification int32, (batch,), or
            probabilities, float32, (batch, classes); for several labels
            float32, (batch, labels); for a regression
            float32, (batch,); for a token classification int32, (batch,
            length); for a span int32, (batch, 2), start and end.
        weight: float32, (batch,), or (batch, length) for a token
            classification; 0 excludes an example or a token.
        checks: assertions that must hold before an update or a log; see
            `graph_checks.after`. A part of a batch has none.
        ignored: bool, the shape of `weight`, True where there is no label;
            None if the task has no such examples.
        labelled: float32, the shape of `weight`, the weight of the labels: 0
            for an example that only the teacher labels; None if it is equal
            to `weight`.
        cached: the outputs of the cached teachers, in their order.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    weight: Tensor
    checks: Sequence[Tensor] = ()
    ignored: Tensor | None = None
    labelled: Tensor | None = None
    cached: tuple[CachedTaskOutputs, ...] = ()

    @property
    def label_weight(self) -> Tensor:
        """float32, the weight of the labels, in the shape of `weight`."""
        return self.weight if self.labelled is None else self.labelled

    @property
    def real(self) -> Tensor:
        """float32, (batch, length), 1 at real tokens."""
        return tf.cast(self.inputs["padding_mask"], tf.float32)

    @property
    def token_weight(self) -> Tensor:
        """float32, (batch, length), token weights of losses on hidden states.

        A token has the weight of its example. If tokens have their own
        weights, all tokens of an example count if any has a positive weight.
        """
        weight = self.weight
        if weight.shape.rank == 2:
            labelled = tf.reduce_any(weight > 0.0, axis=1)
            weight = tf.cast(labelled, tf.float32)
        return weight[:, tf.newaxis] * self.real

    def part(self, index: Tensor, parts: int) -> "TaskBatch":
        """Returns one of `parts` consecutive, nearly equal micro-batches."""
        size = tf.shape(self.targets)[0]
        start, stop = index * size // parts, (index + 1) * size // parts
        return tf.nest.map_structure(
            lambda value: None if value is None else value[start:stop],
            self._replace(checks=()),
        )


class _Rows(NamedTuple):
    """All decisions that a model makes in a batch, one per row.

    Attributes:
        targets: (rows,), the correct choices, or (rows, choices), the
            probability of each choice.
        weight: float32, (rows,).
        labelled: float32, (rows,), the weight of `targets`.
        logits: function from a model's outputs to (rows, choices).
    """

    targets: Tensor
    weight: Tensor
    labelled: Tensor
    logits: Any


class TaskObjective(EncoderObjective):
    """The losses of one batch of a task and their gradients.

    Losses on logits divide by the weight of the decisions: texts, tokens with
    a label, or two per span; those that read labels divide by the weight of
    the labels. Losses on hidden states divide by the weight of the tokens. An
    example of weight 0 counts in none of them.

    Args:
        teacher: a model for the same task, a cached teacher, a list of them,
            or None.
        student: a model of `models.task_model`.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Raises:
        TypeError: if a model is for another task, or a loss for another kind
            of output, or as `EncoderObjective`.
        ValueError: if the classes differ, or as `EncoderObjective`.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        trains: bool = True,
    ) -> None:
        self.kind = shared.check_kinds(list_teachers(teacher), student)
        super().__init__(teacher, student, losses, trains=trains)
        shared.check_outputs(self.kind, self._logits_losses)

    def denominator_of(self, loss: DistillationLoss) -> str:
        """Returns the key of the denominator of a loss's mean."""
        if loss.counts == "masked":
            raise TypeError(
                f"The loss {loss.name!r} counts masked positions, and a "
                f"{self.kind.replace('_', ' ')} has none."
            )
        if loss.is_on_logits:
            return "labelled" if loss.reads_labels else "examples"
        if loss.counts == "examples":
            raise TypeError(
                f"The loss {loss.name!r} on hidden states must count tokens. "
                "Received: counts='examples'."
            )
        return "weighted_tokens"

    @property
    def uses_pooler(self) -> bool:
        """Whether BERT's pooler is used; outputs per token do not need it."""
        return self.kind not in ("span", "token_classification")

    def _trains_outputs(self, student: keras.Model) -> bool:
        return bool(shared.trained_after_encoder(student))

    @property
    def score_terms(self) -> dict[str, tuple[str, str]]:
        """Accuracy and, with a teacher, agreement; errors for a regression."""
        if self.kind == "regression":
            return {"mean_absolute_error": ("error", "labelled")}
        terms = {"accuracy": ("correct", "labelled")}
        if self.teacher is not None:
            terms["teacher_agreement"] = ("agreeing", "examples")
        return terms

    @property
    def _cached_teachers(self) -> list[CachedTaskTeacher]:
        return [x for x in self.teachers if isinstance(x, CachedTaskTeacher)]

    def batch(self, data: Any) -> TaskBatch:
        """Returns the parts of a Keras triple, checked and named.

        Raises:
            ValueError: if they do not match each other or the models.
        """
        x, y, sample_weight = parts_of(data)
        cached = self._cached_teachers
        outputs = tuple(each.take_outputs(x)[1] for each in cached)
        if cached:
            x = cached[0].without_outputs(x)
        parts = task_parts(
            (x, y, sample_weight),
            self.kind,
            self._limits,
            classes=getattr(self.student, "num_classes", 0),
            class_position=getattr(self.student.backbone, "cls_token_index", 0),
        )
        ignored = _ignored(self.kind, y, parts)
        return TaskBatch(**parts._asdict(), ignored=ignored, cached=outputs)

    def outputs(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """Returns the student's outputs, float32; see `forward.encode_task`."""
        for teacher in self._cached_teachers:
            inputs = teacher.without_outputs(inputs)
        inputs, checks = call_inputs(
            inputs, limits_of([self.student]), masked_lm=False
        )
        _, outputs = forward.encode_task(
            self.student, inputs, training=training
        )
        return graph_checks.after(checks, outputs)

    def denominators(self, batch: TaskBatch) -> dict[str, Tensor]:
        """Returns the denominators of this batch's means, float32 scalars.

        "tokens" counts all tokens that were read, whatever their weight.
        """
        rows = self._rows(batch)
        return {
            "examples": tf.reduce_sum(rows.weight),
            "labelled": tf.reduce_sum(rows.labelled),
            "weighted_tokens": tf.reduce_sum(batch.token_weight),
            "tokens": tf.reduce_sum(batch.real),
        }

    def compute_gradients(
        self,
        batch: TaskBatch,
        denominators: dict[str, Tensor],
        *,
        training: bool,
        observe: shared.Observer | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Returns sums and gradients; `observe` gets labels and outputs."""
        rows = self._rows(batch)
        scales = self._scales(denominators)
        teacher_states, outputs = self._read_teachers(batch)
        teacher_logits = one_or_several([rows.logits(x) for x in outputs])
        with tf.GradientTape() as tape:
            student_states = self._student_states(batch, training=training)
            student_logits = rows.logits(
                forward.task_outputs(
                    self.student, student_states[LAST], training=training
                )
            )
            total, sums = self._add_up_layers(
                scales,
                batch.inputs["padding_mask"],
                weight_of=lambda loss: batch.token_weight,
                teacher_states=teacher_states,
                student_states=student_states,
                with_gradients=training,
            )
            added = self._logits_sums(
                rows.weight,
                labelled=rows.labelled,
                targets=rows.targets,
                teacher_logits=teacher_logits,
                student_logits=student_logits,
            )
            for loss in self._logits_losses:
                total += scales[loss.name] * added[f"{loss.name}_sum"]
        sums |= added
        if observe is not None:
            self._show(observe, batch, rows, student_logits)
        sums |= self._metrics(rows, teacher_logits, student_logits)
        if not training:
            return sums, []
        variables = self.variables
        gradients = tape.gradient(total, variables)
        return sums, dense_gradients(variables, gradients)

    def _read_teachers(
        self, batch: TaskBatch
    ) -> tuple[list[dict[Layer | Attention, Tensor]], list[Tensor]]:
        """Returns the states and the outputs of each teacher."""
        live, cached = iter(self._teacher_states(batch)), iter(batch.cached)
        all_states, outputs = [], []
        for teacher in self.teachers:
            if isinstance(teacher, CachedTaskTeacher):
                found = next(cached)
                states = teacher.by_layer(found)
                outputs.append(found.outputs)
            else:
                states = next(live)
                outputs.append(
                    forward.task_outputs(teacher, states[LAST], training=False)
                )
            all_states.append(states)
        return all_states, outputs

    def _rows(self, batch: TaskBatch) -> _Rows:
        if self.kind == "token_classification":
            return _Rows(
                tf.reshape(batch.targets, [-1]),
                tf.reshape(batch.weight, [-1]),
                tf.reshape(batch.label_weight, [-1]),
                lambda outputs: tf.reshape(outputs, [-1, outputs.shape[-1]]),
            )
        if self.kind == "span":
            real = batch.inputs["padding_mask"] > 0

            def logits(outputs: Tensor) -> Tensor:
                masked = tf.where(real[:, :, None], outputs, functional.NEVER)
                return tf.concat([masked[:, :, 0], masked[:, :, 1]], axis=0)

            return _Rows(
                tf.concat([batch.targets[:, 0], batch.targets[:, 1]], axis=0),
                tf.concat([batch.weight, batch.weight], axis=0),
                tf.concat([batch.label_weight, batch.label_weight], axis=0),
                logits,
            )
        return _Rows(
            batch.targets,
            batch.weight,
            batch.label_weight,
            lambda outputs: outputs,
        )

    @property
    def metric_outputs(self) -> dict[str, Any]:
        """The inputs of the metrics of `compile`."""
        if self.kind == "span":
            return shared.metric_outputs(
                targets=[(None,)],
                predictions=(None, None),
                names=_SPAN,
                described=(
                    "of start and end each, positions (batch,) and logits "
                    "(batch, length)"
                ),
            )
        if self.kind == "regression":
            return shared.metric_outputs(
                targets=[(None, 1)],
                predictions=(None, 1),
                classes=False,
                described="labels (batch, 1) and predictions (batch, 1)",
            )
        classes = self.student.num_classes
        if self.kind == "multi_label":
            return shared.metric_outputs(
                targets=[(None, classes)],
                predictions=(None, classes),
                classes=False,
                described=(
                    f"labels and logits, both (batch, {classes}); give a "
                    "metric a threshold of 0"
                ),
            )
        one_hot = self.kind == "classification"
        rows = "batch" if one_hot else "tokens"
        return shared.metric_outputs(
            targets=[(None,), *([(None, classes)] if one_hot else [])],
            predictions=(None, classes),
            described=f"labels ({rows},) and logits ({rows}, {classes})",
        )

    def _show(
        self,
        observe: shared.Observer,
        batch: TaskBatch,
        rows: _Rows,
        student_logits: Tensor,
    ) -> None:
        """Passes the outputs to an observer, as Keras's trainer shapes them."""
        targets, weight = rows.targets, rows.labelled
        outputs: Any = student_logits
        if self.kind == "regression":
            targets = targets[:, None]
        elif self.kind == "span":
            targets = dict(zip(_SPAN, tf.split(targets, 2), strict=True))
            outputs = dict(zip(_SPAN, tf.split(outputs, 2), strict=True))
            weight = batch.label_weight
        if batch.ignored is not None:
            seen = ~batch.ignored
            if self.kind == "token_classification":
                # The encoder pass does not reproduce the outputs at padding.
                seen &= batch.inputs["padding_mask"] > 0
            seen = tf.reshape(seen, [-1])
            targets, outputs, weight = tf.nest.map_structure(
                lambda values: tf.boolean_mask(values, seen),
                (targets, outputs, weight),
            )
        observe(targets, outputs, weight)

    def _metrics(
        self,
        rows: _Rows,
        teacher_logits: Tensor | SeveralLogits | None,
        student_logits: Tensor,
    ) -> dict[str, Tensor]:
        """Returns the sums of the scores in `score_terms`."""
        if self.kind == "regression":
            error = tf.abs(student_logits[:, 0] - rows.targets)
            return {"error": functional.weighted_sum(error, rows.labelled)}
        if self.kind == "multi_label":
            return _label_choices(rows, teacher_logits, student_logits)
        return self._choices(
            rows.weight,
            labelled=rows.labelled,
            targets=rows.targets,
            teacher_logits=teacher_logits,
            student_logits=student_logits,
        )


def _label_choices(
    rows: _Rows,
    teacher_logits: Tensor | SeveralLogits | None,
    student_logits: Tensor,
) -> dict[str, Tensor]:
    """Returns weighted shares of labels that are right, or the teachers'."""

    def share(others: Tensor, weight: Tensor) -> Tensor:
        equal = tf.cast((student_logits > 0.0) == others, tf.float32)
        return functional.weighted_sum(tf.reduce_mean(equal, axis=1), weight)

    sums = {"correct": share(rows.targets > 0.5, rows.labelled)}
    if teacher_logits is not None:
        chosen = joint_label_logits(teacher_logits) > 0.0
        sums["agreeing"] = share(chosen, rows.weight)
    return sums


def _ignored(kind: str, y: Any, parts: Parts) -> Tensor | None:
    """Marks labels of -100 or without weight, in the shape of the weights."""
    unlabelled = None
    if parts.labelled is not None:
        unlabelled = (parts.labelled == 0.0) & (parts.weight > 0.0)
    labels = [y[name] for name in _SPAN] if kind == "span" else [y]
    labels = [tf.convert_to_tensor(part) for part in labels]
    one_hot = labels[0].shape.rank == 2 and labels[0].shape[-1] != 1
    if kind in ("regression", "multi_label") or (
        kind == "classification" and one_hot
    ):
        return unlabelled
    shape = tf.shape(parts.weight)
    found = [tf.reshape(x == IGNORED, shape) for x in labels]
    if unlabelled is not None:
        found.append(unlabelled)
    return tf.reduce_any(tf.stack(found), axis=0)
