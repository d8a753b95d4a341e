"""Losses on hidden states: projections to the teacher's width, and sums."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss, functional
from keras_distil.losses.base import loss_values
from keras_distil.teachers import CachedTeacher

Tensor = Any


class HiddenStateLosses:
    """The losses on hidden states of two models, and what they need.

    Args:
        teacher: a model, a cached teacher or None.
        student: a model.
        losses: losses on hidden states, or none.

    Attributes:
        projection: a learned map to the teacher's width, or None.
    """

    def __init__(
        self,
        teacher: keras.Model | CachedTeacher | None,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
    ) -> None:
        self.losses = list(losses)
        self.projection = None
        if losses and teacher is not None:
            self.projection = _make_projection(teacher, student)

    def add_up(
        self,
        scales: dict[str, Tensor],
        *,
        weights: dict[str, Tensor],
        teacher_states: Tensor | None,
        student_states: Tensor,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scaled total, and the sum of each loss.

        Args:
            scales: factor of each loss's sum in the total, by name.
            weights: float, (batch, length), of each token, by what a loss
                counts.
            teacher_states: (batch, length, width of the teacher); None
                without losses.
            student_states: (batch, length, width of the student).

        Returns:
            A scalar, and the sums by `<name>_sum`.
        """
        total, sums = tf.zeros([]), {}
        if self.projection is not None:
            student_states = self.projection(student_states)
        for loss in self.losses:
            weight = weights[loss.counts]
            values = loss_values(
                loss,
                weight,
                teacher_hidden_states=teacher_states,
                student_hidden_states=student_states,
            )
            added = functional.weighted_sum(values, weight)
            sums[f"{loss.name}_sum"] = added
            total += scales[loss.name] * added
        return total, sums


def _make_projection(
    teacher: keras.Model | CachedTeacher, student: keras.Model
) -> keras.layers.Layer | None:
    """A learned map to the teacher's width, where the widths differ."""
    teacher_width = (
        teacher if isinstance(teacher, CachedTeacher) else teacher.backbone
    ).hidden_dim
    student_width = student.backbone.hidden_dim
    if teacher_width == student_width:
        return None
    projection = keras.layers.Dense(
        teacher_width,
        kernel_initializer=keras.initializers.GlorotUniform(seed=0),
        dtype=student.backbone.dtype_policy,
        name="hidden_state_projection",
    )
    projection.build((None, None, student_width))
    return projection
