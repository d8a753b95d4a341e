"""A teacher that is fine-tuned already: `teacher.task_source`."""

import time
from collections.abc import Callable
from pathlib import Path

import keras
from keras_hub.models import Task

from keras_distil import config, data, models
from keras_distil.evaluation.constant_answers import NAMES, constant_score
from keras_distil.evaluation.labels import class_columns
from keras_distil.models import heads
from keras_distil.models.labels import labels_of, reorder_outputs
from keras_distil.models.presets import fetch_preset
from keras_distil.models.task_model import kind_of
from keras_distil.models.task_presets import leaves_kind_open
from keras_distil.runs import score_table
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.run_folder import Run
from keras_distil.runs.task_evaluation import check_tokenizer
from keras_distil.runs.task_results import (
    MODEL_FILE,
    plan_training,
    write_result,
)
from keras_distil.runs.tasks import BuiltTask
from keras_distil.utils import disk


def keep_given_teacher(run: Run, task: BuiltTask) -> None:
    """Puts the given teacher where a fine-tuned one would be, and scores it.

    Args:
        run: a run whose recipe has `teacher.task_source`.
        task: the recipe's only task.

    Raises:
        ValueError: if it is for another task, or scores no better than a
            constant answer.
    """
    planned = plan_training(run, task.name, score_table.TEACHER, seed=0)
    if planned.is_finished:
        return
    started = time.perf_counter()
    source = str(run.recipe.teacher.task_source)
    run.progress.say(f"Teacher of {task.name}, as given: {source}")
    teacher = load_given_teacher(run.recipe, task, say=run.progress.warn)
    path = planned.folder / MODEL_FILE
    partial = path.with_name(f".{MODEL_FILE}")
    with disk.replacing(path, partial):
        planned.folder.mkdir(parents=True, exist_ok=True)
        teacher.save(partial)
    predictions = task.evaluator.predictions(teacher)
    metrics = task.evaluator.metrics(predictions)
    score = task.evaluator.main_score(metrics)
    check_score(run, task, score, f"`teacher.task_source`, {source},")
    chosen_by = score if task.selection is None else task.chooser.score(teacher)
    result = {
        "metrics": metrics,
        f"{task.score_name}s": [chosen_by],
        "duration_s": round(time.perf_counter() - started, 1),
        "tokenizer": data.tokenizer_hash(load_tokenizer(run.recipe)),
    }
    write_result(run, planned, predictions, result)
    run.progress.say(f"{task.name}/teacher: {task.shown(score)}, as given")


def load_given_teacher(
    recipe: config.Recipe,
    task: BuiltTask,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> Task:
    """Loads the given teacher, with its outputs in the order of the task's.

    Args:
        recipe: a recipe with `teacher.task_source`.
        task: its task.
        say: called with a line for each thing that the teacher does not say
            and the task does.

    Raises:
        ValueError: if the teacher's task, labels or tokenizer differ.
    """
    source = str(recipe.teacher.task_source)
    teacher = models.load_task_model(source)
    heads.check_task_head(teacher, "teacher")
    if task.kind == "multi_label" and leaves_kind_open(teacher):
        teacher.is_multi_label = True
        say(
            f"{source} does not say whether its labels exclude each other: "
            f"they are taken not to, as in {task.name}."
        )
    _check_kind(teacher, task, source)
    if task.labels is not None and labels_of(teacher) is None:
        say(
            f"the outputs of {source} have no names: they are taken in the "
            f"order of the labels of {task.name}, {list(task.labels)!r:.200}."
        )
    _check_tokenizer(recipe, teacher, source)
    policy = keras.dtype_policies.get(recipe.precision)
    if teacher.dtype_policy != policy:
        teacher = models.with_dtype(teacher, recipe.precision)
    if task.labels is not None and labels_of(teacher) is not None:
        columns = class_columns(labels_of(teacher), task.labels, task.name)
        reorder_outputs(teacher, columns, task.labels)
    return teacher


def _check_kind(teacher: Task, task: BuiltTask, source: str) -> None:
    kind = kind_of(teacher)
    if getattr(teacher, "is_probability", False):
        raise ValueError(
            f"`teacher.task_source`, {source}, has one output, the logit of a "
            f"probability, and {task.name} is a {task.kind}. If it predicts a "
            "number, write `problem_type: regression` into its config.json, or "
            "save the preset of a model with activation=None."
        )
    if kind != task.kind:
        raise ValueError(
            f"`teacher.task_source` must be a model for a {task.kind}, as "
            f"{task.name} is. Received: {source}, a model for a {kind}."
        )
    outputs = getattr(teacher, "num_classes", task.outputs)
    if labels_of(teacher) is None and outputs != task.outputs:
        raise ValueError(
            f"`teacher.task_source` must have an output for each of the "
            f"{task.outputs} labels of {task.name}, {list(task.labels or ())}. "
            f"Received: {source} with {outputs} outputs without names."
        )


def _check_tokenizer(recipe: config.Recipe, teacher: Task, source: str) -> None:
    """Raises ValueError if the teacher read other tokens than the data has."""
    tokenizer = load_tokenizer(recipe)
    path = fetch_preset(source) or Path(source)
    if not path.is_dir():
        check_tokenizer(teacher, tokenizer, path)
    elif data.tokenizer_hash(tokenizer) != data.tokenizer_hash(
        load_tokenizer(recipe, model=path)
    ):
        raise ValueError(
            "`teacher.source`, whose tokenizer the models share, must have "
            f"that of `teacher.task_source`. Received: {recipe.teacher.source} "
            f"and {source}, whose tokens differ; remove `teacher.source`."
        )


def check_score(run: Run, task: BuiltTask, score: float, teacher: str) -> None:
    """Stops a run whose teacher has nothing to teach.

    Args:
        run: the run.
        task: the task.
        score: the teacher's score on the development set.
        teacher: what the teacher is, for the message.

    Raises:
        ValueError: if a constant answer scores as much, unless the recipe
            allows that.
    """
    constant = constant_score(task.evaluator, task.kind, task.outputs)
    if score > constant:
        return
    told = (
        f"{teacher} scores {task.shown(score)} on the development set of "
        f"{task.name}, no better than {NAMES[task.kind]} with "
        f"{task.shown(constant)}"
    )
    if not run.recipe.teacher.allow_chance_score:
        raise ValueError(
            f"{told}. Check that its labels mean what those of the data do, "
            "or go on with `teacher.allow_chance_score: true`."
        )
    run.progress.warn(f"{told}.")
