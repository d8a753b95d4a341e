"""Objectives: forward passes, losses and gradients of one batch of a task."""

from collections.abc import Sequence

import keras

from keras_distil.losses import DistillationLoss
from keras_distil.models.task_model import kind_of
from keras_distil.teachers import CachedTeacher
from keras_distil.training.objectives.base import Objective
from keras_distil.training.objectives.gradient_norms import GradientNorms
from keras_distil.training.objectives.masked_lm import (
    MaskedLMBatch,
    MaskedLMObjective,
)
from keras_distil.training.objectives.task import TaskBatch, TaskObjective

__all__ = [
    "GradientNorms",
    "MaskedLMBatch",
    "MaskedLMObjective",
    "Objective",
    "TaskBatch",
    "TaskObjective",
    "make_objective",
]


def make_objective(
    teacher: keras.Model | CachedTeacher | None,
    student: keras.Model,
    losses: Sequence[DistillationLoss],
    *,
    trains: bool = True,
) -> Objective:
    """Makes the objective for the student's task.

    Args:
        teacher: a model for the same task, a cached teacher for masked
            language modelling, or None.
        student: a masked-LM task model, or a model of `models.task_model`.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Returns:
        The objective.

    Raises:
        TypeError: if the models are not for the same known task.
        ValueError: as the objectives do.
    """
    if kind_of(student) is not None:
        if isinstance(teacher, CachedTeacher):
            raise TypeError(
                "A cached teacher is for masked language modelling; a task "
                f"needs a live one. Received: teacher={teacher.name!r}."
            )
        return TaskObjective(teacher, student, losses, trains=trains)
    return MaskedLMObjective(teacher, student, losses, trains=trains)
