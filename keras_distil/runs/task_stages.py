"""The second step of a run: every model on every task, and their table."""

import dataclasses
import difflib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tokenizers
from keras_hub.models import MaskedLM, Task
from safetensors.numpy import load, save

from keras_distil import callbacks, config, data, evaluation
from keras_distil.evaluation import significance
from keras_distil.evaluation.calibration import first_choices
from keras_distil.models import load_task_model, task_model
from keras_distil.models.task_model import kind_of
from keras_distil.runs import build, score_table, trainers
from keras_distil.runs.run_folder import LOGS, METRICS_FILE, Run, read_text
from keras_distil.utils import disk

MODEL_FILE = "model.keras"
RESULT_FILE = "result.json"
PREDICTIONS_FILE = "predictions.safetensors"


@dataclasses.dataclass(frozen=True)
class _Training:
    """One model on one task with one seed, and where it is kept."""

    task: str
    row: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """What logs and progress call it."""
        return f"{self.task}/{self.row}/seed_{self.seed}"


def read_tasks(run: Run) -> dict[str, build.BuiltTask]:
    """All data of the tasks: what is wrong with it shows before long work."""
    settings = build.finetune_section(run.recipe)
    run.progress.say(f"Read tasks: {', '.join(settings.tasks)}")
    tasks: dict[str, build.BuiltTask] = {}
    for name in settings.tasks:
        task = tasks[name] = build.task(run.recipe, name)
        run.progress.say(
            f"{name}: {len(task.train):,} training examples, "
            f"{task.unknown[0] / max(task.unknown[1], 1):.1%} of the tokens "
            "are [UNK]"
        )
        for line in data.unknown_warnings(*task.unknown, f"the task {name}"):
            run.progress.warn(line)
    return tasks


def finetune(
    run: Run,
    tasks: Mapping[str, build.BuiltTask],
    encoders: Mapping[str, MaskedLM],
    costs: Mapping[str, score_table.Costs],
) -> score_table.ResultTable:
    """Trains and scores every row on every task with every seed.

    What was finished in an earlier start is found done.

    Args:
        run: the run.
        tasks: as from `read_tasks`.
        encoders: by row, the models that the tasks start from.
        costs: by row.

    Returns:
        The table of all scores.
    """
    settings = build.finetune_section(run.recipe)
    results: dict[str, dict[str, score_table.TaskResult]] = {
        row: {} for row in settings.rows
    }
    metrics: dict[str, significance.Metric] = {}
    # ELMo stands in the table by its costs alone.
    rows = [row for row in settings.rows if row != score_table.ELMO]
    for name, task in tasks.items():
        train_rows(run, task, encoders, rows)
        for row in rows:
            found = [
                _planned(run, name, row, seed)
                for seed in settings.of_task(name).seeds
            ]
            results[row][name] = _task_result(found, task)
        if task.metric is not None:
            metrics[name] = task.metric
    return score_table.make_table(
        results, costs, score_table.PUBLISHED, metrics=metrics
    )


def train_rows(
    run: Run,
    task: build.BuiltTask,
    encoders: Mapping[str, MaskedLM],
    rows: Sequence[str],
) -> None:
    """Trains rows on one task with every seed, or finds that done.

    Args:
        run: the run.
        task: the task.
        encoders: by row, the models to start from; the teacher too, if
            students learn from examples that it makes.
        rows: which to train. A student's teacher comes before it.
    """
    settings = build.finetune_section(run.recipe)
    left = [
        planned
        for seed in settings.of_task(task.name).seeds
        for row in rows
        if not _is_finished(planned := _planned(run, task.name, row, seed))
    ]
    more = task.train
    if settings.augment_copies and any(
        planned.row == score_table.STUDENT for planned in left
    ):
        more = _augmented(run, task, encoders[score_table.TEACHER])
    for planned in left:
        train = more if planned.row == score_table.STUDENT else task.train
        _train(run, planned, encoders[planned.row], task, train)


def dev_scores(run: Run, task: str, row: str) -> list[float]:
    """The best development score of a row on a task, of every seed.

    Raises:
        ValueError: if a result is missing or damaged.
    """
    seeds = build.finetune_section(run.recipe).of_task(task).seeds
    return [_best_score(_planned(run, task, row, seed)) for seed in seeds]


def _best_score(planned: _Training) -> float:
    try:
        result = json.loads(read_text(planned.folder / RESULT_FILE))
        return float(max(result["dev_scores"]))
    except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
        raise _damaged(planned) from error


def best_student(run: Run, task: str) -> Path:
    """The file of a task's student with the best development score.

    Args:
        run: a run whose tasks are finished.
        task: one of them.

    Raises:
        ValueError: if its results are damaged.
    """
    best = float("-inf"), Path()
    for seed in build.finetune_section(run.recipe).of_task(task).seeds:
        planned = _planned(run, task, score_table.STUDENT, seed)
        score = _best_score(planned)
        if score > best[0]:
            best = score, planned.folder / MODEL_FILE
    return best[1]


