"""Distillation of one batch of texts by sentence embedders.

A loss on pairs depends on all texts of the global batch. Its gradient for
each text's vector is computed once, from the vectors of all replicas; through
the encoder it then goes part by part, like any other sum over texts. With
micro-batches the vectors are computed twice, first without and then with a
gradient, by the same dropout (Gao et al. 2021, arXiv:2101.06983).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss, VectorLoss, functional
from keras_distil.losses.layers import LAST
from keras_distil.models import forward
from keras_distil.models.embedding_model import (
    check_embedder,
    vector_width,
    vectors_of,
)
from keras_distil.teachers import CachedEmbeddingTeacher, StoredTeacher
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.base import dense_gradient
from keras_distil.training.objectives.batch_checks import limits_of
from keras_distil.training.objectives.batch_parts import (
    call_inputs,
    embedding_parts,
    require_tokens,
)
from keras_distil.training.objectives.encoder import EncoderObjective
from keras_distil.training.objectives.vector_losses import VectorLosses
from keras_distil.training.replicas import gather_rows
from keras_distil.utils import graph_checks
from keras_distil.utils.graph_checks import BatchError

Tensor = Any


class Pairs(NamedTuple):
    """What losses on pairs say of the texts of a batch, or of a part.

    Attributes:
        gradient: float32, (batch, dimension), the gradient of the scaled
            total for the student's vectors.
        values: float32, (batch,), by the name of the loss.
    """

    gradient: Tensor
    values: dict[str, Tensor]


class EmbeddingBatch(NamedTuple):
    """A batch of texts with its parts named.

    Attributes:
        inputs: "token_ids", "padding_mask" and perhaps "segment_ids", int32,
            (batch, length).
        weight: float32, (batch,); 0 excludes a text.
        teacher_vectors: float32, (batch, dimension), if they were given
            or are already computed; else None.
        checks: see `graph_checks.after`. A part of a batch has none.
        pairs: what losses on pairs say, for micro-batches; else None.
    """

    inputs: dict[str, Tensor]
    weight: Tensor
    teacher_vectors: Tensor | None = None
    checks: Sequence[Tensor] = ()
    pairs: Pairs | None = None

    @property
    def real(self) -> Tensor:
        """float32, (batch, length), 1 at real tokens."""
        return tf.cast(self.inputs["padding_mask"], tf.float32)

    @property
    def token_weight(self) -> Tensor:
        """float32, (batch, length): a token has the weight of its text."""
        return self.weight[:, tf.newaxis] * self.real

    def part(self, index: Tensor, parts: int) -> "EmbeddingBatch":
        """Returns one of `parts` consecutive, nearly equal micro-batches."""
        size = tf.shape(self.weight)[0]
        start, stop = index * size // parts, (index + 1) * size // parts
        whole = self._replace(checks=())
        return tf.nest.map_structure(
            lambda value: None if value is None else value[start:stop], whole
        )


class EmbeddingObjective(EncoderObjective):
    """The losses of one batch of texts and their gradients.

    Losses on vectors divide by the weight of the texts, losses on hidden
    states and attention by the weight of the tokens. A text of weight 0
    counts nowhere, and is in no pair.

    Args:
        teacher: an embedding model, a cached one, or None.
        student: an embedding model over the same vocabulary; over another
            one if all losses are on vectors, and batches hold the teacher's.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Raises:
        TypeError: if a model is not an embedding model, or a loss reads
            logits, or as `EncoderObjective`.
        ValueError: if the sizes of vectors do not fit, or as
            `EncoderObjective`.
    """

    has_vectors = True
    kind = "sentence embedding"

    def __init__(
        self,
        teacher: keras.Model | CachedEmbeddingTeacher | None,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        trains: bool = True,
    ) -> None:
        check_embedder(student, "student")
        if teacher is not None and not isinstance(teacher, StoredTeacher):
            check_embedder(teacher, "teacher")
        super().__init__(teacher, student, losses, trains=trains)
        if not self._reads_alike:
            self._limits = limits_of([student])
        self._vector_losses = VectorLosses(
            teacher, student, [x for x in losses if isinstance(x, VectorLoss)]
        )

    def _check_vocabularies(
        self,
        teacher: keras.Model | CachedEmbeddingTeacher | None,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
    ) -> None:
        """Lets losses on vectors alone have models of two vocabularies."""
        sizes = {
            getattr(x, "backbone", x).vocabulary_size
            for x in (teacher, student)
            if x is not None
        }
        self._reads_alike = len(sizes) == 1
        if not all(isinstance(loss, VectorLoss) for loss in losses):
            super()._check_vocabularies(teacher, student, losses)

    def denominator_of(self, loss: DistillationLoss) -> str:
        """Returns the key of the denominator of a loss's mean."""
        if isinstance(loss, VectorLoss):
            return "examples"
        if loss.counts != "tokens":
            raise TypeError(
                f"The loss {loss.name!r} on hidden states must count tokens. "
                f"Received: counts={loss.counts!r}."
            )
        return "weighted_tokens"

    @property
    def layer_projections(self) -> list[keras.layers.Layer]:
        """The projections besides that of the pair of last layers."""
        projection = self._vector_losses.projection
        found = super().layer_projections
        return found if projection is None else [*found, projection]

    @property
    def score_terms(self) -> dict[str, tuple[str, str]]:
        """No logs besides the losses."""
        return {}

    @property
    def metric_outputs(self) -> dict[str, Any]:
        """The inputs of the metrics of `compile`: both models' vectors."""
        width = vector_width(self.student)
        theirs = width if self.teacher is None else vector_width(self.teacher)
        return shared.metric_outputs(
            targets=[(None, theirs)],
            predictions=(None, width),
            classes=False,
            described=(
                f"the teacher's vectors (texts, {theirs}) and the student's "
                f"(texts, {width})"
            ),
        )

    def batch(self, data: Any) -> EmbeddingBatch:
        """Returns the parts of a batch, checked and named.

        Raises:
            ValueError: if they do not match each other or the models.
        """
        width = None if self.teacher is None else vector_width(self.teacher)
        parts = embedding_parts(
            data, self._limits, width=width, pooling=self._poolings()
        )
        if parts.targets is None and isinstance(self.teacher, StoredTeacher):
            raise BatchError(
                f"With {self.teacher.name}, batches must be those of its "
                "`dataset`, which have the teacher's vectors as `y`. Received: "
                "y=None."
            )
        if parts.targets is None and not self._reads_alike:
            raise BatchError(
                "Teacher and student have vocabularies of different sizes, so "
                "a batch must hold the teacher's vectors as `y`, (batch, "
                f"{width}). Received: y=None."
            )
        return EmbeddingBatch(
            parts.inputs, parts.weight, parts.targets, parts.checks
        )

    def outputs(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """Returns the student's vectors, float32."""
        inputs, checks = call_inputs(
            inputs, limits_of([self.student]), masked_lm=False
        )
        checks += require_tokens(
            inputs["padding_mask"], None, {self.student.pooling_mode}
        )
        vectors = _embed(self.student, inputs, training=training)
        return graph_checks.after(checks, vectors)

    def denominators(self, batch: EmbeddingBatch) -> dict[str, Tensor]:
        """Returns the denominators of this batch's means, float32 scalars.

        "tokens" counts all tokens that were read, whatever their weight.
        """
        return {
            "examples": tf.reduce_sum(batch.weight),
            "weighted_tokens": tf.reduce_sum(batch.token_weight),
            "tokens": tf.reduce_sum(batch.real),
        }

    def compute_gradients(
        self,
        batch: EmbeddingBatch,
        denominators: dict[str, Tensor],
        *,
        training: bool,
        observe: shared.Observer | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Returns sums and gradients; `observe` gets both models' vectors."""
        scales = self._scales(denominators)
        teacher_states = self._states_of_teacher(batch)
        theirs = self._teacher_vectors(batch, teacher_states)
        with tf.GradientTape() as tape:
            states = self._student_states(batch, training=training)
            ours = vectors_of(
                self.student, states[LAST], batch.inputs["padding_mask"]
            )
            total, sums = self._add_up_layers(
                scales,
                batch.inputs["padding_mask"],
                weight_of=lambda loss: batch.token_weight,
                teacher_states=teacher_states,
                student_states=states,
                with_gradients=training,
            )
            values = self._vector_losses.text_values(theirs, ours, batch.weight)
            for name, each in values.items():
                total += scales[name] * functional.weighted_sum(
                    each, batch.weight
                )
            with tape.stop_recording():
                pairs = batch.pairs or self._compare_pairs(
                    theirs, ours, batch.weight, scales
                )
            total += _times(pairs.gradient, ours)
        for each in (values, pairs.values):
            for name, value in each.items():
                key = f"{name}_sum"
                added = functional.weighted_sum(value, batch.weight)
                sums[key] = sums[key] + added if key in sums else added
        if observe is not None:
            observe(theirs, ours, batch.weight)
        if not training:
            return sums, []
        variables = self.variables
        gradients = tape.gradient(total, variables)
        return sums, list(map(dense_gradient, variables, gradients))

    # === Losses on pairs ===

    def before_parts(
        self, batch: EmbeddingBatch, denominators: dict[str, Tensor], parts: int
    ) -> EmbeddingBatch:
        """Computes all vectors and what losses on pairs say of each."""
        if not self._vector_losses.has_pairs:
            return batch
        random = [
            v
            for v in self.student.non_trainable_variables
            if "seed_generator" in v.path
        ]
        kept = [tf.identity(v.value) for v in random]
        theirs, ours = self._all_vectors(batch, parts)
        with tf.control_dependencies([ours]):
            # The parts then drop out what they dropped out here.
            for variable, value in zip(random, kept, strict=True):
                variable.assign(value)
        pairs = self._compare_pairs(
            theirs, ours, batch.weight, self._scales(denominators)
        )
        return batch._replace(teacher_vectors=theirs, pairs=pairs)

    def _all_vectors(
        self, batch: EmbeddingBatch, parts: int
    ) -> tuple[Tensor, Tensor]:
        """Returns both models' vectors, computed part by part."""

        def body(index: Tensor, rows: Any) -> tuple[Tensor, Any]:
            part = batch.part(index, parts)
            found = (
                self._teacher_vectors(part, None),
                _embed(self.student, part.inputs, training=True),
            )
            return index + 1, [
                array.write(index, vectors)
                for array, vectors in zip(rows, found, strict=True)
            ]

        widths = map(vector_width, (self.teacher, self.student))
        arrays = [
            tf.TensorArray(
                tf.float32,
                parts,
                infer_shape=False,
                element_shape=[None, width],
            )
            for width in widths
        ]
        _, rows = tf.while_loop(
            lambda index, _: index < parts,
            body,
            (tf.constant(0), arrays),
            parallel_iterations=1,
        )
        theirs, ours = (array.concat() for array in rows)
        return theirs, ours

    def _compare_pairs(
        self,
        teacher: Tensor | None,
        student: Tensor,
        weight: Tensor,
        scales: dict[str, Tensor],
    ) -> Pairs:
        """Compares the texts of all replicas; returns what is of this one."""
        if not self._vector_losses.has_pairs:
            return Pairs(tf.zeros_like(student), {})
        rows, first = gather_rows([teacher, student, weight])
        counted = tf.cast(tf.where(rows[2] > 0.0)[:, 0], tf.int32)
        theirs, ours, weights = (tf.gather(x, counted) for x in rows)
        with tf.GradientTape() as tape:
            tape.watch(ours)
            values = self._vector_losses.pair_values(theirs, ours)
            total = tf.add_n(
                [
                    scales[name] * tf.reduce_sum(weights * each)
                    for name, each in values.items()
                ]
            )
        gradient = tape.gradient(total, ours)

        def own(counted_rows: Tensor) -> Tensor:
            """Returns this replica's rows, 0 for those that do not count."""
            shape = tf.concat(
                [tf.shape(rows[2]), tf.shape(counted_rows)[1:]], axis=0
            )
            every = tf.scatter_nd(counted[:, None], counted_rows, shape)
            return every[first : first + tf.shape(weight)[0]]

        return Pairs(
            tf.ensure_shape(own(gradient), student.shape),
            {name: own(each) for name, each in values.items()},
        )

    # === The forward passes ===

    def _states_of_teacher(
        self, batch: EmbeddingBatch
    ) -> list[dict[Any, Tensor]]:
        """Returns the teacher's states, unless nothing reads them."""
        if batch.teacher_vectors is not None and not self._teacher_layers(0):
            return []
        return self._teacher_states(batch)

    def _teacher_vectors(
        self, batch: EmbeddingBatch, states: list[dict[Any, Tensor]] | None
    ) -> Tensor | None:
        if batch.teacher_vectors is not None or self.teacher is None:
            return batch.teacher_vectors
        if states is None:
            return _embed(self.teacher, batch.inputs, training=False)
        return vectors_of(
            self.teacher, states[0][LAST], batch.inputs["padding_mask"]
        )

    def _poolings(self) -> set[str]:
        models = (self.teacher, self.student)
        return {x.pooling_mode for x in models if isinstance(x, keras.Model)}


def _embed(
    model: keras.Model, inputs: dict[str, Tensor], *, training: bool
) -> Tensor:
    """Returns an embedding model's vectors, float32, (batch, dimension)."""
    states = forward.encode(model, inputs, training=training)
    return vectors_of(model, states, inputs["padding_mask"])


def _times(gradient: Tensor, vectors: Tensor) -> Tensor:
    """Returns a scalar whose gradient for the vectors is the given one."""
    # A text that does not count may hold anything: 0 * NaN is NaN.
    counts = tf.reduce_any(gradient != 0.0, axis=1, keepdims=True)
    return tf.reduce_sum(gradient * tf.where(counts, vectors, 0.0))
