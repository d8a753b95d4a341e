"""The stages of a training on a task, one `fit` each."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf
from keras_hub.models import Task

from keras_distil import losses
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.runs.trainers import TaskDefaults
from keras_distil.training import snapshots
from keras_distil.training.objectives.unreached import unreached_frozen


@dataclasses.dataclass(frozen=True)
class TaskStage:
    """A part of a training, with its own losses and optimizer.

    Attributes:
        settings: the recipe's section with the losses of the stage.
        epochs: its epochs.
        learning_rate: peak of its learning rate.
        before: epochs of the stages before it.
        after: epochs of the stages after it.
        states: folder of its training states.
        part: which of several stages it is, for the progress.
    """

    settings: FineTuneSection
    epochs: int
    learning_rate: float
    before: int
    after: int
    states: Path
    part: str

    @property
    def is_last(self) -> bool:
        """Whether its epochs are scored, and one of them is kept."""
        return not self.after


def plan_stages(
    sections: Sequence[FineTuneSection], defaults: TaskDefaults, states: Path
) -> list[TaskStage]:
    """Plans a training.

    Args:
        sections: the recipe's section for each stage, one or more.
        defaults: epochs and learning rate where the only section has none.
        states: folder for training states.

    Returns:
        The stages. States of one alone are in the folder itself.
    """
    epochs = [section.epochs or defaults.epochs for section in sections]
    count = len(sections)
    return [
        TaskStage(
            settings=section,
            epochs=epochs[number],
            learning_rate=section.learning_rate or defaults.learning_rate,
            before=sum(epochs[:number]),
            after=sum(epochs[number + 1 :]),
            states=states / f"stage_{number + 1}" if count > 1 else states,
            part=f", stage {number + 1} of {count}" if count > 1 else "",
        )
        for number, section in enumerate(sections)
    ]


def list_unfinished(stages: Sequence[TaskStage]) -> Sequence[TaskStage]:
    """Leaves out stages before the last that has a training state.

    That state has all that they have learned. A stage whose last state is the
    end of it is not left out: its weights are what the next one begins with.

    Raises:
        ValueError: if all states of a stage are damaged.
    """
    begun = [
        number
        for number, stage in enumerate(stages)
        if number and snapshots.newest_snapshot(stage.states, _ignore)
    ]
    return stages[max(begun, default=0) :]


def _ignore(damage: str) -> None:
    """The stage itself warns of it."""


def freeze_unreached(
    teachers: Sequence[Task],
    student: Task,
    kind: str,
    stage: TaskStage,
    batches: tf.data.Dataset,
) -> contextlib.AbstractContextManager:
    """Keeps what a stage's losses do not reach as it is, within a block.

    Args:
        teachers: the teachers; none for training on labels alone.
        student: the model to train.
        kind: the kind of task.
        stage: the stage.
        batches: its batches.
    """
    if stage.settings.losses.read_outputs:
        return contextlib.nullcontext()
    made = losses.make_losses(stage.settings.losses.by_name, kind)
    return unreached_frozen(
        teachers or None, student, made, next(iter(batches))
    )
