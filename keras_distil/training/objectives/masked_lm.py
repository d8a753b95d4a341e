"""Masked-LM distillation of one batch: forwards, losses, gradients."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss, chunked
from keras_distil.losses.layers import LAST, Attention, Layer
from keras_distil.models import forward
from keras_distil.teachers import CachedOutputs, CachedTeacher
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.base import dense_gradient
from keras_distil.training.objectives.batch_checks import (
    NO_LIMITS,
    Limits,
    limits_of,
    parts_of,
)
from keras_distil.training.objectives.batch_parts import (
    call_inputs,
    masked_lm_parts,
)
from keras_distil.training.objectives.encoder import EncoderObjective
from keras_distil.training.objectives.teachers import (
    Teacher,
    check_each,
    list_teachers,
)
from keras_distil.utils import graph_checks

Tensor = Any


class MaskedLMBatch(NamedTuple):
    """A Keras triple with its parts named.

    Attributes:
        token_ids: int32, (batch, length), masked.
        padding_mask: int32, (batch, length), 1 at real tokens.
        targets: int32, (batch, length), the original tokens.
        mask_weight: float32, (batch, length), 1 at positions chosen for
            masked language modelling, else 0.
        teacher: the outputs of a cached teacher, or None.
        segment_ids: int32, (batch, length), or None.
        checks: assertions that must hold before an update or a log; see
            `graph_checks.after`. A part of a batch has none.
    """

    token_ids: Tensor
    padding_mask: Tensor
    targets: Tensor
    mask_weight: Tensor
    teacher: CachedOutputs | None = None
    segment_ids: Tensor | None = None
    checks: Sequence[Tensor] = ()

    @classmethod
    def from_triple(
        cls, data: Any, limits: Limits = NO_LIMITS
    ) -> "MaskedLMBatch":
        """Checks and names the parts of `(x, y, sample_weight)`.

        Args:
            data: a batch as `fit` takes it, or as KerasHub's preprocessors
                make it, with "mask_positions" in `x`.
            limits: limits of the models.

        Raises:
            ValueError: if the parts do not match each other or the models.
        """
        parts = masked_lm_parts(data, limits)
        return cls(
            **parts.inputs,
            targets=parts.targets,
            mask_weight=parts.weight,
            checks=parts.checks,
        )

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of both encoders."""
        inputs = {
            "token_ids": self.token_ids,
            "padding_mask": self.padding_mask,
        }
        if self.segment_ids is not None:
            inputs["segment_ids"] = self.segment_ids
        return inputs

    @property
    def token_weight(self) -> Tensor:
        """float32, (batch, length), 1 at real tokens."""
        return tf.cast(self.padding_mask, tf.float32)

    def part(self, index: Tensor, parts: int) -> "MaskedLMBatch":
        """Returns one of `parts` consecutive, nearly equal micro-batches."""
        size = tf.shape(self.token_ids)[0]
        start, stop = index * size // parts, (index + 1) * size // parts
        teacher, segments = self.teacher, self.segment_ids
        return MaskedLMBatch(
            token_ids=self.token_ids[start:stop],
            padding_mask=self.padding_mask[start:stop],
            targets=self.targets[start:stop],
            mask_weight=self.mask_weight[start:stop],
            teacher=None if teacher is None else teacher.part(start, stop),
            segment_ids=None if segments is None else segments[start:stop],
        )


