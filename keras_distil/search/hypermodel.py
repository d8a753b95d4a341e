"""Distillation as a hypermodel for KerasTuner."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_hub.models import MaskedLM, Task
from keras_tuner.errors import FailedTrialError, FatalRuntimeError

from keras_distil import config, data
from keras_distil.callbacks.training_state import (
    DEFAULT_EVERY_STEPS,
    TrainingState,
)
from keras_distil.config import model_sections, search_section
from keras_distil.runs.distillation import make_distiller
from keras_distil.runs.schedules import make_schedulers
from keras_distil.runs.sections import distill_section, search_settings
from keras_distil.runs.student import make_student
from keras_distil.search.graph_memory import forget_trial
from keras_distil.training.distiller import Distiller
from keras_distil.training.keras_methods import NonFiniteLossError
from keras_distil.utils import disk

STATE = "training_state"
_PARENT = "tuner/trial_id"


class TrialDistiller(Distiller):
    """A Distiller that saves and loads only its student's weights.

    A tuner keeps the weights of every trial, but all share the teacher.
    """

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Writes the student's weights."""
        self.student.save_weights(filepath, overwrite=overwrite)

    def load_weights(self, filepath: Any, **kwargs: Any) -> None:
        """Reads the student's weights."""
        self.student.load_weights(filepath, **kwargs)


class DistillationHyperModel(keras_tuner.HyperModel):
    """Distillations of one teacher, with settings chosen by a tuner.

    The teacher is shared by all trials, and each trial begins with the same
    seeds, so trials of the same shape start from the same student. A trial's
    checkpoint holds only the student's weights. An interrupted trial continues
    in mid-epoch from its training state if its batches are a keras_distil
    dataset. A trial whose loss is no longer finite is recorded as failed; any
    other error ends the search.

    Args:
        teacher: a masked-LM task model.
        space: the search space: `Dimension`s by dotted key, such as
            "distill.learning_rate" or "student.num_layers". A schedule
            is one key; its choices are mappings as in a recipe, or None.
        distill: the other settings, as in a recipe's section `distill`.
            `steps` is the number of updates per trial.
        student: as in a recipe's section `student`; None for every second
            layer.
        seed: int, determines students and masks.
        precision: dtype policy of the students.
        state_every_steps: int >= 1, updates between training states of a
            trial.

    Raises:
        RecipeError: if a setting or a dimension is wrong, naming it.

    Example:
        >>> hypermodel = DistillationHyperModel(
        ...     teacher,
        ...     {"distill.losses.mlm.weight": Dimension(min=0.1, max=10.0)},
        ...     distill={
        ...         "steps": 500, "batch_size": 32, "learning_rate": 5e-4
        ...     },
        ... )                                               # doctest: +SKIP
        >>> tuner = keras_tuner.BayesianOptimization(
        ...     hypermodel,
        ...     keras_tuner.Objective("val_teacher_agreement", "max"),
        ... )                                               # doctest: +SKIP
        >>> tuner.search(
        ...     batches, steps_per_epoch=500, validation_data=held_out
        ... )                                               # doctest: +SKIP
    """

    def __init__(
        self,
        teacher: MaskedLM,
        space: Mapping[str, config.Dimension],
        *,
        distill: Mapping[str, Any],
        student: Mapping[str, Any] | None = None,
        seed: int = 0,
        precision: str = "float32",
        state_every_steps: int = DEFAULT_EVERY_STEPS,
    ) -> None:
        recipe = config.make_recipe(
            {
                "name": "search",
                "seed": seed,
                "precision": precision,
                "checkpoint_steps": state_every_steps,
                "student": dict(student or {}),
                "distill": dict(distill),
                "search": {
                    "space": {
                        key: each.model_dump() for key, each in space.items()
                    }
                },
                # Never read, because the caller has both.
                "teacher": {"source": "given"},
                "data": {"sources": [{"kind": "documentation"}]},
            }
        )
        self._set_up(teacher, recipe)

    def _set_up(self, teacher: Any, recipe: config.Recipe) -> None:
        super().__init__(name=recipe.name)
        self.teacher = teacher
        self.recipe = recipe

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares the search space to the tuner, without building a model."""
        self.values(hp)

    def values(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """Returns the tuner's choices by recipe key."""
        space = search_settings(self.recipe).space
        return {
            key: _value(hp, key, each, whole=self._is_whole(key, each))
            for key, each in space.items()
        }

    def _is_whole(self, key: str, each: config.Dimension) -> bool:
        sections = {
            "student": self.recipe.student or model_sections.StudentSection(),
            "distill": distill_section(self.recipe),
        }
        return search_section.takes_whole_numbers(key, each, sections)

    def trial_recipe(self, hp: keras_tuner.HyperParameters) -> config.Recipe:
        """Returns the recipe with the tuner's choices, without the search.

        Raises:
            FailedTrialError: if the values contradict each other.
        """
        try:
            return self.with_values(self.values(hp))
        except config.RecipeError as error:
            raise FailedTrialError(str(error)) from error

    def with_values(self, values: Mapping[str, Any]) -> config.Recipe:
        """Returns the recipe of a trial, without XLA compilation.

        TensorFlow 2.21 permanently keeps what XLA has compiled, about 90 MB
        per training step, and every trial has a training step.

        Raises:
            RecipeError: if the values contradict each other.
        """
        plain: dict[str, Any] = {"distill.jit_compile": False}
        if self.recipe.finetune is not None:
            plain["finetune.jit_compile"] = False
        return config.with_values(self.recipe, {**values, **plain})

    def build(self, hp: keras_tuner.HyperParameters) -> Distiller:
        """Builds and compiles the Distiller of a trial."""
        return self.make_distiller(self.trial_recipe(hp), TrialDistiller)

    def make_distiller(
        self, recipe: config.Recipe, kind: type[Distiller] = Distiller
    ) -> Distiller:
        """Builds and compiles the Distiller of a trial's recipe."""
        keras.utils.set_random_seed(recipe.seed)
        return make_distiller(
            recipe,
            self.teacher,
            self.make_student(recipe),
            steps=self.steps(recipe),
            kind=kind,
        )

    def make_student(
        self, recipe: config.Recipe, *, dtype: str | None = None
    ) -> Task:
        """Builds the student of a trial's recipe."""
        return make_student(recipe, self.teacher, dtype=dtype)

    def steps(self, recipe: config.Recipe) -> int:
        """Returns the number of updates of a trial.

        Raises:
            ValueError: if `distill` counts epochs.
        """
        steps = distill_section(recipe).steps
        if steps is None:
            raise ValueError(
                "`distill` must give `steps`, the updates of a trial. "
                "Received: epochs."
            )
        return steps

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: Distiller,
        *args: Any,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **kwargs: Any,
    ) -> Any:
        """Trains a trial; the arguments are those of `Distiller.fit`.

        Raises:
            FailedTrialError: if the loss is no longer finite.
            FatalRuntimeError: if anything else is wrong, which ends the
                search.
        """
        recipe = self.trial_recipe(hp)
        folder = get_trial_folder(callbacks)
        all_callbacks = [*callbacks, *make_schedulers(distill_section(recipe))]
        # Other data cannot be resumed where a trial stopped.
        if folder is not None and args and data.stream_of(args[0]) is not None:
            all_callbacks.append(make_training_state(recipe, hp, folder))
        kwargs.setdefault("verbose", 0)
        with forget_trial(), translate_failures():
            fit: Any = model.fit  # KerasTuner passes only data in `args`.
            return fit(*args, callbacks=all_callbacks, **kwargs)


