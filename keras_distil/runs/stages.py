"""The stages of a run, in the order of the data."""

import json
import time
from typing import Any, Literal

import keras
import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil import config
from keras_distil.benchmark import latency, size
from keras_distil.runs import (
    build,
    export_stages,
    preflight,
    score_table,
    task_stages,
    text_stages,
)
from keras_distil.runs.report import model_card, result_table, write_page
from keras_distil.runs.run_folder import (
    CHECKPOINTS,
    STUDENT_FILE,
    TEXT_REPORT,
    TWIN_FILE,
    Run,
    forget_if_nothing_was_done,
    keep_commits,
    read_text,
)
from keras_distil.training import distribution, snapshots
from keras_distil.utils import disk


def run_recipe(
    run: Run, only: Literal["distill", "finetune"] | None = None
) -> dict[str, Any]:
    """Runs the stages of a recipe, or finds them done.

    Args:
        run: as `open_run` returned it.
        only: "distill" for what learns from text, "finetune" for the tasks;
            None for everything.

    Returns:
        The report. A run with no stage left has it in `report.json`, too.

    Raises:
        ValueError: if the recipe does not have the stage, or an earlier one
            is not done.
    """
    if only == "distill":
        build.distill_section(run.recipe)
    elif only == "finetune":
        build.finetune_section(run.recipe)
    if run.report_path.is_file():
        run.progress.say(f"Already finished: {run.folder}")
        return json.loads(read_text(run.report_path))
    # What makes a run that was interrupted end with the same weights.
    tf.config.experimental.enable_op_determinism()
    try:
        with (
            distribution.lost_workers_told(),
            build.strategy(run.recipe).scope(),
        ):
            ports = distribution.open_ports_told()
            if ports is not None:
                run.progress.say(ports)
            report = _train(run, only)
    except Exception:
        forget_if_nothing_was_done(run)
        raise
    if run.writes:
        write_page(run.folder, report)
    if not _something_is_left(run.recipe, only):
        # Outside of the strategy's scope: what is read back is of no replica.
        _finish(run, report)
    return report


def _something_is_left(recipe: config.Recipe, only: str | None) -> bool:
    if only is None:
        return False
    if only == "distill" and recipe.finetune is not None:
        return True
    return recipe.export is not None


def _finish(run: Run, report: dict[str, Any]) -> None:
    """Exports, and writes down the whole run. Adds to the report."""
    if run.recipe.export is not None:
        report["export"] = export_stages.export_run(run)
    run.write_json(run.report_path, report)
    if run.writes:
        card = model_card.model_card(run.recipe, run.folder)
        disk.write_text(run.folder / model_card.CARD_FILE, card)
    _thin_out_checkpoints(run)


def _train(run: Run, only: str | None) -> dict[str, Any]:
    started = time.perf_counter()
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
    # First what is quick: what is wrong with it shows before the long work.
    preflight.check_formats(recipe)
    preflight.check_files(recipe)
    teacher = text_stages.TeacherInMemory(lambda: text_stages.load_teacher(run))
    keep_commits(run, build.hub_commits(recipe))
    if recipe.distill is not None and found is None:
        build.student(recipe, teacher.model)
    encoders = _distilled_encoders(run, teacher.model)
    tasks: dict[str, build.BuiltTask] = {}
    if recipe.finetune is not None and only != "distill":
        tasks = task_stages.read_tasks(run)
    report: dict[str, Any] = {"name": recipe.name}
    if reads_text and found is None:
        text_stages.run_on_text(run, teacher, report)
        report["duration_s"] = round(time.perf_counter() - started, 1)
        run.write_json(run.folder / TEXT_REPORT, report)
    elif reads_text and found is not None:
        run.progress.say(f"Found distilled: {run.folder / STUDENT_FILE}")
        report = {**found, "name": recipe.name}
        started -= report["duration_s"]
        if recipe.teacher.train is not None:
            teacher.train(run, text_stages.prepare(run))
    if recipe.finetune is not None and only != "distill":
        encoders = {
            **_encoders_of_run(run, teacher.model),
            **encoders,
            "teacher": teacher.model,
        }
        report["tasks"] = _run_on_tasks(run, tasks, encoders)
        report["calibration"] = task_stages.calibration(run, tasks)
    report["duration_s"] = round(time.perf_counter() - started, 1)
    return report


