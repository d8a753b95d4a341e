"""A distillation as KerasTuner's tuners see it."""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_hub.models import MaskedLM
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
from keras_distil.search.graph_memory import trial_forgotten
from keras_distil.training.distiller import Distiller, NonFiniteLossError
from keras_distil.utils import disk

STATE = "training_state"
_PARENT = "tuner/trial_id"


class _TrialDistiller(Distiller):
    """A Distiller whose weights are its student's.

    A tuner keeps the weights of every trial, and all share the teacher.
    """

    def save_weights(self, filepath: Any, overwrite: bool = True) -> None:
        """Writes the student's weights."""
        self.student.save_weights(filepath, overwrite=overwrite)

    def load_weights(self, filepath: Any, **kwargs: Any) -> None:
        """Reads the student's weights."""
        self.student.load_weights(filepath, **kwargs)


class DistillationHyperModel(keras_tuner.HyperModel):
    """Distillations of one teacher with settings that a tuner chooses.

    The teacher is shared by all trials, each of which begins with the same
    seeds: trials that build the same shape start from the same student. A
    trial's checkpoint holds the student's weights alone. A trial that was
    interrupted goes on in mid-epoch from its training state, if its batches
    are a dataset of keras_distil; one whose loss is no longer finite is
    recorded as failed; any other error ends the search.

    Args:
        teacher: a masked-LM task model.
        space: what is searched: `Dimension`s by dotted key, such as
            "distill.learning_rate" or "student.num_layers". A schedule
            is one key; its choices are mappings as in a recipe, or None.
        distill: the other settings, as a recipe's section `distill`.
            `steps` are the updates of a trial.
        student: as a recipe's section `student`; None for every second layer.
        seed: int, of students and masks.
        precision: dtype policy of the students.
        state_every_steps: int >= 1, updates from one training state of a trial
            to the next.

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
                # Not read: the caller has both.
                "teacher": {"source": "given"},
                "data": {"sources": [{"kind": "documentation"}]},
            }
        )
        self._set_up(teacher, recipe)

    def _set_up(self, teacher: MaskedLM, recipe: config.Recipe) -> None:
        super().__init__(name=recipe.name)
        self.teacher = teacher
        self.recipe = recipe

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Tells the tuner the space, without building a model."""
        self.values(hp)

    def values(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """What the tuner has chosen, by the recipe's keys."""
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
        """The recipe with what the tuner has chosen, without the search.

        Raises:
            FailedTrialError: if the values do not go together.
        """
        try:
            return self.with_values(self.values(hp))
        except config.RecipeError as error:
            raise FailedTrialError(str(error)) from error

    def with_values(self, values: Mapping[str, Any]) -> config.Recipe:
        """The recipe of a trial, which XLA does not compile.

        TensorFlow 2.21 keeps what XLA has compiled for good, some 90 MB for
        each training step, and every trial has one of its own.

        Raises:
            RecipeError: if the values do not go together.
        """
        plain: dict[str, Any] = {"distill.jit_compile": False}
        if self.recipe.finetune is not None:
            plain["finetune.jit_compile"] = False
        return config.with_values(self.recipe, {**values, **plain})

    def build(self, hp: keras_tuner.HyperParameters) -> Distiller:
        """The Distiller of a trial, compiled."""
        recipe = self.trial_recipe(hp)
        keras.utils.set_random_seed(recipe.seed)
        return make_distiller(
            recipe,
            self.teacher,
            make_student(recipe, self.teacher),
            steps=self.steps(recipe),
            kind=_TrialDistiller,
        )

    def steps(self, recipe: config.Recipe) -> int:
        """Updates of a trial.

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
        folder = trial_folder(callbacks)
        given = [*callbacks, *make_schedulers(distill_section(recipe))]
        # Other data cannot be entered where a trial stopped.
        if folder is not None and args and data.stream_of(args[0]) is not None:
            given.append(training_state(recipe, hp, folder))
        kwargs.setdefault("verbose", 0)
        with trial_forgotten(), failures_told():
            fit: Any = model.fit  # KerasTuner hands on data alone in `args`.
            return fit(*args, callbacks=given, **kwargs)


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Raises errors of a training as what they mean to a tuner."""
    try:
        yield
    except NonFiniteLossError as error:
        raise FailedTrialError(str(error)) from error
    except tf.errors.ResourceExhaustedError as error:
        # TensorFlow's class for a full disk, too, which meets every trial.
        if disk.is_of_disk(error):
            raise FatalRuntimeError(str(error)) from error
        raise FailedTrialError("Out of memory.") from error
    except Exception as error:
        raise FatalRuntimeError(str(error)) from error


def training_state(
    recipe: config.Recipe, hp: keras_tuner.HyperParameters, folder: Path
) -> TrainingState:
    """The state of a trial, or of the one that Hyperband goes on with."""
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


def trial_folder(
    given: Sequence[keras.callbacks.Callback],
) -> Path | None:
    """Where the tuner keeps the trial that these callbacks belong to."""
    for callback in given:
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
