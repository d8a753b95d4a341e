"""Computes losses on the vectors of texts, and of their first coordinates."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras_hub.models import TextEmbedder

from keras_distil.losses import Matryoshka, VectorLoss, functional
from keras_distil.losses.base import loss_values
from keras_distil.models.embedding_model import vector_width
from keras_distil.teachers import CachedEmbeddingTeacher
from keras_distil.training.objectives.hidden_states import make_projection

Tensor = Any

# Distinct from the seeds of projections of hidden states.
_SEED = 1_000


class _Term(NamedTuple):
    """One loss on whole or cut vectors.

    Attributes:
        log: name of the loss in whose log the value is.
        loss: the loss that is computed.
        dimension: size of the student's cut vectors; None for whole ones.
        share: 1, or one over the number of dimensions.
    """

    log: str
    loss: VectorLoss
    dimension: int | None
    share: float


class VectorLosses:
    """The losses on the vectors of two embedding models.

    Args:
        teacher: an embedding model, a cached one, or None.
        student: an embedding model.
        losses: losses on vectors, or none.

    Attributes:
        projection: the learned map of the student's vectors to the teacher's
            size; None if no loss asks for it.

    Raises:
        ValueError: if the sizes differ and a loss has no projection, or a
            Matryoshka loss has nothing to repeat or nothing to cut.
    """

    def __init__(
        self,
        teacher: TextEmbedder | CachedEmbeddingTeacher | None,
        student: TextEmbedder,
        losses: Sequence[VectorLoss],
    ) -> None:
        cut = [loss for loss in losses if isinstance(loss, Matryoshka)]
        plain = [loss for loss in losses if loss not in cut]
        self.width = vector_width(student)
        self.projection: keras.layers.Layer | None = None
        if teacher is not None:
            self._check_widths(vector_width(teacher), plain)
            if any(loss.projection for loss in plain):
                self.projection = make_projection(
                    "vector_projection",
                    student_width=self.width,
                    teacher_width=vector_width(teacher),
                    seed=_SEED,
                    dtype="float32",
                )
        self._scaled = (
            teacher is not None and teacher.normalize,
            student.normalize,
        )
        self._terms = [_Term(loss.name, loss, None, 1.0) for loss in plain]
        for loss in cut:
            self._check_cuts(loss, plain)
            self._terms += [
                _Term(loss.name, each, size, 1.0 / len(loss.dimensions))
                for size in loss.dimensions
                for each in plain
            ]
        self.has_pairs = any(loss.counts == "pairs" for loss in plain)

    def text_values(
        self, teacher: Tensor, student: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        """Returns the values of the losses on each text's own vectors.

        Args:
            teacher: float32, (texts, dimension).
            student: float32, (texts, dimension).
            weight: float32, (texts,).

        Returns:
            float32, (texts,), by the name of the loss.
        """
        return self._values("examples", teacher, student, weight)

    def pair_values(
        self, teacher: Tensor, student: Tensor
    ) -> dict[str, Tensor]:
        """Returns the values of the losses on all pairs of texts.

        Args:
            teacher: float32, (texts, dimension), of all texts that count.
            student: float32, (texts, dimension), likewise.

        Returns:
            float32, (texts,), by the name of the loss.
        """
        weight = tf.ones(tf.shape(student)[:1])
        return self._values("pairs", teacher, student, weight)

    def names(self, counts: str) -> list[str]:
        """Returns the names of the losses that have a part of this kind."""
        return list(dict.fromkeys(term.log for term in self._of(counts)))

    def _of(self, counts: str) -> Iterator[_Term]:
        return (term for term in self._terms if term.loss.counts == counts)

    def _values(
        self, counts: str, teacher: Tensor, student: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {}
        for term in self._of(counts):
            theirs, ours = self._vectors(term, teacher, student)
            values = loss_values(
                term.loss, weight, teacher_vectors=theirs, student_vectors=ours
            )
            if term.dimension is not None:
                factor = tf.convert_to_tensor(term.loss.weight) * term.share
                values *= factor
            parts.setdefault(term.log, []).append(values)
        return {name: tf.add_n(values) for name, values in parts.items()}

    def _vectors(
        self, term: _Term, teacher: Tensor, student: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the vectors that a loss compares."""
        size = term.dimension
        if size is not None:
            student = self._cut(student, size, scaled=self._scaled[1])
        if term.loss.counts == "pairs":
            return teacher, student
        if term.loss.projection and self.projection is not None:
            if size is not None:
                student = tf.pad(student, [[0, 0], [0, self.width - size]])
            return teacher, self.projection(student)
        if size is not None:
            teacher = self._cut(teacher, size, scaled=self._scaled[0])
        return teacher, student

    def _cut(self, vectors: Tensor, size: int, *, scaled: bool) -> Tensor:
        vectors = vectors[:, :size]
        return functional.unit(vectors) if scaled else vectors

    def _check_widths(
        self, teacher_width: int, losses: Sequence[VectorLoss]
    ) -> None:
        if teacher_width == self.width:
            return
        for loss in losses:
            if loss.counts == "examples" and not loss.projection:
                raise ValueError(
                    f"The loss {loss.name!r} compares vectors of one size: "
                    f"give it projection='learned', make the student with "
                    f"dimension={teacher_width}, or reduce the teacher by "
                    "`models.with_principal_components`. Received: a teacher "
                    f"of {teacher_width}, a student of {self.width}."
                )

    def _check_cuts(
        self, loss: Matryoshka, others: Sequence[VectorLoss]
    ) -> None:
        if not others:
            raise ValueError(
                f"The loss {loss.name!r} repeats other losses on vectors, and "
                "there are none. Add one, such as VectorCosineDistance."
            )
        if max(loss.dimensions) >= self.width:
            raise ValueError(
                f"The dimensions of the loss {loss.name!r} must be below the "
                f"size of the student's vectors, {self.width}. Received: "
                f"dimensions={list(loss.dimensions)}."
            )
