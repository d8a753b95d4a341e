"""Computes losses on hidden states: pairs of layers, projections and sums."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_distil.losses import functional
from keras_distil.losses.base import AttentionLoss, HiddenStateLoss, loss_values
from keras_distil.losses.layers import LAST, Layer, find_pairs
from keras_distil.models import forward
from keras_distil.teachers import StoredTeacher

Tensor = Any

# The number of a teacher, one of its layers, and one of the student's.
Link: TypeAlias = tuple[int, Layer, Layer]
LAST_LINK: Link = (0, LAST, LAST)


class HiddenStateLosses:
    """The losses on hidden states of two models, with their projections.

    Args:
        losses: losses on hidden states, or none.
        links: by name of the loss, the pairs of layers that it compares.
        projections: learned projections of the student's states to the
            teacher's width, by pair of layers; none if the widths are equal.

    Attributes:
        losses: the given losses.
        student_layers: the student's layers whose states the losses read.
        projections: the given projections.
    """

    def __init__(
        self,
        losses: Sequence[HiddenStateLoss],
        links: Mapping[str, Sequence[Link]],
        projections: Mapping[Link, keras.layers.Layer],
    ) -> None:
        self.losses = list(losses)
        self._links = dict(links)
        self.student_layers = frozenset(x for _, _, x in list_links(links))
        self.projections = dict(projections)

    def teacher_layers(self, number: int) -> frozenset[Layer]:
        """Returns the layers of a teacher whose states the losses read."""
        return frozenset(
            layer for of, layer, _ in list_links(self._links) if of == number
        )

    def add_up(
        self,
        scales: dict[str, Tensor],
        *,
        weight_of: Callable[[HiddenStateLoss, Tensor], Tensor],
        teacher_states: Sequence[Mapping[Any, Tensor]],
        student_states: Mapping[Any, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the scaled total and the sum of each loss.

        Args:
            scales: factor of each loss's sum in the total, by name.
            weight_of: function from a loss and a teacher's states to the
                weight of each token, float, (batch, length).
            teacher_states: for each teacher, by layer, (batch, length, width
                of the teacher).
            student_states: by layer, (batch, length, width of the student).

        Returns:
            A scalar, and the sums as `<name>_sum`.
        """
        total, sums = tf.zeros([]), {}
        projected = {
            link: projection(student_states[link[2]])
            for link, projection in self.projections.items()
        }
        for loss in self.losses:
            parts = []
            for link in self._links[loss.name]:
                states = teacher_states[link[0]][link[1]]
                weight = weight_of(loss, states)
                values = loss_values(
                    loss,
                    weight,
                    teacher_hidden_states=states,
                    student_hidden_states=projected.get(
                        link, student_states[link[2]]
                    ),
                )
                parts.append(functional.weighted_sum(values, weight))
            added = parts[0]
            if len(parts) > 1:
                added = tf.add_n(parts) / len(parts)
            sums[f"{loss.name}_sum"] = added
            total += scales[loss.name] * added
        return total, sums


def list_links(links: Mapping[str, Sequence[Link]]) -> list[Link]:
    """Returns the links of all losses, each once, in order."""
    return list(dict.fromkeys(link for each in links.values() for link in each))


def projection_name(link: Link) -> str:
    """Returns the name of the projection of a link."""
    number, of_teacher, of_student = link
    if link == LAST_LINK:
        return "hidden_state_projection"
    of_another = f"{number}_" if number else ""
    return f"hidden_state_projection_{of_another}{of_teacher}_{of_student}"


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
    teachers: Sequence[keras.Model | StoredTeacher],
    student: keras.Model,
    losses: Sequence[HiddenStateLoss],
) -> HiddenStateLosses:
    """Returns the losses on hidden states of encoders.

    Args:
        teachers: models, or a cached teacher.
        student: a model.
        losses: losses on hidden states, or none.

    Raises:
        ValueError: if a loss pairs layers that a model does not have.
    """
    links = {loss.name: find_links(loss, teachers, student) for loss in losses}
    return HiddenStateLosses(
        losses, links, _make_projections(teachers, student, list_links(links))
    )


def find_links(
    loss: HiddenStateLoss | AttentionLoss,
    teachers: Sequence[keras.Model | StoredTeacher],
    student: keras.Model,
) -> tuple[Link, ...]:
    """Returns the pairs of layers of two encoders that a loss compares.

    Raises:
        ValueError: if a model, or a cache, does not have a layer.
    """
    teacher = teachers[loss.teacher]
    of_teacher = None
    if isinstance(teacher, keras.Model):
        of_teacher = forward.layer_count(teacher)
    else:
        of_teacher = teacher.num_layers
    try:
        pairs = find_pairs(
            loss.layers, of_teacher, forward.layer_count(student)
        )
    except ValueError as error:
        raise ValueError(f"{describe(loss, teachers)}: {error}") from None
    if isinstance(teacher, StoredTeacher):
        teacher.check_layers(loss, [layer for layer, _ in pairs])
    return tuple((loss.teacher, *pair) for pair in pairs)


def describe(
    loss: HiddenStateLoss | AttentionLoss, teachers: Sequence[Any]
) -> str:
    """Returns a loss's name for messages, with its teacher among several."""
    one_of = f" (teacher={loss.teacher})" if len(teachers) > 1 else ""
    return f"The loss {loss.name!r}{one_of}"


def _make_projections(
    teachers: Sequence[keras.Model | StoredTeacher],
    student: keras.Model,
    links: Sequence[Link],
) -> dict[Link, keras.layers.Layer]:
    """Makes a projection for each link to a teacher of another width."""
    student_width = student.backbone.hidden_dim
    projections: dict[Link, keras.layers.Layer] = {}
    others = 0
    for link in links:
        teacher = teachers[link[0]]
        teacher_width = (
            teacher if isinstance(teacher, StoredTeacher) else teacher.backbone
        ).hidden_dim
        if teacher_width == student_width:
            continue
        others += link != LAST_LINK
        projections[link] = make_projection(
            projection_name(link),
            student_width=student_width,
            teacher_width=teacher_width,
            seed=0 if link == LAST_LINK else others,
            dtype=student.backbone.dtype_policy,
        )
    return projections
