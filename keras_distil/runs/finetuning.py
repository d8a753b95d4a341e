"""Trains every model of a run on every task, and tabulates the scores."""

import dataclasses
import time
from collections.abc import Mapping, Sequence

import keras
from keras_hub.models import MaskedLM, Task

from keras_distil import callbacks, config, data, losses
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.evaluation import significance
from keras_distil.losses.settings import LossSettings
from keras_distil.models import load_task_model
from keras_distil.runs import score_table, trainers
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.fit import fit_steps
from keras_distil.runs.more_text import (
    count_epoch_steps,
    student_examples,
)
from keras_distil.runs.ngrams import score_ngrams
from keras_distil.runs.run_folder import LOGS, Run
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.student import copies_weights, make_task_model
from keras_distil.runs.table_making import make_table
from keras_distil.runs.task_results import (
    MODEL_FILE,
    TaskTraining,
    plan_row,
    plan_teachers,
    plan_training,
    read_task_result,
    write_result,
)
from keras_distil.runs.task_stages import (
    TaskStage,
    freeze_unreached,
    list_unfinished,
    plan_stages,
)
from keras_distil.runs.task_teacher import open_teacher, report_caches
from keras_distil.runs.tasks import BuiltTask
from keras_distil.teachers import CachedTaskTeacher
from keras_distil.training.distiller import Distiller
from keras_distil.utils import disk


def finetune(
    run: Run,
    tasks: Mapping[str, BuiltTask],
    encoders: Mapping[str, MaskedLM],
    costs: Mapping[str, score_table.Costs],
) -> score_table.ResultTable:
    """Trains and scores every row on every task with every seed.

    Trainings that an earlier start finished are reused.

    Args:
        run: the run.
        tasks: from `load_tasks`.
        encoders: by row, the models that the tasks start from, or models of
            the sizes of those that are cut from a teacher.
        costs: by row.

    Returns:
        The table of all scores.
    """
    settings = finetune_section(run.recipe)
    results: dict[str, dict[str, score_table.TaskResult]] = {
        row: {} for row in settings.rows
    }
    metrics: dict[str, significance.Metric] = {}
    # ELMo appears in the table with its costs only.
    others = [score_table.ELMO, score_table.NGRAMS]
    if run.recipe.teacher.predictions is not None:
        others.append(score_table.TEACHER)
    rows = [row for row in settings.rows if row not in others]
    report_caches(run, tasks, encoders)
    later = sum(_updates_left(run, x, encoders, rows) for x in tasks.values())
    for name, task in tasks.items():
        later -= _updates_left(run, task, encoders, rows)
        train_rows(run, task, encoders, rows, later=later)
        if score_table.NGRAMS in settings.rows:
            score_ngrams(run, task)
        for row in results:
            trainings = plan_row(run, name, row)
            # Predictions of some rows have no score, nor n-grams of some kinds.
            if all(planned.is_finished for planned in trainings):
                results[row][name] = read_task_result(trainings, task)
        if task.metric is not None:
            metrics[name] = task.metric
    cut = {
        row: [x for x in tasks if copies_weights(run.recipe, row, x, encoders)]
        for row in rows
    }
    return make_table(
        {x: y for x, y in results.items() if y or x == score_table.ELMO},
        costs,
        # Beside tasks of one's own, these say nothing.
        score_table.PUBLISHED
        if set(tasks) & score_table.PUBLISHED_TASKS
        else (),
        metrics=metrics,
        selection=settings.selection,
        cut=[row for row in rows if cut[row]],
        cut_tasks=[x for x in tasks if any(x in each for each in cut.values())],
        errors=[x for x in metrics if tasks[x].counts_errors],
    )


def train_rows(
    run: Run,
    task: BuiltTask,
    encoders: Mapping[str, MaskedLM],
    rows: Sequence[str],
    *,
    later: int = 0,
) -> None:
    """Trains rows on one task with every seed, or reuses finished trainings.

    Args:
        run: the run.
        task: the task.
        encoders: by row, the models to start from, including the teacher if it
            augments the students' examples.
        rows: the rows to train, with the teacher of a student.
        later: updates of trainings on later tasks.
    """
    left = _trainings_left(run, task, rows)
    later += _updates_left(run, task, encoders, rows)
    more: data.EncodedExamples | data.Mixture = task.train
    if any(planned.row == score_table.STUDENT for planned in left):
        more = student_examples(run, task, encoders)
    for planned in left:
        train = more if planned.row == score_table.STUDENT else task.train
        encoder = encoders[planned.row]
        later -= _count_updates(run, task, encoder, planned.row)
        _train(run, planned, encoder, task, train, later)


