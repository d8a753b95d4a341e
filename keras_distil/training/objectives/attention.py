"""Computes losses on attention: pairs of layers, and sums over tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses.base import AttentionLoss
from keras_distil.losses.layers import Attention, Layer
from keras_distil.models import forward
from keras_distil.teachers import StoredTeacher
from keras_distil.training.objectives.hidden_states import describe, find_links

Tensor = Any


class AttentionLosses:
    """The losses on the attention of encoders.

    Args:
        teachers: models, a cached teacher or nothing.
        student: a model.
        losses: losses on attention, or none.

    Attributes:
        losses: the given losses.
        student_layers: the student's layers whose attention they read.

    Raises:
        ValueError: if a loss pairs layers that a model does not have, or
            whose heads do not fit.
    """

    def __init__(
        self,
        teachers: Sequence[keras.Model | StoredTeacher],
        student: keras.Model,
        losses: Sequence[AttentionLoss],
    ) -> None:
        self.losses = list(losses)
        self._pairs = {
            loss.name: [
                (Attention(upper), Attention(lower))
                for _, upper, lower in find_links(loss, teachers, student)
            ]
            for loss in losses
        }
        for loss in losses:
            for of_teacher, of_student in self._pairs[loss.name]:
                _check_heads(loss, teachers, of_teacher, student, of_student)
        self.student_layers = frozenset(
            layer for pairs in self._pairs.values() for _, layer in pairs
        )

    def teacher_layers(self, number: int) -> frozenset[Attention]:
        """Returns the layers of a teacher whose attention the losses read."""
        return frozenset(
            layer
            for loss in self.losses
            for layer, _ in self._pairs[loss.name]
            if loss.teacher == number
        )

    def add_up(
        self,
        scales: Mapping[str, Tensor],
        *,
        padding_mask: Tensor,
        weight_of: Callable[[AttentionLoss], Tensor],
        teacher_states: Sequence[Mapping[Layer | Attention, Tensor]],
        student_states: Mapping[Layer | Attention, Tensor],
        with_gradients: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the scaled total and the sum of each loss.

        Args:
            scales: factor of each loss's sum in the total, by name.
            padding_mask: (batch, length), above 0 at real tokens.
            weight_of: function from a loss to the weight of each token,
                float32, (batch, length).
            teacher_states: each teacher's attention by layer.
            student_states: the student's.
            with_gradients: whether gradients will be asked for.

        Returns:
            A scalar, and the sums as `<name>_sum`.
        """
        total, sums = tf.zeros([]), {}
        for loss in self.losses:
            pairs = self._pairs[loss.name]
            parts = [
                loss.weighted_sum(
                    teacher_states[loss.teacher][of_teacher],
                    student_states[of_student],
                    padding_mask=padding_mask,
                    weight=weight_of(loss),
                    with_gradient=with_gradients,
                )
                for of_teacher, of_student in pairs
            ]
            sums[f"{loss.name}_sum"] = tf.add_n(parts) / len(parts)
            total += scales[loss.name] * sums[f"{loss.name}_sum"]
        return total, sums


def _check_heads(
    loss: AttentionLoss,
    teachers: Sequence[keras.Model | StoredTeacher],
    of_teacher: Attention,
    student: keras.Model,
    of_student: Attention,
) -> None:
    teacher = teachers[loss.teacher]
    try:
        ours = forward.attention_shape(student, of_student.layer)
        if isinstance(teacher, StoredTeacher):
            theirs = teacher.attention_shape
        else:
            theirs = forward.attention_shape(teacher, of_teacher.layer)
        loss.heads_for(theirs, ours)
    except ValueError as error:
        raise ValueError(f"{describe(loss, teachers)}: {error}") from None