def calibration(
    run: Run, tasks: Mapping[str, build.BuiltTask]
) -> dict[str, dict[str, float]]:
    """How far confidence and accuracy are apart, of tasks with classes.

    Args:
        run: a run whose tasks are finished.
        tasks: as from `read_tasks`.

    Returns:
        By task and row, the expected calibration error of the best student
        and of the teacher of its seed on the development set.
    """
    settings = build.finetune_section(run.recipe)
    if score_table.STUDENT not in settings.rows:
        return {}
    found: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        evaluator = task.evaluator
        if task.kind != "classification" or not isinstance(
            evaluator, evaluation.GLUEEvaluator
        ):
            continue
        student = best_student(run, name)
        beside = student.parents[2] / score_table.TEACHER / student.parent.name
        found[name] = {
            row: _calibration(load_task_model(path), evaluator)
            for row, path in (
                (score_table.TEACHER, beside / MODEL_FILE),
                (score_table.STUDENT, student),
            )
        }
    return found


def _calibration(model: Task, evaluator: evaluation.GLUEEvaluator) -> float:
    labels, outputs = evaluator.labels, evaluator.outputs(model)
    chosen, confidences = first_choices(np.concatenate([*outputs.values()]))
    right = chosen == np.concatenate([labels[split] for split in outputs])
    return evaluation.expected_calibration_error(confidences, right)


def _is_finished(planned: _Training) -> bool:
    return (planned.folder / RESULT_FILE).is_file()


def _augmented(
    run: Run, task: build.BuiltTask, teacher: MaskedLM
) -> data.EncodedExamples:
    with run.progress.bar(f"Augment {task.name} (words)") as bar:
        return build.augmented(
            run.recipe, task.train, teacher, progress=bar.update_of
        )


def _planned(run: Run, task: str, row: str, seed: int) -> _Training:
    folder = run.folder / "tasks" / task / row / f"seed_{seed}"
    return _Training(task, row, seed, folder)


def _train(
    run: Run,
    planned: _Training,
    encoder: MaskedLM,
    task: build.BuiltTask,
    train: data.EncodedExamples,
) -> None:
    """Trains one model, scores its best epoch and writes both down."""
    started = time.perf_counter()
    keras.utils.set_random_seed(planned.seed)
    model = task_model(
        encoder,
        task.kind,
        task.outputs,
        dropout=build.finetune_section(run.recipe).dropout,
        labels=task.labels,
        seed=planned.seed,
    )
    teacher = None
    if planned.row == score_table.STUDENT:
        beside = planned.folder.parents[1] / score_table.TEACHER
        teacher = load_task_model(beside / planned.folder.name / MODEL_FILE)
    best = _fit(run, planned, model, teacher, task, train)
    predictions = task.evaluator.predictions(
        load_task_model(planned.folder / MODEL_FILE)
    )
    result = {
        "metrics": task.evaluator.metrics(predictions),
        "dev_scores": best.scores,
        "best_epoch": best.best_epoch + 1,
        "duration_s": round(time.perf_counter() - started, 1),
        "tokenizer": data.tokenizer_hash(build.tokenizer(run.recipe)),
    }
    _write(run, planned, predictions, result)
    if run.writes:
        callbacks.write_scores(
            run.folder / LOGS / planned.name,
            {"dev_score": max(best.scores)},
            step=best.best_epoch + 1,
        )
    run.progress.say(
        f"{planned.name}: {100 * max(best.scores):.1f} in epoch "
        f"{result['best_epoch']}"
    )


