"""What a batch costs: forward passes, losses and gradients of one task."""

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
    """The objective of the task that the student is for.

    Args:
        teacher: a model for the same task, a cached teacher for masked
            language modelling, or None.
        student: a masked-LM task model, or one of `models.task_model`.
        losses: the losses to add up.
        trains: whether the student is trained, and not scored alone.

    Returns:
        The objective.

    Raises:
        TypeError: if a model is of no task or of another one.
        ValueError: as the objectives say.
    """
    if kind_of(student) is not None:
        if isinstance(teacher, CachedTeacher):
            raise TypeError(
                "A cached teacher is for masked language modelling; a task "
                f"needs a live one. Received: teacher={teacher.name!r}."
            )
        return TaskObjective(teacher, student, losses, trains=trains)
    return MaskedLMObjective(teacher, student, losses, trains=trains)