class MaskedLMObjective(EncoderObjective):
    """The losses of one batch of masked text and their gradients.

    The losses count the masked positions or all non-padding tokens.

    Args:
        teacher: a KerasHub masked-LM task model, a list of them, a cached
            teacher, or None.
        student: a KerasHub masked-LM task model over the same vocabulary.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Raises:
        TypeError: if a model is not a masked-LM task model, or as
            `EncoderObjective`.
        ValueError: as `EncoderObjective`.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        trains: bool = True,
    ) -> None:
        forward.check_masked_lm(student, "student")
        if not isinstance(teacher, CachedTeacher):
            check_each(
                list_teachers(teacher),
                lambda each: forward.check_masked_lm(each, "teacher"),
            )
        super().__init__(teacher, student, losses, trains=trains)

    def denominator_of(self, loss: DistillationLoss) -> str:
        """Returns the key of the denominator of a loss's mean."""
        if loss.counts == "examples":
            raise TypeError(
                f"The loss {loss.name!r} counts the examples of a task, and "
                "masked language modelling has none. `losses.triple_loss` "
                "makes its losses."
            )
        return loss.counts

    def batch(self, data: Any) -> MaskedLMBatch:
        """Returns the parts of a Keras triple, checked and named.

        Raises:
            ValueError: if they do not match each other or the models.
        """
        if not isinstance(self.teacher, CachedTeacher):
            return MaskedLMBatch.from_triple(data, self._limits)
        x, y, sample_weight = parts_of(data)
        x, outputs = self.teacher.take_outputs(x)
        batch = MaskedLMBatch.from_triple((x, y, sample_weight), self._limits)
        return batch._replace(teacher=outputs)

    def outputs(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """Student logits, float32, (batch, length, vocabulary)."""
        if isinstance(self.teacher, CachedTeacher):
            inputs = self.teacher.without_outputs(inputs)
        inputs, checks = call_inputs(
            inputs, limits_of([self.student]), masked_lm=True
        )
        logits = forward.logits(self.student, inputs, training=training)
        return graph_checks.after(checks, logits)

    @property
    def score_terms(self) -> dict[str, tuple[str, str]]:
        """Accuracy and, with a teacher, agreement."""
        terms = {"mlm_accuracy": ("correct", "masked")}
        if self.teacher is not None:
            terms["teacher_agreement"] = ("agreeing", "masked")
        return terms

    def denominators(self, batch: MaskedLMBatch) -> dict[str, Tensor]:
        """Returns the denominators of this batch's means, float32 scalars."""
        return {
            "masked": tf.reduce_sum(batch.mask_weight),
            "tokens": tf.reduce_sum(batch.token_weight),
        }

    def compute_gradients(
        self,
        batch: MaskedLMBatch,
        denominators: dict[str, Tensor],
        *,
        training: bool,
        observe: shared.Observer | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Returns sums and gradients; passes the masked rows to `observe`."""
        teacher_states = self._teacher_states(batch)
        if batch.teacher is not None:
            teacher_states = [
                {
                    LAST: batch.teacher.states,
                    Attention(LAST): batch.teacher.attention,
                }
            ]
        masked_rows, other_rows = self._rows(batch)
        rows = tf.concat([masked_rows, other_rows], axis=0)
        scales = self._scales(denominators)
        weights = {"tokens": batch.token_weight, "masked": batch.mask_weight}
        with tf.GradientTape() as tape:
            student_states = self._student_states(batch, training=training)
            projection = forward.project(
                self.student, forward.gather_rows(student_states[LAST], rows)
            )
            layers_total, sums = self._add_up_layers(
                scales,
                batch.padding_mask,
                weight_of=lambda loss: weights[loss.counts],
                teacher_states=teacher_states,
                student_states=student_states,
                with_gradients=training,
            )
        vocabulary = self._vocabulary_losses(
            batch,
            scales,
            masked=tf.shape(masked_rows)[0],
            rows=rows,
            projection=projection,
            teacher_states=teacher_states,
            with_gradients=training,
        )
        if observe is not None:
            self._show_masked(observe, batch, masked_rows, projection)
        sums |= self._vocabulary_sums(vocabulary)
        if not training:
            return sums, []
        return sums, self._gradients(tape, projection, vocabulary, layers_total)

    def _vocabulary_sums(
        self, vocabulary: chunked.ChunkedResult
    ) -> dict[str, Tensor]:
        """Returns the sums of scores, statistics and losses on logits."""
        sums = {"correct": vocabulary.correct}
        if self.teacher is not None:
            sums["agreeing"] = vocabulary.agreeing
        observed = [x for x in self._logits_losses if x.statistic is not None]
        for index, loss in enumerate(observed):
            sums[f"{loss.name}_statistic"] = vocabulary.statistics[index]
        for index, loss in enumerate(self._logits_losses):
            sums[f"{loss.name}_sum"] = vocabulary.sums[index]
        return sums

    def _rows(self, batch: MaskedLMBatch) -> tuple[Tensor, Tensor]:
        """Returns the tokens that need logits, the masked ones first."""
        masked = tf.reshape(batch.mask_weight > 0.0, [-1])
        masked_rows = tf.where(masked)[:, 0]
        if all(loss.counts == "masked" for loss in self._logits_losses):
            return masked_rows, masked_rows[:0]
        real = tf.reshape(batch.padding_mask > 0, [-1])
        return masked_rows, tf.where(real & ~masked)[:, 0]

    def _vocabulary_losses(
        self,
        batch: MaskedLMBatch,
        scales: dict[str, Tensor],
        *,
        masked: Tensor,
        rows: Tensor,
        projection: chunked.VocabularyProjection,
        teacher_states: Sequence[Mapping[Layer | Attention, Tensor]],
        with_gradients: bool,
    ) -> chunked.ChunkedResult:
        """Computes the losses on logits; the masked rows come first."""
        teacher: chunked.Teacher
        if batch.teacher is not None and isinstance(
            self.teacher, CachedTeacher
        ):
            teacher = self.teacher.top_logits(
                batch.teacher,
                rows=rows,
                masked=batch.mask_weight,
                losses=self._logits_losses,
            )
        else:
            teacher = [
                forward.project(each, forward.gather_rows(states[LAST], rows))
                for each, states in zip(
                    self.teachers, teacher_states, strict=True
                )
            ]
        targets = tf.gather(tf.reshape(batch.targets, [-1]), rows)
        weights = tf.gather(tf.reshape(batch.mask_weight, [-1]), rows)
        ones = tf.ones_like(weights)
        return chunked.chunked_losses(
            self._logits_losses,
            [scales[loss.name] for loss in self._logits_losses],
            student=projection,
            teacher=teacher,
            token_ids=targets,
            row_weights=[
                weights if loss.counts == "masked" else ones
                for loss in self._logits_losses
            ],
            metric_weight=weights,
            masked_rows=masked,
            chunk_size=self.chunk_size,
            jit_compile=self.jit_compile,
            with_gradients=with_gradients,
        )

    @property
    def metric_outputs(self) -> dict[str, Any]:
        """The inputs of the metrics of `compile`."""
        vocabulary = self.student.backbone.vocabulary_size
        return shared.metric_outputs(
            targets=[(None,)],
            predictions=(None, vocabulary),
            described=(
                "targets (masked positions,) and logits (masked positions, "
                f"{vocabulary})"
            ),
        )

    def _show_masked(
        self,
        observe: shared.Observer,
        batch: MaskedLMBatch,
        masked_rows: Tensor,
        projection: chunked.VocabularyProjection,
    ) -> None:
        """Passes on the masked rows, which come first in `projection`."""
        features = projection.features[: tf.shape(masked_rows)[0]]
        observe(
            tf.gather(tf.reshape(batch.targets, [-1]), masked_rows),
            chunked.logits(projection._replace(features=features)),
            tf.gather(tf.reshape(batch.mask_weight, [-1]), masked_rows),
        )

    def _gradients(
        self,
        tape: tf.GradientTape,
        projection: chunked.VocabularyProjection,
        vocabulary: chunked.ChunkedResult,
        layers_total: Tensor,
    ) -> list[Tensor]:
        """Returns the gradients of the weighted total for `variables`."""
        variables = self.variables
        targets = [projection.features]
        upstream = [vocabulary.feature_gradient]
        if self._hidden_losses.losses or self._attention_losses.losses:
            targets.append(layers_total)
            upstream.append(tf.ones([]))
        table = self.student.masked_lm_head.token_embedding
        kernel = projection.kernel
        if kernel is not None and table.lora_enabled:
            # The decoder also multiplies by the embeddings' low-rank update.
            targets.append(kernel)
            upstream.append(tf.cast(vocabulary.kernel_gradient, kernel.dtype))
        through_encoder = tape.gradient(
            targets, variables, output_gradients=upstream
        )
        # Added without the tape, which would round the decoder's gradient to
        # the compute precision, and make the sum sparse with all of its rows.
        embeddings, bias = forward.decoder_variables(self.student)
        through_decoder = {
            id(embeddings): vocabulary.kernel_gradient,
            id(bias): vocabulary.bias_gradient,
        }
        return [
            dense_gradient(variable, encoder, through_decoder.get(id(variable)))
            for variable, encoder in zip(
                variables, through_encoder, strict=True
            )
        ]
