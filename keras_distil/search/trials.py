"""Trains, scores and records the trials of a recipe's search."""

import dataclasses
import functools
import json
import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
from keras_hub.models import MaskedLM, Task
from keras_tuner.errors import FailedTrialError

from keras_distil import callbacks, config, data, evaluation
from keras_distil.benchmark import latency
from keras_distil.config import search_section
from keras_distil.runs import score_table
from keras_distil.runs.corpus import (
    make_held_out_batches,
    make_training_batches,
)
from keras_distil.runs.distillation import make_balancer
from keras_distil.runs.finetuning import train_rows
from keras_distil.runs.more_text import add_unlabelled
from keras_distil.runs.run_folder import LOGS, Run, read_text, write_json
from keras_distil.runs.schedules import make_schedulers
from keras_distil.runs.sections import distill_section, search_settings
from keras_distil.runs.task_results import read_best_scores
from keras_distil.runs.tasks import BuiltTask, load_task
from keras_distil.search import hypermodel
from keras_distil.search.graph_memory import forget_trial
from keras_distil.training.distiller import Distiller
from keras_distil.training.metrics import find_metric
from keras_distil.utils import disk

# The trial with the recipe's own values, which the search has to beat.
RECIPE = "recipe"
# The scores of a trial. A trial that has the file is not trained again.
REACHED = "reached.json"
VALUES = "values.json"
# Scores on the half of the held-out text that is used to choose trials, and on
# the half that is not.
CHOSEN = "held_out"
CHECKED = "check"

_HYPERBAND = "tuner/epochs"


@dataclasses.dataclass(frozen=True)
class _Trial:
    """One training of a search.

    Attributes:
        recipe: the recipe with the trial's values.
        model: the Distiller built from it.
        folder: the folder of the trial.
        epochs: parts of `distill.steps` to train, each with a score.
        labels: the values, by key.
        callbacks: the tuner's callbacks.
    """

    recipe: config.Recipe
    model: Distiller
    folder: Path
    epochs: int
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    callbacks: Sequence[keras.callbacks.Callback] = ()