def _fit(
    run: Run,
    planned: _Training,
    model: Task,
    teacher: Task | None,
    task: build.BuiltTask,
    train: data.EncodedExamples,
) -> callbacks.BestEpoch:
    settings = build.task_settings(
        run.recipe,
        planned.task,
        examples=len(task.train),
        width=model.backbone.hidden_dim,
    )
    steps = -(-len(train) // settings.batch_size)
    trainer = build.task_trainer(
        run.recipe,
        model,
        task.kind,
        teacher=teacher,
        learning_rate=settings.learning_rate,
        steps=steps * settings.epochs,
    )
    with disk.writing(planned.folder):
        planned.folder.mkdir(parents=True, exist_ok=True)
    best = callbacks.BestEpoch(
        planned.folder / MODEL_FILE,
        task.evaluator.score,
        patience=settings.patience,
    )
    state = callbacks.TrainingState(
        planned.folder / "checkpoints",
        every_steps=run.recipe.checkpoint_steps,
    )
    total = steps * settings.epochs
    with run.progress.bar(f"Train {planned.name} (steps)", total) as bar:
        trainers.fit_steps(
            trainer,
            data.task_dataset(
                train, batch_size=settings.batch_size, seed=planned.seed
            ),
            steps=steps,
            epochs=settings.epochs,
            callbacks=[
                best,
                state,
                callbacks.TensorBoard(
                    run.folder / LOGS / planned.name,
                    texts={"recipe": callbacks.code_block(run.trained_recipe)},
                    hparams={
                        "task": planned.task,
                        "row": planned.row,
                        "seed": planned.seed,
                        "learning_rate": settings.learning_rate,
                        "batch_size": settings.batch_size,
                    },
                ),
                callbacks.MetricsLog(
                    run.folder / METRICS_FILE, stage=planned.name
                ),
                callbacks.ProgressBar(bar, state),
            ],
        )
    return best


def evaluate(
    recipe: config.Recipe,
    task_name: str,
    model_path: Path,
    submission: Path | None,
) -> dict[str, dict[str, float]]:
    """Scores a model that was fine-tuned on one of a recipe's tasks.

    Args:
        recipe: names the tokenizer, the data and its lengths.
        task_name: the task.
        model_path: a `.keras` file.
        submission: folder for what the test sets get; None for nothing.

    Returns:
        The task's metrics by development split, 0 to 1.

    Raises:
        ValueError: if the recipe lacks the task, the model is for another
            one, or the task has no form to hand in.
    """
    tasks = build.finetune_section(recipe).tasks
    if task_name not in tasks:
        near = difflib.get_close_matches(task_name, tasks, n=1, cutoff=0.0)
        raise ValueError(
            f"The recipe has no task {task_name!r}; the nearest is {near[0]!r}."
        )
    model = load_task_model(model_path)
    made = build.tokenizer(recipe, model=model_path)
    _check_vocabulary(model, made, model_path)
    task = build.task(recipe, task_name, its_tokenizer=made)
    outputs = getattr(model, "num_classes", 1)
    if kind_of(model) != task.kind or outputs != task.outputs:
        raise ValueError(
            f"`{model_path}` is for a {kind_of(model)} with {outputs} outputs; "
            f"{task_name} is a {task.kind} with {task.outputs}."
        )
    if submission is not None:
        if not isinstance(task.evaluator, evaluation.GLUEEvaluator):
            raise ValueError(f"{task_name} is not handed in to GLUE's server.")
        task.evaluator.write_submission(model, submission)
    return task.evaluator.evaluate(model)


def _check_vocabulary(
    model: Task, tokenizer: tokenizers.Tokenizer, path: Path
) -> None:
    """Refuses a tokenizer that the model cannot have been trained with."""
    if path.is_dir() and not any(
        (path / name).is_file() for name in data.TOKENIZER_FILES
    ):
        raise ValueError(
            f"`{path}` has no tokenizer, and another model's would give its "
            "words other ids. Copy the vocab.txt or tokenizer.json that "
            "belongs to it into the folder."
        )
    words = data.vocabulary_size(tokenizer)
    rows = model.backbone.vocabulary_size
    if words > rows:
        raise ValueError(
            f"The tokenizer has {words} entries, but `{path}` a vocabulary "
            f"of {rows}: the model is another teacher's."
        )
    if _trained_with(path) not in (None, data.tokenizer_hash(tokenizer)):
        raise ValueError(
            f"`{path}` was trained with another tokenizer than that of the "
            "recipe's teacher, whose ids would stand for other words. Give "
            "the recipe that trained it: recipe.yaml in its run's folder."
        )


def _trained_with(path: Path) -> str | None:
    """The hash of the tokenizer of a run's model; None if it is not known."""
    result = path.with_name(RESULT_FILE)
    if path.name != MODEL_FILE or not result.is_file():
        return None
    try:
        return json.loads(read_text(result)).get("tokenizer")
    except (ValueError, AttributeError, RecursionError):
        return None


def _write(
    run: Run,
    planned: _Training,
    predictions: dict[str, np.ndarray],
    result: dict[str, Any],
) -> None:
    """Keeps predictions and scores; drops the training states."""
    if not run.writes:
        return
    path = planned.folder / PREDICTIONS_FILE
    partial = path.with_name(f".{path.name}")
    with disk.replacing(path, partial):
        partial.write_bytes(save(predictions))
    # Last: a folder with this file is finished.
    run.write_json(planned.folder / RESULT_FILE, result)
    shutil.rmtree(planned.folder / "checkpoints", ignore_errors=True)


def _task_result(
    trainings: list[_Training], task: build.BuiltTask
) -> score_table.TaskResult:
    """The seeds of one row on one task."""
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


def _read(
    planned: _Training, splits: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `_write` has written.

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
    # Trained results are not thrown away for want of memory or rights.
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(planned) from error
    if missing:
        raise _damaged(planned)
    return predictions, result


def _damaged(planned: _Training) -> ValueError:
    return ValueError(
        f"The results in {planned.folder} are damaged. Remove the folder, and "
        "the same command trains this model again."
    )
