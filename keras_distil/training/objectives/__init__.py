"""What a batch costs: forward passes, losses and gradients of one task."""

from collections.abc import Sequence
from typing import Any, Protocol

import keras

from keras_distil.losses import DistillationLoss
from keras_distil.models.task_model import kind_of
from keras_distil.teachers import CachedTeacher
from keras_distil.training.objectives import shared
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

Tensor = Any


class Objective(Protocol):
    """The losses of one batch and their gradients, as sums.

    Attributes:
        student: the model that learns.
        losses: those that are added up.
        projection: a layer to train with the student, or None.
        chunk_size: tokens that go through a vocabulary at a time.
        jit_compile: whether XLA compiles what is done with logits.
    """

    student: keras.Model
    losses: list[DistillationLoss]
    projection: keras.layers.Layer | None
    chunk_size: int
    jit_compile: bool

    @property
    def ratios(self) -> dict[str, tuple[str, str]]:
        """Each log as (key of a sum, key of the size that divides it)."""
        ...

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that the gradients are taken for."""
        ...

    def batch(self, data: Any) -> Any:
        """The parts of a Keras triple, checked and named."""
        ...

    def outputs(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """The student's outputs."""
        ...

    def sizes(self, batch: Any) -> dict[str, Tensor]:
        """What the means of a batch divide by."""
        ...

    @property
    def metric_outputs(self) -> dict[str, Any]:
        """What the metrics of `compile` get; see `shared.metric_outputs`."""
        ...

    def evaluate(
        self,
        batch: Any,
        sizes: dict[str, Tensor],
        *,
        training: bool,
        observe: shared.Observer | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Sums, and the gradients of the weighted total for `variables`."""
        ...


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