class RecipeTrials(hypermodel.DistillationHyperModel):
    """The trials of `keras-distil search`.

    Args:
        run: the run of the search.
        teacher: the recipe's teacher.
        prepared: the recipe's corpus.

    Raises:
        ValueError: if there is too little held-out text to choose trials.
    """

    def __init__(
        self, run: Run, teacher: MaskedLM, prepared: data.PreparedCorpus
    ) -> None:
        self._set_up(teacher, run.recipe)
        self._run = run
        self._prepared = prepared
        self._halves = _halves(run.recipe, prepared)
        self._latencies: dict[str, float] = {}

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: Distiller,
        *args: Any,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **kwargs: Any,
    ) -> dict[str, float]:
        """Trains and scores a trial, unless that is already done.

        Returns:
            Its scores, by name.
        """
        folder = hypermodel.get_trial_folder(callbacks)
        if folder is None:
            raise ValueError("A recipe's trial needs the folder of a tuner.")
        recipe = self.trial_recipe(hp)
        labels = {key: _plain(value) for key, value in self.values(hp).items()}
        self._keep_if_same(folder, labels)
        epochs = kwargs.get("epochs", self._evaluations)
        scores = self._reached(
            _Trial(recipe, model, folder, epochs, labels, callbacks),
            hypermodel.make_training_state(recipe, hp, folder),
        )
        if _HYPERBAND not in hp.values:
            # Hyperband may continue it.
            shutil.rmtree(folder / hypermodel.STATE, ignore_errors=True)
        return scores

    def _keep_if_same(self, folder: Path, labels: dict[str, Any]) -> None:
        """Deletes what an earlier trial with other values left in a folder.

        A tuner that has lost its state numbers its trials from the start.
        """
        values_file = folder / VALUES
        if read_text(values_file) != json.dumps(labels):
            shutil.rmtree(folder / hypermodel.STATE, ignore_errors=True)
            (folder / REACHED).unlink(missing_ok=True)
            shutil.rmtree(
                self._run.folder / LOGS / folder.name, ignore_errors=True
            )
            disk.write_text(values_file, json.dumps(labels))

    def own_scores(self) -> dict[str, float]:
        """Returns the scores of the recipe's own values; trained once."""
        folder = self._run.folder / RECIPE
        if (folder / REACHED).is_file():
            return json.loads(read_text(folder / REACHED))
        recipe = self.with_values({})
        model = self.make_distiller(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        state = callbacks.TrainingState(
            folder / hypermodel.STATE, every_steps=recipe.checkpoint_steps
        )
        scores = self._reached(
            _Trial(
                recipe,
                model,
                folder,
                self._evaluations,
                get_recipe_values(self.recipe),
            ),
            state,
        )
        shutil.rmtree(folder / hypermodel.STATE, ignore_errors=True)
        return scores

    @property
    def _evaluations(self) -> int:
        return search_settings(self.recipe).evaluations

    def _reached(
        self, trial: _Trial, state: callbacks.TrainingState
    ) -> dict[str, float]:
        reached = trial.folder / REACHED
        if not reached.is_file():
            self._check_latency(trial.recipe)
            with forget_trial(), hypermodel.translate_failures():
                write_json(reached, self._train(trial, state))
        return json.loads(read_text(reached))

    def _train(
        self, trial: _Trial, state: callbacks.TrainingState
    ) -> dict[str, float]:
        started = time.perf_counter()
        objective = search_settings(self.recipe).objective
        steps = max(1, self.steps(trial.recipe) // self._evaluations)
        updates = steps * trial.epochs
        logs = self._run.folder / LOGS / trial.folder.name
        scored = self.make_scores()
        settings = distill_section(trial.recipe)
        batches = self.make_batches(trial.recipe, trial.model.student)
        title = f"Train {trial.folder.name} (steps)"
        with self._run.progress.bar(title, updates) as bar:
            trial.model.fit(
                batches,
                steps_per_epoch=steps,
                epochs=trial.epochs,
                verbose=0,
                callbacks=[
                    # First, because the others read its scores.
                    scored,
                    *trial.callbacks,
                    *make_schedulers(settings),
                    *make_balancer(settings, batches),
                    state,
                    callbacks.TensorBoard(
                        logs,
                        hparams={"trial": trial.folder.name, **trial.labels},
                    ),
                    callbacks.ProgressBar(bar, state),
                ],
            )
        scores = scored.best(objective)
        if objective not in search_section.HELD_OUT_OBJECTIVES:
            scores[objective] = self._task_score(trial)
        callbacks.write_scores(logs, self._logged(scores), updates)
        scores["duration_s"] = round(time.perf_counter() - started, 1)
        return scores

    def _logged(self, scores: dict[str, float]) -> dict[str, float]:
        """Returns scores as logs have them: a task's error is positive."""
        name = search_settings(self.recipe).objective
        if name not in scores or not self._task.counts_errors:
            return scores
        others = {key: x for key, x in scores.items() if key != name}
        return {**others, f"{name}_error": -scores[name]}

    def make_scores(self) -> "HeldOutScores":
        """Returns what scores the student of a trial."""
        return _MaskedLMScores(self.teacher, self._halves)

    def make_batches(
        self,
        recipe: config.Recipe,
        student: Task,  # noqa: ARG002
    ) -> tf.data.Dataset:
        """Returns the training batches of a trial."""
        return make_training_batches(
            recipe,
            self._prepared,
            batch_size=distill_section(recipe).batch_size,
        )

    def make_call(self, recipe: config.Recipe) -> Callable[[], Any]:
        """Returns the call whose latency is measured, in float32."""
        return latency.masked_lm_encoder_call(
            self.make_student(recipe, dtype="float32"),
            recipe.evaluate.latency_length,
        )

    def _check_latency(self, recipe: config.Recipe) -> None:
        """Raises FailedTrialError if the student would be too slow."""
        limit = search_settings(self.recipe).max_latency_ms
        if limit is None:
            return
        latency_ms = self._latency_ms(recipe)
        if latency_ms > limit:
            raise FailedTrialError(
                f"Too slow, not trained: {latency_ms:.1f} ms; "
                f"`search.max_latency_ms` is {limit:g}."
            )

    def _latency_ms(self, recipe: config.Recipe) -> float:
        """Measures one sequence, or one text of a sentence embedder."""
        shape = recipe.student.model_dump_json() if recipe.student else ""
        if shape not in self._latencies:
            measured = latency.measure_latency_ms(
                {"it": self.make_call(recipe)}
            )
            self._latencies[shape] = measured["it"]
        return self._latencies[shape]

    def _task_score(self, trial: _Trial) -> float:
        """Returns the student's score on the task after fine-tuning, 0 to 1."""
        name = search_settings(self.recipe).objective
        self.train_task_teacher()
        # All trials share the teacher of the task.
        shared = self._run.folder / "tasks" / name / score_table.TEACHER
        copy = trial.folder / "tasks" / name / score_table.TEACHER
        if not copy.is_dir():
            with disk.writing(trial.folder):
                shutil.copytree(shared, copy, copy_function=os.link)
        run = Run(trial.recipe, trial.folder, self._run.progress)
        encoders = {
            score_table.STUDENT: trial.model.student,
            score_table.TEACHER: self.teacher,
        }
        train_rows(run, self._task, encoders, [score_table.STUDENT])
        scores = read_best_scores(run, name, score_table.STUDENT)
        shutil.rmtree(trial.folder / "tasks", ignore_errors=True)
        return statistics.median(scores)

    def train_task_teacher(self) -> None:
        """Fine-tunes the teacher on the objective's task, unless done."""
        name = search_settings(self.recipe).objective
        if name in search_section.HELD_OUT_OBJECTIVES:
            return
        encoders = {score_table.TEACHER: self.teacher}
        train_rows(self._run, self._task, encoders, [score_table.TEACHER])

    @functools.cached_property
    def _task(self) -> BuiltTask:
        """The data of the objective's task."""
        name = search_settings(self.recipe).objective
        self._run.progress.say(f"Read task: {name}")
        return add_unlabelled(self._run, load_task(self.recipe, name))


class HeldOutScores(keras.callbacks.Callback):
    """Scores the student on held-out text at the end of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self._scores: list[dict[str, float]] = []

    def measure(self, student: Task) -> dict[str, float]:
        """Returns the student's scores, by half and name."""
        raise NotImplementedError

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the scores to the logs, for the tuner's callbacks."""
        found = self.measure(self.model.student)
        self._scores.append(found)
        if logs is not None:
            logs.update(found)

    def best(self, objective: str) -> dict[str, float]:
        """Returns the scores of the best epoch; for a task, of the last."""
        if objective not in search_section.HELD_OUT_OBJECTIVES:
            return dict(self._scores[-1])
        sign = -1 if find_metric(objective).better == "down" else 1
        key = f"{CHOSEN}_{objective}"
        return dict(max(self._scores, key=lambda found: sign * found[key]))

    def get_training_state(self) -> list[dict[str, float]]:
        """Returns the state of this callback for `TrainingState`."""
        return self._scores

    def set_training_state(self, state: list[dict[str, float]]) -> None:
        """Restores what `get_training_state` returned."""
        self._scores = list(state)


class _MaskedLMScores(HeldOutScores):
    """Loss and agreement with the teacher on masked words."""

    def __init__(
        self, teacher: MaskedLM, halves: dict[str, tf.data.Dataset]
    ) -> None:
        super().__init__()
        self._teacher = teacher
        self._halves = halves

    def measure(self, student: Task) -> dict[str, float]:
        """Returns the student's scores, by half and name."""
        found = {}
        for half, batches in self._halves.items():
            scores = evaluation.score_masked_lm(student, self._teacher, batches)
            for name in search_section.HELD_OUT_OBJECTIVES:
                found[f"{half}_{name}"] = float(getattr(scores, name))
        return found


def get_recipe_values(recipe: config.Recipe) -> dict[str, Any]:
    """Returns the recipe's own values for the searched keys."""
    values = {}
    for key in search_settings(recipe).space:
        value: Any = recipe.model_dump()
        for name in key.split("."):
            value = value[name] if isinstance(value, dict) else None
        values[key] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    """Converts a value for TensorBoard's table of hyperparameters."""
    if isinstance(value, (bool, int, float, str)):
        return value
    return search_section.label(value)


def _halves(
    recipe: config.Recipe, prepared: data.PreparedCorpus
) -> dict[str, tf.data.Dataset]:
    """Splits held-out batches alternately, for choosing and for checking."""
    batches = make_held_out_batches(recipe, prepared)
    rows = min(recipe.evaluate.sequences or math.inf, len(prepared.held_out))
    count = math.ceil(rows / recipe.evaluate.batch_size)
    if count < 2:
        raise ValueError(
            "A search needs two batches of held-out text, one to choose a "
            f"trial and one to check it; there are {count}. Add text, raise "
            "`data.held_out_fraction` or lower `evaluate.batch_size`."
        )
    return {CHOSEN: batches.shard(2, 0), CHECKED: batches.shard(2, 1)}