@contextlib.contextmanager
def translate_failures() -> Iterator[None]:
    """Turns errors of a training into errors that a tuner understands."""
    try:
        yield
    except NonFiniteLossError as error:
        raise FailedTrialError(str(error)) from error
    except tf.errors.ResourceExhaustedError as error:
        # TensorFlow uses this class for a full disk, too, which affects every
        # trial.
        if disk.is_of_disk(error):
            raise FatalRuntimeError(str(error)) from error
        raise FailedTrialError("Out of memory.") from error
    except Exception as error:
        raise FatalRuntimeError(str(error)) from error


def make_training_state(
    recipe: config.Recipe, hp: keras_tuner.HyperParameters, folder: Path
) -> TrainingState:
    """Makes a trial's state, or that of the one Hyperband continues."""
    state = folder / STATE
    parent = hp.values.get(_PARENT)
    if parent is not None and not state.is_dir():
        earlier = folder.with_name(f"trial_{parent}") / STATE
        partial = folder / f".{STATE}"
        shutil.rmtree(partial, ignore_errors=True)
        with disk.writing(folder):
            shutil.copytree(earlier, partial, copy_function=os.link)
            partial.rename(state)
    return TrainingState(state, every_steps=recipe.checkpoint_steps)


def get_trial_folder(
    callbacks: Sequence[keras.callbacks.Callback],
) -> Path | None:
    """Returns the folder of the trial that these callbacks belong to."""
    for callback in callbacks:
        tuner = getattr(callback, "tuner", None)
        if isinstance(tuner, keras_tuner.Tuner):
            return Path(tuner.get_trial_dir(callback.trial.trial_id))
    return None


def _value(
    hp: keras_tuner.HyperParameters,
    key: str,
    each: config.Dimension,
    *,
    whole: bool,
) -> Any:
    if each.bounds is None:
        by_value = each.by_value()
        return by_value[hp.Choice(key, list(by_value))]
    lowest, highest = each.bounds
    if whole:
        return hp.Int(key, int(lowest), int(highest), sampling=each.scale)
    return hp.Float(key, lowest, highest, sampling=each.scale)
