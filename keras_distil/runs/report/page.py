"""Assembles `report.html` from the contents of a run's folder."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil.runs import comparison, run_folder, score_table
from keras_distil.runs.embeddings import neighbours
from keras_distil.runs.report import (
    embedding_text,
    export_table,
    figures,
    model_card,
    result_table,
    sections,
    task_details,
)
from keras_distil.runs.report.html_page import (
    ReportSection,
    escape,
    html_document,
)
from keras_distil.runs.report.learning import read_trainings
from keras_distil.runs.report.stage_text import describe_stages
from keras_distil.runs.settled import with_settled
from keras_distil.utils import disk

_QUOTED = (
    "\N{LEFT DOUBLE QUOTATION MARK}{}\N{RIGHT DOUBLE QUOTATION MARK}".format
)


def write_page(folder: Path, report: dict[str, Any]) -> Path:
    """Writes a run's page, replacing an earlier one.

    Args:
        folder: the run's folder.
        report: the run's report, as in `report.json`.

    Returns:
        Path of the page.

    Raises:
        OSError: if it cannot be written.
        ValueError: if the table of the tasks is damaged.
    """
    path = folder / run_folder.PAGE_FILE
    disk.write_text(path, make_page(folder, report))
    return path


def make_page(folder: Path, report: dict[str, Any]) -> str:
    """Makes the page of a run.

    Anything missing or damaged in the folder is left out.

    Args:
        folder: the run's folder.
        report: the run's report, as in `report.json`.

    Returns:
        HTML5, to be written as UTF-8.

    Raises:
        ValueError: if the table of the tasks is damaged.
    """
    return html_document(report["name"], list(_sections(folder, report)))


def _sections(folder: Path, report: dict[str, Any]) -> Iterator[ReportSection]:
    recipe = _recipe(folder)
    tasks = None
    if "tasks" in report:
        tasks = score_table.ResultTable.from_json(json.dumps(report["tasks"]))
    trainings = read_trainings(folder / run_folder.METRICS_FILE)
    compared = comparison.read(folder / comparison.SIDE_BY_SIDE_FILE)
    if recipe is not None:
        yield _summary(recipe, report)
    if "rows" in report:
        yield sections.held_out(report["rows"])
    if tasks is not None:
        yield result_table.to_html_section(tasks, "Tasks")
        yield from task_details.sections(report, folder)
    made = [
        figures.learning_curves(trainings),
        figures.schedules(recipe, trainings),
        figures.similarity(compared, recipe),
        figures.costs(report.get("rows", {}), tasks),
        export_table.section(report, folder),
        sections.samples(compared),
        embedding_text.neighbours(
            neighbours.read(folder / neighbours.NEIGHBOURS_FILE)
        ),
        sections.environment(folder / "environment.json"),
        _origin(folder),
    ]
    yield from (section for section in made if section is not None)


def _recipe(folder: Path) -> config.Recipe | None:
    try:
        return with_settled(config.load_recipe(folder / "recipe.yaml"), folder)
    except (ValueError, OSError):
        return None


def _summary(recipe: config.Recipe, report: dict[str, Any]) -> ReportSection:
    text = model_card.summary(recipe, report, mark=_QUOTED)
    parts = [f'<p class="lead">{escape(text)}</p>']
    rows = report.get("rows", {})
    if "baseline" in rows and "student" in rows:
        baseline, student = (
            f"{100 * rows[name]['mlm_accuracy']:.1f}%"
            for name in ("baseline", "student")
        )
        parts.append(
            "<p>The baseline, the same model trained on the same batches "
            f"without the teacher, finds {baseline} of the masked words; the "
            f"student {student}.</p>"
        )
    stages = describe_stages(recipe)
    if stages:
        parts.append(f"<p>{escape(' '.join(stages))}</p>")
    updates = ""
    if "updates" in report:
        updates = f"The student took {report['updates']:,} updates. "
    parts.append(
        f'<p class="notes">{updates}The whole run took '
        f"{report['duration_s']:,.0f} seconds.</p>"
    )
    return ReportSection("Summary", "\n".join(parts))


def _origin(folder: Path) -> ReportSection | None:
    """The commands that made the run, and its recipe."""
    commands = [
        shlex.join(["keras-distil", *words])
        for words in run_folder.read_commands(folder)
    ]
    recipe = _text(folder / "recipe.yaml")
    return sections.origin(commands, recipe) if commands or recipe else None


def _text(path: Path) -> str:
    try:
        return run_folder.read_text(path)
    except UnicodeDecodeError:
        return ""