def _trainings_left(
    run: Run, task: BuiltTask, rows: Sequence[str]
) -> list[TaskTraining]:
    # Others may begin as layers of the teacher, or learn from it.
    in_order = sorted(rows, key=lambda row: row != score_table.TEACHER)
    planned = [
        plan_training(run, task.name, row, seed)
        for seed in finetune_section(run.recipe).of_task(task.name).seeds
        for row in in_order
    ]
    if finetune_section(run.recipe).teacher_seeds == "all":
        # Each student learns from the teachers of all seeds.
        planned.sort(key=lambda each: each.row != score_table.TEACHER)
    return [training for training in planned if not training.is_finished]


def _updates_left(
    run: Run,
    task: BuiltTask,
    encoders: Mapping[str, MaskedLM],
    rows: Sequence[str],
) -> int:
    """Counts the updates of a task's unfinished trainings, at most."""
    return sum(
        _count_updates(run, task, encoders[planned.row], planned.row)
        for planned in _trainings_left(run, task, rows)
    )


def _count_updates(
    run: Run, task: BuiltTask, encoder: MaskedLM, row: str
) -> int:
    settings = _settings_of(run, task, encoder)
    steps = count_epoch_steps(run.recipe, task, row, settings.batch_size)
    return settings.epochs * steps * _slowness(run, task.name, row)