def _text_report(run: Run) -> dict[str, Any] | None:
    """What the first step of this run found; None if it is not done."""
    # Workers do the same, whichever of them writes.
    if distribution.worker_index()[1] > 1:
        return None
    distills = run.recipe.distill is not None
    if distills and not (run.folder / STUDENT_FILE).is_file():
        return None
    try:
        report = json.loads(read_text(run.folder / TEXT_REPORT))
        whole = type(report["duration_s"]) in (int, float)
        whole = whole and isinstance(report["rows"]["teacher"], dict)
    # None is written yet, or it is damaged: it is made again.
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return report if whole else None


def _distilled_encoders(run: Run, teacher: MaskedLM) -> dict[str, MaskedLM]:
    """The students that the recipe says are distilled already."""
    settings = run.recipe.student
    if settings is None or run.recipe.finetune is None:
        return {}
    sources = {
        score_table.STUDENT: settings.source,
        score_table.UNDISTILLED: settings.undistilled_source,
    }
    encoders: dict[str, MaskedLM] = {}
    for row, source in sources.items():
        if source is None or row not in run.recipe.finetune.rows:
            continue
        encoder = build.task_encoder(run.recipe, source, teacher)
        positions = encoder.backbone.max_sequence_length
        preflight.check_lengths(
            run.recipe, positions, f"the student in {source}"
        )
        encoders[row] = encoder
    return encoders


def _encoders_of_run(run: Run, teacher: MaskedLM) -> dict[str, MaskedLM]:
    """The students that this run has distilled."""
    files = {
        score_table.STUDENT: STUDENT_FILE,
        score_table.UNDISTILLED: TWIN_FILE,
    }
    return {
        row: build.task_encoder(run.recipe, str(run.folder / name), teacher)
        for row, name in files.items()
        if (run.folder / name).is_file()
    }


def _run_on_tasks(
    run: Run,
    tasks: dict[str, build.BuiltTask],
    encoders: dict[str, MaskedLM],
) -> dict[str, Any]:
    """Fine-tunes all rows; returns their table."""
    costs = _task_costs(run, encoders)
    made = task_stages.finetune(run, tasks, encoders, costs)
    if run.writes:
        disk.write_text(
            run.folder / "report.md", result_table.to_markdown(made)
        )
    return json.loads(made.to_json())


def _task_costs(
    run: Run, encoders: dict[str, MaskedLM]
) -> dict[str, score_table.Costs]:
    """Parameters, size, and latency side by side, of every row."""
    run.progress.say("Measure latency")
    length = run.recipe.evaluate.latency_length
    measured: dict[str, keras.Model] = dict(encoders)
    rows: list[str] = list(build.finetune_section(run.recipe).rows)
    calls = {}
    for row in rows:
        if row == score_table.ELMO:
            measured[row] = build.elmo()
            calls[row] = latency.elmo_call(measured[row], length)
        else:
            calls[row] = latency.masked_lm_encoder_call(encoders[row], length)
    milliseconds = latency.measure_latency_ms(calls)
    return {
        row: score_table.Costs(
            parameters=size.parameter_count(measured[row]),
            size_mb=round(size.size_mb(measured[row]), 1),
            latency_ms=round(milliseconds[row], 2),
        )
        for row in rows
    }


def _thin_out_checkpoints(run: Run) -> None:
    """Keeps one training state of each stage of a finished run."""
    folder = run.folder / CHECKPOINTS
    if run.writes and folder.is_dir():
        for stage in folder.iterdir():
            snapshots.keep_newest(stage, 1)
