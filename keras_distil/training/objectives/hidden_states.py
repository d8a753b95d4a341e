"""Computes losses on hidden states: pairs of layers, projections and sums."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.base import HiddenStateLoss, loss_values
from keras_distil.losses.layers import LAST_PAIR, Layer, Pair, find_pairs
from keras_distil.models import forward
from keras_distil.teachers import CachedTeacher

Tensor = Any


class HiddenStateLosses:
    """The losses on hidden states of two models, with their projections.

    Args:
        teacher: a model, a cached teacher or None.
        student: a model.
        losses: losses on hidden states, or none.

    Attributes:
        losses: the given losses.
        teacher_layers: the teacher's layers whose states the losses read.
        student_layers: the student's layers whose states the losses read.
        projections: learned projections to the teacher's width, by pair of
            layers; none if the widths are equal.

    Raises:
        ValueError: if a loss pairs layers that a model does not have.
    """

    def __init__(
        self,
        teacher: keras.Model | CachedTeacher | None,
        student: keras.Model,
        losses: Sequence[HiddenStateLoss],
    ) -> None:
        self.losses = list(losses)
        self._pairs = {
            loss.name: _find_pairs(loss, teacher, student) for loss in losses
        }
        pairs = list(dict.fromkeys(x for y in self._pairs.values() for x in y))
        self.teacher_layers = frozenset(layer for layer, _ in pairs)
        self.student_layers = frozenset(layer for _, layer in pairs)
        self.projections = _make_projections(teacher, student, pairs)

    def add_up(
        self,
        scales: dict[str, Tensor],
        *,
        weights: dict[str, Tensor],
        teacher_states: Mapping[Layer, Tensor],
        student_states: Mapping[Layer, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the scaled total and the sum of each loss.

        Args:
            scales: factor of each loss's sum in the total, by name.
            weights: float, (batch, length), weight of each token, by the
                losses' `counts`.
            teacher_states: by layer, (batch, length, width of the teacher).
            student_states: by layer, (batch, length, width of the student).

        Returns:
            A scalar, and the sums as `<name>_sum`.
        """
        total, sums = tf.zeros([]), {}
        projected = {
            pair: projection(student_states[pair[1]])
            for pair, projection in self.projections.items()
        }
        for loss in self.losses:
            weight = weights[loss.counts]
            parts = []
            for pair in self._pairs[loss.name]:
                values = loss_values(
                    loss,
                    weight,
                    teacher_hidden_states=teacher_states[pair[0]],
                    student_hidden_states=projected.get(
                        pair, student_states[pair[1]]
                    ),
                )
                parts.append(functional.weighted_sum(values, weight))
            added = parts[0]
            if len(parts) > 1:
                added = tf.add_n(parts) / len(parts)
            sums[f"{loss.name}_sum"] = added
            total += scales[loss.name] * added
        return total, sums


def _find_pairs(
    loss: HiddenStateLoss,
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
) -> tuple[Pair, ...]:
    """Returns the pairs of layers that a loss compares."""
    of_teacher = None
    if isinstance(teacher, keras.Model):
        of_teacher = forward.layer_count(teacher)
    try:
        return find_pairs(loss.layers, of_teacher, forward.layer_count(student))
    except ValueError as error:
        raise ValueError(f"The loss {loss.name!r}: {error}") from None


def _make_projections(
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
    pairs: Sequence[Pair],
) -> dict[Pair, keras.layers.Layer]:
    """Makes a projection per pair, if the teacher's width differs."""
    if teacher is None or not pairs:
        return {}
    teacher_width = (
        teacher if isinstance(teacher, CachedTeacher) else teacher.backbone
    ).hidden_dim
    student_width = student.backbone.hidden_dim
    if teacher_width == student_width:
        return {}
    projections: dict[Pair, keras.layers.Layer] = {}
    others = 0
    for pair in pairs:
        name, seed = "hidden_state_projection", 0
        if pair != LAST_PAIR:
            others += 1
            name, seed = f"{name}_{pair[0]}_{pair[1]}", others
        projections[pair] = keras.layers.Dense(
            teacher_width,
            kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
            dtype=student.backbone.dtype_policy,
            name=name,
        )
        projections[pair].build((None, None, student_width))
    return projections