def _slowness(run: Run, task: str, row: str) -> int:
    """How many updates of a teacher an update takes at most.

    The teacher's forward pass is a third of its update, and a student is not
    larger.
    """
    settings = finetune_section(run.recipe)
    if row != score_table.STUDENT or settings.teacher_seeds == "own":
        return 1
    return -(-(2 + len(settings.of_task(task).seeds)) // 3)


def _settings_of(
    run: Run, task: BuiltTask, encoder: MaskedLM | Task
) -> trainers.TaskDefaults:
    return task_settings(
        run.recipe,
        task.name,
        examples=len(task.train),
        width=encoder.backbone.hidden_dim,
        kind=task.kind,
    )


def _train(
    run: Run,
    planned: TaskTraining,
    encoder: MaskedLM,
    task: BuiltTask,
    train: data.EncodedExamples | data.Mixture,
    later: int,
) -> None:
    """Trains one model, scores its best epoch and writes both to disk."""
    started = time.perf_counter()
    keras.utils.set_random_seed(planned.seed)
    model = make_task_model(run, planned, encoder, task)
    teachers = []
    if planned.row == score_table.STUDENT:
        teachers = [
            open_teacher(run, each, each.folder / MODEL_FILE, train, model)
            for each in plan_teachers(run, planned)
        ]
    best = _fit(run, planned, model, teachers, task, train, later)
    predictions = task.evaluator.predictions(
        load_task_model(planned.folder / MODEL_FILE)
    )
    metrics = task.evaluator.metrics(predictions)
    result = {
        "metrics": metrics,
        f"{task.score_name}s": best.scores,
        "best_epoch": best.best_epoch + 1,
        "duration_s": round(time.perf_counter() - started, 1),
        "tokenizer": data.tokenizer_hash(load_tokenizer(run.recipe)),
    }
    write_result(run, planned, predictions, result)
    _tell_scores(run, planned, task, best, metrics)


def _tell_scores(
    run: Run,
    planned: TaskTraining,
    task: BuiltTask,
    best: callbacks.BestEpoch,
    metrics: Mapping[str, Mapping[str, float]],
) -> None:
    """Logs and says the scores of the best epoch."""
    chosen_by, epoch = max(best.scores), best.best_epoch + 1
    # One name for all tasks, so that one table has them all, and errors beside.
    scores = task.logged("score", chosen_by)
    told = f"{task.shown(chosen_by)} in epoch {epoch}"
    if task.selection is not None:
        of_dev = task.evaluator.main_score(metrics)
        scores |= task.logged("dev_score", of_dev)
        told += (
            " on the part of the training set that chooses, "
            f"{task.shown(of_dev)} on the development set"
        )
    if run.writes:
        callbacks.write_scores(
            run.folder / LOGS / planned.name, scores, step=epoch
        )
    run.progress.say(f"{planned.name}: {told}")


def _fit(
    run: Run,
    planned: TaskTraining,
    model: Task,
    teachers: Sequence[Task | CachedTaskTeacher],
    task: BuiltTask,
    train: data.EncodedExamples | data.Mixture,
    later: int,
) -> callbacks.BestEpoch:
    settings = _settings_of(run, task, model)
    steps = count_epoch_steps(
        run.recipe, task, planned.row, settings.batch_size
    )
    with disk.writing(planned.folder):
        planned.folder.mkdir(parents=True, exist_ok=True)
    best = callbacks.BestEpoch(
        planned.folder / MODEL_FILE,
        task.chooser.score,
        patience=settings.patience,
        log_name=task.logged_name,
        is_error=task.counts_errors,
    )
    own = finetune_section(run.recipe).of_task(task.name)
    stages = plan_stages(
        own.split_stages() if planned.row == score_table.STUDENT else [own],
        settings,
        planned.folder / "checkpoints",
    )
    for stage in list_unfinished(stages):
        _fit_stage(
            run,
            planned,
            stage,
            model,
            teachers,
            train,
            kind=task.kind,
            batch_size=settings.batch_size,
            steps=steps,
            first=[best] if stage.is_last else [],
            later=later,
        )
    return best


def _fit_stage(
    run: Run,
    planned: TaskTraining,
    stage: TaskStage,
    model: Task,
    teachers: Sequence[Task | CachedTaskTeacher],
    train: data.EncodedExamples | data.Mixture,
    *,
    kind: str,
    batch_size: int,
    steps: int,
    first: Sequence[keras.callbacks.Callback],
    later: int,
) -> None:
    cached = [x for x in teachers if isinstance(x, CachedTaskTeacher)]
    batches = data.task_dataset(
        train,
        batch_size=batch_size,
        seed=planned.seed,
        first_step=steps * stage.before,
        more_inputs=[each.reader(train) for each in cached],
    )
    with freeze_unreached(teachers, model, kind, stage, batches):
        fit_steps(
            run,
            planned.name,
            make_task_trainer(
                stage.settings,
                model,
                kind,
                teacher=teachers or None,
                learning_rate=stage.learning_rate,
                steps=steps * stage.epochs,
            ),
            batches,
            steps=steps,
            epochs=stage.epochs,
            first=first,
            states=stage.states,
            hparams={
                "task": planned.task,
                "row": planned.row,
                "seed": planned.seed,
                "learning_rate": stage.learning_rate,
                "batch_size": batch_size,
            },
            after=(later + steps * stage.after, "the trainings that follow"),
            before=steps * stage.before,
            part=stage.part,
        )


def task_settings(
    recipe: config.Recipe, task: str, *, examples: int, width: int, kind: str
) -> trainers.TaskDefaults:
    """Epochs, batch size and so on: from the recipe, else the defaults."""
    settings = finetune_section(recipe).of_task(task)
    defaults = trainers.task_defaults(examples, width, kind)
    given = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(defaults)
        if getattr(settings, field.name) is not None
    }
    return dataclasses.replace(defaults, **given)


def make_task_trainer(
    settings: FineTuneSection,
    student: Task,
    kind: str,
    *,
    teacher: Sequence[Task | CachedTaskTeacher] | None,
    learning_rate: float,
    steps: int,
) -> Distiller:
    """Makes the compiled Distiller that trains a model on a task."""
    named = settings.losses.by_name
    if teacher is None:
        named = {"label": LossSettings()}
    return trainers.task_trainer(
        student,
        trainers.make_optimizer(
            learning_rate=learning_rate,
            steps=steps,
            warmup_steps=round(settings.warmup_fraction * steps),
            weight_decay=settings.weight_decay,
        ),
        losses.make_losses(named, kind),
        teacher=teacher,
        clip_norm=settings.clip_norm,
        jit_compile=settings.jit_compile,
    )
