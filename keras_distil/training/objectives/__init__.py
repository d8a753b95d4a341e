"""Objectives: forward passes, losses and gradients of one batch of a task."""

from collections.abc import Sequence

import keras
from keras_hub.models import MaskedLM

from keras_distil.losses import DistillationLoss
from keras_distil.models.embedding_model import is_embedder
from keras_distil.models.task_model import kind_of
from keras_distil.teachers import (
    CachedEmbeddingTeacher,
    CachedTeacher,
    StoredTeacher,
)
from keras_distil.training.objectives.any_batch import AnyBatch
from keras_distil.training.objectives.any_model import AnyModelObjective
from keras_distil.training.objectives.base import Objective
from keras_distil.training.objectives.embedding import (
    EmbeddingBatch,
    EmbeddingObjective,
)
from keras_distil.training.objectives.gradient_norms import GradientNorms
from keras_distil.training.objectives.masked_lm import (
    MaskedLMBatch,
    MaskedLMObjective,
)
from keras_distil.training.objectives.task import TaskBatch, TaskObjective
from keras_distil.training.objectives.teachers import (
    Teacher,
    check_teacher,
    list_teachers,
    live_teachers,
)

__all__ = [
    "AnyBatch",
    "AnyModelObjective",
    "EmbeddingBatch",
    "EmbeddingObjective",
    "GradientNorms",
    "MaskedLMBatch",
    "MaskedLMObjective",
    "Objective",
    "TaskBatch",
    "TaskObjective",
    "Teacher",
    "check_teacher",
    "list_teachers",
    "live_teachers",
    "make_objective",
]


def make_objective(
    teacher: Teacher,
    student: keras.Model,
    losses: Sequence[DistillationLoss],
    *,
    from_logits: bool | None = None,
    trains: bool = True,
) -> Objective:
    """Makes the objective for the student, by its class.

    Args:
        teacher: a model for the same task, a list of them, a cached teacher,
            or None.
        student: a masked-LM task model, a model of `models.task_model`, an
            embedding model, or any other Keras model.
        losses: the losses to add up.
        from_logits: for any other Keras model; see `AnyModelObjective`.
        trains: whether the student is trained, not only scored.

    Returns:
        The objective.

    Raises:
        TypeError: if the models are not for the same task.
        ValueError: as the objectives do.
    """
    teacher = check_teacher(teacher)
    kind = kind_of(student)
    is_masked_lm = isinstance(student, MaskedLM)
    embeds = is_embedder(student)
    for each in list_teachers(teacher):
        if isinstance(each, StoredTeacher):
            _check_purpose(each, kind, masked_lm=is_masked_lm, embeds=embeds)
    if kind is None and not is_masked_lm and not embeds:
        return AnyModelObjective(
            teacher, student, losses, from_logits=from_logits, trains=trains
        )
    if from_logits is not None:
        raise ValueError(
            "`from_logits` is for other Keras models: the outputs of this "
            f"student are known. Leave it out. Received: student="
            f"{student.name!r}, from_logits={from_logits!r}."
        )
    if embeds:
        if isinstance(teacher, list):
            raise TypeError(
                "A sentence embedder learns from one teacher: the vectors of "
                "several have no coordinates in common. Received: a list of "
                f"{len(teacher)} teachers."
            )
        return EmbeddingObjective(teacher, student, losses, trains=trains)
    objective = TaskObjective if kind is not None else MaskedLMObjective
    return objective(teacher, student, losses, trains=trains)


def _check_purpose(
    teacher: StoredTeacher, kind: str | None, *, masked_lm: bool, embeds: bool
) -> None:
    """Raises TypeError if outputs on disk are for another kind of student."""
    if isinstance(teacher, CachedEmbeddingTeacher) != embeds:
        raise TypeError(
            "A `CachedEmbeddingTeacher` is for sentence embedders and no other "
            f"student. Received: teacher={teacher.name!r} for "
            f"{'an embedder' if embeds else 'another student'}."
        )
    if embeds:
        return
    if isinstance(teacher, CachedTeacher) and not masked_lm:
        raise TypeError(
            "A `CachedTeacher` is for masked language modelling; a task has "
            "`teachers.cache_task_teacher`, and any other model needs a live "
            f"teacher. Received: teacher={teacher.name!r}."
        )
    if not isinstance(teacher, CachedTeacher) and kind is None:
        raise TypeError(
            "A `CachedTaskTeacher` is for models of tasks, as "
            "`models.task_model` makes them; masked language modelling has "
            "`teachers.cache_teacher`, and any other model needs a live "
            f"teacher. Received: teacher={teacher.name!r}."
        )
