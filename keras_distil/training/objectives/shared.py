"""What the objectives of all tasks share: projection, sums and checks."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import (
    DistillationLoss,
    HiddenStateLoss,
    LogitsLoss,
    functional,
)
from keras_distil.losses.base import checked_values
from keras_distil.models import supported
from keras_distil.teachers import CachedTeacher

Tensor = Any

# Is given targets, the student's outputs and weights.
Observer = Callable[[Any, Any, Tensor], None]


def metric_outputs(
    *,
    targets: Sequence[Any],
    predictions: Any,
    described: str,
    names: Sequence[str] | None = None,
    classes: bool = True,
) -> dict[str, Any]:
    """What an observer is given, for whoever makes metrics of it.

    Args:
        targets: shapes that the targets may have, the usual one first.
        predictions: shape of the student's outputs.
        described: both in words.
        names: of several outputs, whose shapes are equal.
        classes: whether an output chooses one of several.

    Returns:
        The same by name, with `keras.KerasTensor` for each shape, and the
        "weight", (rows,).
    """

    def symbol(shape: Any, dtype: str) -> Any:
        if names is None:
            return keras.KerasTensor(shape, dtype)
        return {name: keras.KerasTensor(shape, dtype) for name in names}

    return {
        "targets": [
            symbol(shape, "int32" if len(shape) == 1 else "float32")
            for shape in targets
        ],
        "predictions": symbol(predictions, "float32"),
        "weight": keras.KerasTensor((None,), "float32"),
        "names": names,
        "classes": classes,
        "described": described,
    }


def hidden_state_projection(
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
    losses: Sequence[DistillationLoss],
) -> keras.layers.Layer | None:
    """A learned map to the teacher's width, where a loss needs one."""
    if teacher is None or not any(
        isinstance(loss, HiddenStateLoss) for loss in losses
    ):
        return None
    teacher_width = _sizes(teacher).hidden_dim
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


def hidden_state_losses(
    losses: Sequence[HiddenStateLoss],
    scales: dict[str, Tensor],
    *,
    token_weight: Tensor,
    teacher_states: Tensor | None,
    student_states: Tensor,
    projection: keras.layers.Layer | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scaled total, and the sum of each hidden-state loss.

    Args:
        losses: the losses.
        scales: factor of each loss's sum in the total, by name.
        token_weight: float, (batch, length), 1 at real tokens.
        teacher_states: (batch, length, width of the teacher); None without
            losses.
        student_states: (batch, length, width of the student).
        projection: a map from the student's width to the teacher's, or None.

    Returns:
        A scalar, and the sums by `<name>_sum`.
    """
    total, sums = tf.zeros([]), {}
    if projection is not None:
        student_states = projection(student_states)
    for loss in losses:
        values = loss.token_values(
            teacher_hidden_states=teacher_states,
            student_hidden_states=student_states,
        )
        values = checked_values(loss, values, token_weight)
        added = functional.weighted_sum(values, token_weight)
        sums[f"{loss.name}_sum"] = added
        total += scales[loss.name] * added
    return total, sums


def statistic_ratios(
    losses: Sequence[LogitsLoss], size_of: Callable[[LogitsLoss], str]
) -> dict[str, tuple[str, str]]:
    """The logs of losses that have a statistic, as in `Objective.ratios`."""
    return {
        f"{loss.name}_{loss.statistic}": (
            f"{loss.name}_statistic",
            size_of(loss),
        )
        for loss in losses
        if loss.statistic is not None
    }


def _sizes(model: keras.Model | CachedTeacher) -> Any:
    """What knows the vocabulary and the width of a model."""
    return model if isinstance(model, CachedTeacher) else model.backbone


def check_pair(
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
    *,
    trains: bool = True,
) -> None:
    """Raises ValueError unless one model can teach the other.

    Args:
        teacher: a model, a cached teacher or None.
        student: a model.
        trains: whether the student is trained, and not scored alone.

    Raises:
        ValueError: if they are one model, share weights, have other
            vocabularies, or the student cannot be trained exactly.
    """
    if trains:
        supported.check_student(student)
    if teacher is None:
        return
    if teacher is student:
        raise ValueError(
            "`teacher` and `student` must be two models: the teacher is "
            f"never changed. Received: {student.name!r} for both."
        )
    if trains and isinstance(teacher, keras.Model):
        supported.check_nothing_shared(teacher, student)
    sizes = [_sizes(m).vocabulary_size for m in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "Teacher and student must share a vocabulary. Received: "
            f"teacher vocabulary {sizes[0]}, student vocabulary {sizes[1]}."
        )


def check_losses(
    losses: Sequence[DistillationLoss],
    teacher: keras.Model | CachedTeacher | None,
) -> None:
    """Raises an error unless `losses` can be added up.

    Raises:
        TypeError: if one is not a distillation loss.
        ValueError: if there is none, none is on logits, names repeat, or one
            needs a teacher and there is none, or a cached one lacks what
            the loss reads.
    """
    if isinstance(losses, DistillationLoss) or not losses:
        raise ValueError(
            "`losses` must be a list of at least one distillation loss, such "
            f"as `losses.triple_loss()`. Received: losses={losses!r}."
        )
    for loss in losses:
        if not isinstance(loss, LogitsLoss | HiddenStateLoss):
            raise TypeError(
                "`losses` must hold keras_distil losses. Received: "
                f"{loss!r} (of type {type(loss).__name__})."
            )
        if teacher is None and loss.needs_teacher:
            raise ValueError(
                f"The loss {loss.name!r} needs a teacher. "
                "Received: teacher=None."
            )
    names = [loss.name for loss in losses]
    if len(set(names)) != len(names):
        raise ValueError(
            "Every loss needs its own name, as logs are called after it. "
            f"Received: names {names}."
        )
    if not any(isinstance(loss, LogitsLoss) for loss in losses):
        raise ValueError(
            "`losses` must hold a loss on logits, or the output layer would "
            f"not be trained. Received: names {names}."
        )
    if isinstance(teacher, CachedTeacher):
        teacher.check_losses(losses)
