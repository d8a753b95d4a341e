"""The stages of a run, in the order of the data."""

import json
import time
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil import config
from keras_distil.runs import preflight, run_folder
from keras_distil.runs.corpus import prepare_corpus
from keras_distil.runs.costs import measure_costs, measure_text_costs
from keras_distil.runs.details.making import describe_tasks
from keras_distil.runs.distillation import count_steps, distill
from keras_distil.runs.embeddings.distillation import distill_embeddings
from keras_distil.runs.embeddings.teacher import load_checked_embedder
from keras_distil.runs.exports import export_run
from keras_distil.runs.finetuning import finetune
from keras_distil.runs.given_files import check_given_files
from keras_distil.runs.given_predictions import keep_given_predictions
from keras_distil.runs.given_teacher import keep_given_teacher
from keras_distil.runs.more_text import add_unlabelled
from keras_distil.runs.report import model_card, result_table, write_page
from keras_distil.runs.run_folder import (
    CHECKPOINTS,
    STUDENT_FILE,
    TEXT_REPORT,
    Run,
    forget_if_nothing_was_done,
    keep_commits,
    read_text,
)
from keras_distil.runs.scores import kept_share, score_on_text
from keras_distil.runs.sections import distill_section, finetune_section
from keras_distil.runs.settled import settle_precision, with_settled
from keras_distil.runs.student import (
    load_given_students,
    load_students_of_run,
    make_student,
    stand_in_students,
)
from keras_distil.runs.tasks import BuiltTask, load_tasks
from keras_distil.runs.teacher import (
    TeacherInMemory,
    find_hub_commits,
    keep_adapter_scores,
    load_checked_teacher,
)
from keras_distil.training import distribution, snapshots
from keras_distil.utils import disk


def run_recipe(
    run: Run, only: Literal["distill", "finetune"] | None = None
) -> dict[str, Any]:
    """Runs the stages of a recipe, skipping those already done.

    Args:
        run: as returned by `open_run`.
        only: "distill" for everything that learns from text, "finetune" for the
            tasks; None for everything.

    Returns:
        The report. A run with no stages left also has it in `report.json`.

    Raises:
        ValueError: if the recipe does not have the stage, or an earlier one is
            not done.
    """
    if only == "distill":
        distill_section(run.recipe)
    elif only == "finetune":
        finetune_section(run.recipe)
    if run.report_path.is_file():
        run.progress.say(f"Already finished: {run.folder}")
        report = json.loads(read_text(run.report_path))
        # They come last: the run may have been killed before.
        if not all(path.is_file() for path in _shown(run)):
            _show(run, report)
        return report
    # Makes an interrupted run end with the same weights.
    tf.config.experimental.enable_op_determinism()
    try:
        with (
            distribution.report_lost_workers(),
            _make_strategy(run.recipe).scope(),
        ):
            ports = distribution.describe_open_ports()
            if ports is not None:
                run.progress.say(ports)
            report = _train(run, only)
    except Exception:
        forget_if_nothing_was_done(run)
        raise
    is_left = _something_is_left(run.recipe, only)
    if run.writes and (is_left or run.recipe.export is not None):
        # Exports, whose scores are in it too, come last, and may fail.
        write_page(run.folder, report)
    if not is_left:
        # Outside the strategy's scope: what is read back belongs to no replica.
        _finish(run, report)
    return report


def _something_is_left(recipe: config.Recipe, only: str | None) -> bool:
    if only is None:
        return False
    if only == "distill" and recipe.finetune is not None:
        return True
    return recipe.export is not None


def _finish(run: Run, report: dict[str, Any]) -> None:
    """Exports, and writes the report of the whole run. Adds to the report."""
    if run.recipe.export is not None:
        report["export"] = export_run(run)
    run.write_json(run.report_path, report)
    _show(run, report)
    _thin_out_checkpoints(run)


def _shown(run: Run) -> list[Path]:
    names = (run_folder.PAGE_FILE, model_card.CARD_FILE)
    return [run.folder / name for name in names]


def _show(run: Run, report: dict[str, Any]) -> None:
    """Writes what people read of a finished run."""
    if not run.writes:
        return
    page, card = _shown(run)
    write_page(run.folder, report)
    disk.write_text(card, model_card.model_card(run.recipe, run.folder))


