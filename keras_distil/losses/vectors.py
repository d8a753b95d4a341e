"""The base class of losses on the vectors of texts."""

from typing import Any

import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.base import VECTORS, DistillationLoss

Tensor = Any

PROJECTIONS = ("learned",)


class VectorLoss(DistillationLoss):
    """A loss on the vectors of two embedding models.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.
        projection: None to compare the vectors as they are, which must have
            one size; "learned" to compare the teacher's with a trained linear
            map of the student's, which the Distiller keeps and which losses
            share.

    Attributes:
        reads: "teacher_vectors" and "student_vectors", (texts, dimension).
        counts: "examples" if the value of a text depends on its own vectors
            alone; "pairs" if it depends on those of the other texts, too:
            `token_values` then gets all texts of the global batch, over
            replicas and micro-batches, without those of weight 0. The two
            models' dimensions may differ then.

    Raises:
        ValueError: if `projection` is neither.
    """

    reads = VECTORS
    counts = "examples"

    def __init__(
        self, *, weight: float, name: str, projection: str | None = None
    ) -> None:
        super().__init__(weight=weight, name=name)
        if projection is not None and projection not in PROJECTIONS:
            raise ValueError(
                f"`projection` must be None or one of {list(PROJECTIONS)}. "
                f"Received: projection={projection!r:.60}."
            )
        self.projection = projection

    def call(
        self,
        teacher_vectors: Tensor,
        student_vectors: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over the weighted texts."""
        teacher, student = map(
            tf.convert_to_tensor, (teacher_vectors, student_vectors)
        )
        if sample_weight is not None:
            sample_weight = tf.convert_to_tensor(sample_weight)
            # Texts of weight 0 must not be in pairs.
            counted = sample_weight > 0.0
            teacher, student, sample_weight = (
                tf.boolean_mask(values, counted)
                for values in (teacher, student, sample_weight)
            )
        values = self.token_values(
            teacher_vectors=teacher, student_vectors=student
        )
        return functional.weighted_mean(values, sample_weight)
