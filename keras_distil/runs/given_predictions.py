"""A teacher that is known by its predictions alone: `teacher.predictions`."""

import copy
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil import config, data, teachers
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.evaluation.outputs import Inputs, OutputFunction
from keras_distil.evaluation.task_files import (
    DEV,
    TextSplit,
    TextTaskEvaluator,
    WordSplit,
)
from keras_distil.runs import score_table
from keras_distil.runs.given_teacher import check_score
from keras_distil.runs.run_folder import Run
from keras_distil.runs.task_results import (
    OUTPUTS,
    TaskTraining,
    plan_training,
    write_result,
)
from keras_distil.runs.tasks import UNLABELLED, BuiltTask
from keras_distil.teachers.predictions.reading import (
    Rows,
    check_complete,
    read_predictions,
)
from keras_distil.teachers.predictions.records import outputs_of
from keras_distil.teachers.predictions.teacher import keep_predictions
from keras_distil.utils import disk

# The folder of the kept predictions, in that of the teacher.
FOLDER = "predictions"
# What a student learns from, in the order of its sets of examples.
_LEARNED = ("train", UNLABELLED)


def given_paths(recipe: config.Recipe) -> list[Path]:
    """Returns the recipe's files of predictions."""
    return [Path(path) for path in recipe.teacher.predictions or ()]


def keep_given_predictions(
    run: Run, task: BuiltTask, *, vocabulary_size: int
) -> None:
    """Reads the predictions, keeps them in the run's folder and scores them.

    They get a row of the table if all development rows have predictions.

    Args:
        run: a run whose recipe has `teacher.predictions`.
        task: the recipe's only task, with its unlabelled examples.
        vocabulary_size: that of the run's models.

    Raises:
        ValueError: if the predictions are invalid, a row lacks its own, or
            they score no better than a constant answer.
    """
    planned = plan_training(run, task.name, score_table.TEACHER, seed=0)
    if (planned.folder / FOLDER).is_dir():
        return
    paths = given_paths(run.recipe)
    shown = ", ".join(map(str, paths))
    run.progress.say(f"Teacher of {task.name}: the predictions in {shown}")
    found = read_predictions(
        paths, task.kind, task.labels, task.keys, task=task.name
    )
    parts = [part for part in _LEARNED if part in task.keys]
    outputs = []
    for part in parts:
        check_complete(found[part], part, task.name)
        outputs.append(
            outputs_of(
                found[part],
                task.keys[part],
                _examples(task, part),
                _count(task),
            )
        )
    _score(run, task, planned, found)
    keep_predictions(
        outputs,
        student_sets(task),
        planned.folder / FOLDER,
        kind=task.kind,
        labels=task.labels,
        source=disk.sha256(
            disk.canonical([disk.file_sha256(path) for path in paths])
        ),
        vocabulary_size=vocabulary_size,
        task=task.name,
        say=run.progress.say,
    )


def open_predictions(run: Run, task: str) -> teachers.PredictedTeacher:
    """Opens what `keep_given_predictions` has kept."""
    planned = plan_training(run, task, score_table.TEACHER, seed=0)
    return teachers.PredictedTeacher(planned.folder / FOLDER)


def _count(task: BuiltTask) -> int:
    return 2 if task.kind == "span" else task.outputs


def _examples(task: BuiltTask, part: str) -> EncodedExamples:
    unlabelled = task.unlabelled
    if part == UNLABELLED and unlabelled is not None:
        return unlabelled
    return task.train


def student_sets(task: BuiltTask) -> EncodedExamples | data.Mixture:
    """Returns all sets of examples that a student learns from."""
    if task.unlabelled is None:
        return task.train
    return data.Mixture(task.train, None, task.unlabelled)


def _score(
    run: Run, task: BuiltTask, planned: TaskTraining, found: Mapping[str, Rows]
) -> None:
    """Scores the predictions for the development set, if there are any."""
    missing = sum(row is None for row in found[DEV])
    if missing:
        run.progress.warn(
            f"the predictions lack {missing:,} of the {len(found[DEV]):,} "
            f"development rows of {task.name}: the teacher has no row in the "
            "table."
        )
        return
    started = time.perf_counter()
    whole: Any = task.evaluator
    evaluator = copy.copy(whole)
    predictions: dict[str, np.ndarray] = {}
    kept: dict[str, np.ndarray] = {}
    for name, split in whole.splits.items():
        if all(row is not None for row in found[name]):
            evaluator.splits = {name: split}
            examples = split_examples(split)
            outputs = outputs_of(
                found[name], task.keys[name], examples, _count(task)
            )
            answer = stored_outputs(examples, outputs)
            predictions |= evaluator.predictions(answer)
            # What the report compares with the student.
            if isinstance(evaluator, TextTaskEvaluator):
                kept[name + OUTPUTS] = evaluator.outputs(answer)[name]
            elif name == DEV:
                kept[name + OUTPUTS] = np.concatenate(outputs)
    evaluator.splits = {name: whole.splits[name] for name in predictions}
    metrics = evaluator.metrics(predictions)
    score = evaluator.main_score(metrics)
    shown = ", ".join(map(str, given_paths(run.recipe)))
    check_score(run, task, score, f"`teacher.predictions`, {shown},")
    with disk.writing(planned.folder):
        planned.folder.mkdir(parents=True, exist_ok=True)
    result = {
        "metrics": metrics,
        f"{task.score_name}s": [score],
        "duration_s": round(time.perf_counter() - started, 1),
    }
    write_result(run, planned, predictions | kept, result)
    run.progress.say(f"{task.name}/teacher: {task.shown(score)}, as predicted")


def split_examples(split: Any) -> EncodedExamples:
    """Returns the examples of a part that scores models."""
    if isinstance(split, WordSplit):
        return split.encoded.examples
    if isinstance(split, TextSplit):
        return split.examples
    windows = split.windows
    # Only their tokens are compared.
    longest = max(map(len, windows.token_ids))
    return data.encode_windows(windows, pad_id=0, max_length=longest)


def stored_outputs(
    examples: EncodedExamples, outputs: Sequence[np.ndarray]
) -> OutputFunction:
    """Returns a function that stands in for a model on some examples.

    Args:
        examples: the examples.
        outputs: the outputs for each.

    Returns:
        A function from the examples' inputs to their outputs. Examples of
        equal tokens must come in their order.
    """
    known: dict[bytes, deque[np.ndarray]] = defaultdict(deque)
    for i, value in enumerate(outputs):
        ids = examples.token_ids[examples.starts[i] : examples.starts[i + 1]]
        known[ids.astype(np.int32).tobytes()].append(value)

    def run(inputs: Inputs) -> np.ndarray:
        values = []
        for ids, mask in zip(
            inputs["token_ids"], inputs["padding_mask"], strict=True
        ):
            queue = known[ids[: mask.sum()].astype(np.int32).tobytes()]
            values.append(queue[0])
            queue.rotate(-1)
        if values[0].ndim == 1:
            return np.stack(values)
        shape = (*inputs["token_ids"].shape, values[0].shape[1])
        padded = np.zeros(shape, np.float32)
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return padded

    return run
