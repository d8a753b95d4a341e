"""Computes losses on hidden states: pairs of layers, projections and sums."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.base import AttentionLoss, HiddenStateLoss, loss_values
from keras_distil.losses.layers import LAST_PAIR, Pair, find_pairs
from keras_distil.models import forward
from keras_distil.teachers import CachedTeacher

Tensor = Any


class HiddenStateLosses:
    """The losses on hidden states of two models, with their projections.

    Args:
        losses: losses on hidden states, or none.
        pairs: by name of the loss, the pairs of layers that it compares.
        projections: learned projections of the student's states to the
            teacher's width, by pair of layers; none if the widths are equal.

    Attributes:
        losses: the given losses.
        teacher_layers: the teacher's layers whose states the losses read.
        student_layers: the student's layers whose states the losses read.
        projections: the given projections.
    """

    def __init__(
        self,
        losses: Sequence[HiddenStateLoss],
        pairs: Mapping[str, Sequence[Pair]],
        projections: Mapping[Pair, keras.layers.Layer],
    ) -> None:
        self.losses = list(losses)
        self._pairs = dict(pairs)
        every = list_pairs(pairs)
        self.teacher_layers = frozenset(layer for layer, _ in every)
        self.student_layers = frozenset(layer for _, layer in every)
        self.projections = dict(projections)

    def add_up(
        self,
        scales: dict[str, Tensor],
        *,
        weight_of: Callable[[HiddenStateLoss, Tensor], Tensor],
        teacher_states: Mapping[Any, Tensor],
        student_states: Mapping[Any, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the scaled total and the sum of each loss.

        Args:
            scales: factor of each loss's sum in the total, by name.
            weight_of: function from a loss and a teacher's states to the
                weight of each token, float, (batch, length).
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
            parts = []
            for pair in self._pairs[loss.name]:
                weight = weight_of(loss, teacher_states[pair[0]])
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


def list_pairs(pairs: Mapping[str, Sequence[Pair]]) -> list[Pair]:
    """Returns the pairs of all losses, each once, in order."""
    return list(dict.fromkeys(pair for each in pairs.values() for pair in each))


def make_projection(
    name: str,
    *,
    student_width: int,
    teacher_width: int,
    seed: int,
    dtype: str | keras.DTypePolicy,
) -> keras.layers.Layer:
    """Makes a learned projection of states to the teacher's width."""
    projection = keras.layers.Dense(
        teacher_width,
        kernel_initializer=keras.initializers.GlorotUniform(seed=seed),
        dtype=dtype,
        name=name,
    )
    projection.build((None, None, student_width))
    return projection


# === Encoders of known families ===


def of_encoders(
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
    losses: Sequence[HiddenStateLoss],
) -> HiddenStateLosses:
    """Returns the losses on hidden states of two encoders.

    Args:
        teacher: a model, a cached teacher or None.
        student: a model.
        losses: losses on hidden states, or none.

    Raises:
        ValueError: if a loss pairs layers that a model does not have.
    """
    pairs = {
        loss.name: find_layer_pairs(loss, teacher, student) for loss in losses
    }
    return HiddenStateLosses(
        losses, pairs, _make_projections(teacher, student, list_pairs(pairs))
    )


def find_layer_pairs(
    loss: HiddenStateLoss | AttentionLoss,
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
) -> tuple[Pair, ...]:
    """Returns the pairs of layers of two encoders that a loss compares.

    Raises:
        ValueError: if a model does not have a layer.
    """
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
        projections[pair] = make_projection(
            name,
            student_width=student_width,
            teacher_width=teacher_width,
            seed=seed,
            dtype=student.backbone.dtype_policy,
        )
    return projections
