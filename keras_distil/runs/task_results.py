"""Results of a run's tasks, each training in its own folder."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from keras_distil.evaluation import significance
from keras_distil.runs import score_table
from keras_distil.runs.run_folder import STUDENT_FILE, Run, read_text
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.tasks import BuiltTask
from keras_distil.utils import disk

MODEL_FILE = "model.keras"
RESULT_FILE = "result.json"
PREDICTIONS_FILE = "predictions.safetensors"
# The end of the name of a part's outputs, where they are kept beside answers.
OUTPUTS = "_outputs"


@dataclasses.dataclass(frozen=True)
class TaskTraining:
    """One model on one task with one seed, and its folder."""

    task: str
    row: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Name of the training in logs and progress."""
        return f"{self.task}/{self.row}/seed_{self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether the result, which is written last, exists."""
        return (self.folder / RESULT_FILE).is_file()


def plan_training(run: Run, task: str, row: str, seed: int) -> TaskTraining:
    """Names a training and its folder.

    A teacher that is given, and a linear model, are the same for all seeds:
    those of the first.
    """
    is_given = row == score_table.TEACHER and run.recipe.teacher.is_given
    if is_given or row == score_table.NGRAMS:
        seed = finetune_section(run.recipe).of_task(task).seeds[0]
    folder = run.folder / "tasks" / task / row / f"seed_{seed}"
    return TaskTraining(task, row, seed, folder)


def plan_teachers(run: Run, planned: TaskTraining) -> list[TaskTraining]:
    """Names the trainings of the teachers that a student learns from.

    That of its own seed is the first: a student that is cut from it goes on
    with its hidden states, which those of another seed do not resemble.
    """
    settings = finetune_section(run.recipe)
    seeds = [planned.seed]
    if settings.teacher_seeds == "all":
        others = settings.of_task(planned.task).seeds
        seeds += [seed for seed in others if seed != planned.seed]
    return [
        plan_training(run, planned.task, score_table.TEACHER, seed)
        for seed in seeds
    ]


def plan_row(run: Run, task: str, row: str) -> list[TaskTraining]:
    """Names the different trainings of a row on a task."""
    seeds = finetune_section(run.recipe).of_task(task).seeds
    return list(
        dict.fromkeys(plan_training(run, task, row, seed) for seed in seeds)
    )


def read_best_scores(run: Run, task: str, row: str) -> list[float]:
    """Reads the score that chose a row's epoch on a task, for every seed.

    It is of the development set, or of the part of the training set that
    `finetune.selection` takes out.

    Raises:
        ValueError: if a result is missing or damaged.
    """
    return [_best_score(planned) for planned in plan_row(run, task, row)]


def _best_score(planned: TaskTraining) -> float:
    try:
        result = json.loads(read_text(planned.folder / RESULT_FILE))
        own = "selection_scores"
        return float(max(result[own if own in result else "dev_scores"]))
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise _damaged(planned) from error


def find_best_student(run: Run, task: str) -> Path:
    """Finds the file of a task's student with the best score.

    The score is the one that chose its epoch.

    Args:
        run: a run with finished tasks.
        task: one of them.

    Raises:
        ValueError: if its results are damaged.
    """
    best = float("-inf"), Path()
    for planned in plan_row(run, task, score_table.STUDENT):
        score = _best_score(planned)
        if score > best[0]:
            best = score, planned.folder / MODEL_FILE
    return best[1]


def find_student(run: Run, task: str | None) -> tuple[str | None, Path]:
    """Finds the student that a command means by a run alone.

    That is the one that was distilled on text; in a run of tasks alone, it is
    a task's best one.

    Args:
        run: the run.
        task: the task that is asked for, if any.

    Returns:
        The student's task, None if it was distilled on text, and its file.

    Raises:
        FileNotFoundError: if the task's students are not finished.
        ValueError: if the run has no such task, has several and none is asked
            for, or results are damaged.
    """
    finetune = run.recipe.finetune
    tasks = []
    if finetune is not None and score_table.STUDENT in finetune.rows:
        tasks = finetune.task_names
    if task is None and (run.recipe.distill is not None or not tasks):
        return None, run.folder / STUDENT_FILE
    if task is None and len(tasks) > 1:
        raise ValueError(
            f"{run.folder} has a student of each task; add --task with one of "
            f"{', '.join(tasks)}."
        )
    name = task or tasks[0]
    if name not in tasks:
        raise ValueError(
            "`--task` without --model must be a task with a student in the run "
            f"{run.folder}: {', '.join(tasks) or 'it has none'}. Received: "
            f"{name!r}."
        )
    planned = plan_row(run, name, score_table.STUDENT)
    left = [each.name for each in planned if not each.is_finished]
    if left:
        raise FileNotFoundError(
            f"The students of {name} in {run.folder} are not finished: "
            f"{left[0]} is missing."
        )
    return name, find_best_student(run, name)


def write_result(
    run: Run,
    planned: TaskTraining,
    predictions: dict[str, np.ndarray],
    result: dict[str, Any],
) -> None:
    """Writes predictions and scores; deletes the training states."""
    if not run.writes:
        return
    path = planned.folder / PREDICTIONS_FILE
    partial = path.with_name(f".{path.name}")
    with disk.replacing(path, partial):
        partial.write_bytes(save(predictions))
    # Written last: a folder with this file is finished.
    run.write_json(planned.folder / RESULT_FILE, result)
    shutil.rmtree(planned.folder / "checkpoints", ignore_errors=True)


def read_task_result(
    trainings: list[TaskTraining], task: BuiltTask
) -> score_table.TaskResult:
    """Reads the seeds of one row on one task."""
    labels = task.evaluator.labels
    splits = list(labels)
    predictions, metrics = [], []
    for planned in trainings:
        found, result = _read(planned, splits)
        predictions.append(np.concatenate([found[split] for split in splits]))
        metrics.append(
            {
                name if len(splits) == 1 else f"{split}_{name}": value
                for split in splits
                for name, value in result["metrics"][split].items()
            }
        )
    return score_table.TaskResult(
        significance.ScoredExamples(
            np.concatenate([labels[split] for split in splits]),
            np.stack(predictions),
        ),
        metrics,
    )


def read_outputs(planned: TaskTraining, splits: list[str]) -> np.ndarray | None:
    """Reads the outputs of a row without a model.

    Args:
        planned: a finished training.
        splits: the parts of the development set.

    Returns:
        float32, (texts, outputs), or (tokens, outputs) of words and spans;
        None if they are not kept.

    Raises:
        ValueError: if they are damaged.
    """
    found, _ = _read(planned, splits)
    names = [split + OUTPUTS for split in splits]
    if not set(names) <= set(found):
        return None
    return np.concatenate([found[name] for name in names])


def _read(
    planned: TaskTraining, splits: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write_result` wrote.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        predictions = load((planned.folder / PREDICTIONS_FILE).read_bytes())
        result = json.loads(read_text(planned.folder / RESULT_FILE))
        missing = set(splits) - set(result["metrics"])
        missing |= set(splits) - set(predictions)
    except FileNotFoundError as error:
        raise _damaged(planned) from error
    # Training results are not discarded for lack of memory or permissions.
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(planned) from error
    if missing:
        raise _damaged(planned)
    return predictions, result


def _damaged(planned: TaskTraining) -> ValueError:
    return ValueError(
        f"The results in {planned.folder} are damaged. Remove the folder, and "
        "the same command trains this model again."
    )