def _train(run: Run, only: str | None) -> dict[str, Any]:
    started = time.perf_counter()
    settle_precision(run)
    recipe = run.recipe
    if recipe.finetune is not None and distribution.worker_index()[1] > 1:
        raise ValueError(
            "Tasks are trained by a single process. Distil on several workers "
            "with a recipe without `finetune`; then give its student to this "
            "one as `student.source`, without workers."
        )
    keras.utils.set_random_seed(recipe.seed)
    found = _text_report(run)
    reads_text = recipe.distill is not None or recipe.teacher.train is not None
    if reads_text and found is None and only == "finetune":
        raise ValueError(
            f"The run in {run.folder} has not distilled its student yet. Run "
            "`keras-distil distill` with the same recipe first, or "
            "`keras-distil run` for everything."
        )
    # Quick stages come first, so that their errors show before the long work.
    preflight.check_formats(recipe)
    check_given_files(recipe)
    embeds = recipe.distill is not None and recipe.distill.embeds
    load = load_checked_embedder if embeds else load_checked_teacher
    teacher = TeacherInMemory(lambda: load(run))
    keep_commits(run, find_hub_commits(recipe))
    if recipe.distill is not None and found is None and not embeds:
        make_student(recipe, teacher.model)
    encoders = load_given_students(run, teacher.model)
    tasks: dict[str, BuiltTask] = {}
    if recipe.finetune is not None and only != "distill":
        encoders |= stand_in_students(run, teacher.model)
        tasks = {
            name: add_unlabelled(run, task)
            for name, task in load_tasks(run).items()
        }
        for task in tasks.values() if recipe.teacher.is_given else ():
            if recipe.teacher.task_source is not None:
                keep_given_teacher(run, task)
            else:
                words = teacher.model.backbone.vocabulary_size
                keep_given_predictions(run, task, vocabulary_size=words)
    report: dict[str, Any] = {"name": recipe.name}
    if reads_text and found is None:
        work = distill_embeddings if embeds else _run_on_text
        work(run, teacher, report)
        report["duration_s"] = round(time.perf_counter() - started, 1)
        run.write_json(run.folder / TEXT_REPORT, report)
    elif reads_text and found is not None:
        run.progress.say(f"Found distilled: {run.folder / STUDENT_FILE}")
        run.recipe = with_settled(run.recipe, run.folder)
        report = {**found, "name": recipe.name}
        started -= report["duration_s"]
        if recipe.teacher.train is not None:
            teacher.train(run, prepare_corpus(run))
    if recipe.finetune is not None and only != "distill":
        encoders = {
            **load_students_of_run(run, teacher.model),
            **encoders,
            "teacher": teacher.model,
        }
        report["tasks"] = _run_on_tasks(run, tasks, encoders)
        report["calibration"] = {
            name: each.calibration.errors
            for name, each in describe_tasks(run, tasks).items()
            if each.calibration is not None
        }
    report["duration_s"] = round(time.perf_counter() - started, 1)
    return report


def _run_on_text(
    run: Run, teacher: TeacherInMemory, report: dict[str, Any]
) -> None:
    """Trains everything that learns from text: teacher, student and baseline.

    Adds to the report.
    """
    prepared = prepare_corpus(run)
    if not len(prepared.held_out):
        raise ValueError(
            "The corpus has no held-out sequence to score on. Add text, or "
            "raise `data.held_out_fraction`."
        )
    if run.recipe.teacher.train is not None:
        teacher.train(run, prepared)
    report["corpus"] = {
        "train_sequences": prepared.train_sequences,
        "held_out_sequences": len(prepared.held_out),
        "fingerprint": prepared.fingerprint,
    }
    if run.recipe.distill is None:
        model = teacher.model
        rows = {
            "teacher": score_on_text(run, "teacher", model, model, prepared)
        }
    else:
        # Before the training, whose minutes may depend on it.
        costs = measure_text_costs(run)
        rows = distill(run, prepared, teacher)
        for name, row in rows.items():
            row |= costs["teacher" if name == "teacher" else "student"]
        settings = distill_section(run.recipe)
        report["updates"] = count_steps(settings, prepared)
        report |= kept_share(run, rows, prepared)
    report["rows"] = rows
    if run.recipe.distill is None:
        keep_adapter_scores(run, rows["teacher"])


def _make_strategy(recipe: config.Recipe) -> tf.distribute.Strategy:
    """Makes the distribution strategy in whose scope the run is made."""
    settings = recipe.distill
    return distribution.make_strategy(
        settings.strategy if settings is not None else "auto"
    )


def _text_report(run: Run) -> dict[str, Any] | None:
    """Report of this run's first step; None if it is not done."""
    # All workers must decide alike, whichever of them writes.
    if distribution.worker_index()[1] > 1:
        return None
    distills = run.recipe.distill is not None
    if distills and not (run.folder / STUDENT_FILE).is_file():
        return None
    try:
        report = json.loads(read_text(run.folder / TEXT_REPORT))
        whole = type(report["duration_s"]) in (int, float)
        whole = whole and isinstance(report["rows"]["teacher"], dict)
    # If the report is missing or damaged, it is made again.
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return report if whole else None


def _run_on_tasks(
    run: Run,
    tasks: dict[str, BuiltTask],
    encoders: dict[str, MaskedLM],
) -> dict[str, Any]:
    """Fine-tunes all rows; returns their table."""
    costs = measure_costs(run, encoders)
    made = finetune(run, tasks, encoders, costs)
    if run.writes:
        disk.write_text(
            run.folder / "report.md", result_table.to_markdown(made)
        )
    return json.loads(made.to_json())


def _thin_out_checkpoints(run: Run) -> None:
    """Keeps one training state of each stage of a finished run."""
    folder = run.folder / CHECKPOINTS
    if run.writes and folder.is_dir():
        for stage in folder.iterdir():
            snapshots.keep_newest(stage, 1)
