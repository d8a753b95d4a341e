"""Parts of a student that the losses of a training do not reach."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss
from keras_distil.training.objectives import make_objective
from keras_distil.training.objectives.base import Objective, UnreachedError
from keras_distil.training.objectives.gradient_norms import (
    assign_all,
    random_states,
)
from keras_distil.training.objectives.shared import trained_after_encoder
from keras_distil.training.objectives.teachers import Teacher

# This many examples tell which variables have a gradient.
_EXAMPLES = 2


@contextlib.contextmanager
def unreached_frozen(
    teacher: Teacher,
    student: keras.Model,
    losses: Sequence[DistillationLoss],
    data: Any,
) -> Iterator[list[keras.Variable]]:
    """Keeps the variables that no loss reaches as they are within the block.

    Losses on hidden states or attention alone do not reach the layers after
    the last one that they read. Their gradient, none, is not that of a loss
    that happens to be flat, so they are not decayed either.

    Args:
        teacher: a model for the same task, several, or None.
        student: a model of `models.task_model`. In the block, `trainable` of
            these variables is False; Distillers of these losses are compiled
            there.
        losses: the losses of the training.
        data: a batch as `fit` takes it, with two examples or more.

    Yields:
        The variables.

    Raises:
        ValueError: if the losses do not fit the models.
    """
    frozen: list[keras.Variable] = []
    if not any(loss.is_on_logits for loss in losses):
        frozen += trained_after_encoder(student)
    try:
        _set_trainable(frozen, False)
        frozen += _find_unreached(
            make_objective(teacher, student, losses), data
        )
        _set_trainable(frozen, False)
        yield frozen
    finally:
        _set_trainable(frozen, True)


def _set_trainable(variables: Sequence[keras.Variable], value: bool) -> None:
    for variable in variables:
        variable.trainable = value


def _find_unreached(objective: Objective, data: Any) -> list[keras.Variable]:
    """Returns the trainable variables without a gradient on a batch."""
    batch = objective.batch(
        tf.nest.map_structure(lambda values: values[:_EXAMPLES], data)
    )
    random = random_states(objective.student)
    kept = [variable.numpy() for variable in random]
    try:
        objective.compute_gradients(
            batch, objective.denominators(batch), training=True
        )
    except UnreachedError as error:
        return error.variables
    finally:
        assign_all(random, kept)
    return []
