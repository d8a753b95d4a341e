"""The exports of a run: precision, size, speed and score in one table."""

import collections
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from keras_distil.runs import score_table
from keras_distil.runs.report import charts
from keras_distil.runs.report.html_page import (
    ReportSection,
    escape,
    make_table,
    show_charts,
)
from keras_distil.runs.run_folder import read_text

BENCHMARK_FILE = "benchmark.json"
HEADERS = (
    *("export", "precision", "MB", "CPU ms", "development score"),
    *("same first choices, %", "furthest from the student"),
)
_DASH = "\N{EN DASH}"
# The length of the sequences whose latency is shown, if there is a choice.
_TOKENS = 128


class _Compared(pydantic.BaseModel):
    """What the gate has found."""

    max_difference: float
    top1_agreement: float | None = None
    score: float | None = None
    student_score: float | None = None


class Export(pydantic.BaseModel):
    """An export in a run's report, as far as it is shown."""

    path: str
    precision: str
    size_mb: float
    comparison: _Compared
    temperature: float = 1.0
    note: str | None = None

    @property
    def folder(self) -> str:
        """The folder of the student, in that of the run."""
        return str(Path(self.path).parent)

    @property
    def task(self) -> str | None:
        """See `task_of`."""
        return task_of(self.path)


def task_of(path: str) -> str | None:
    """Returns the task of an exported student; None for one of text.

    Args:
        path: tasks/TASK/student/SEED/FORMAT, or FORMAT.
    """
    parts = Path(path).parts
    return parts[1] if len(parts) > 1 else None


def exports_of(report: Mapping[str, Any]) -> list[Export]:
    """Returns the exports of a run; none if their reports are damaged."""
    try:
        return [Export.model_validate(x) for x in report.get("export") or ()]
    except (pydantic.ValidationError, TypeError):
        return []


def export_rows(
    report: Mapping[str, Any], benchmarks: Mapping[str, Any]
) -> list[list[str]]:
    """Returns the texts of the table: each student, then its exports.

    Args:
        report: the run's report, as in `report.json`, with exports.
        benchmarks: from `read_benchmarks`.
    """
    errors = report.get("tasks", {}).get("errors", ())
    rows: list[list[str]] = []
    seen = set()
    for made in exports_of(report):
        speeds = _speeds(benchmarks.get(made.folder))
        is_error = made.task in errors
        if made.folder not in seen:
            seen.add(made.folder)
            rows.append(_student_row(report, made, speeds, is_error))
        found = made.comparison
        rows.append(
            [
                made.path,
                made.precision,
                f"{made.size_mb:.1f}",
                speeds.get(Path(made.path).name, _DASH),
                shown_score(found.score, is_error),
                shown_score(found.top1_agreement, False),
                f"{found.max_difference:.2g}",
            ]
        )
    return rows


def _student_row(
    report: Mapping[str, Any],
    export: Export,
    speeds: Mapping[str, str],
    is_error: bool,
) -> list[str]:
    """Returns the row of the model that an export is of."""
    costs = _student_costs(report, export)
    size, latency = costs.get("size_mb"), costs.get("latency_ms")
    name = "student.keras" if export.task is None else "model.keras"
    return [
        str(Path(export.path).with_name(name)),
        "float32",
        _DASH if size is None else f"{size:.1f}",
        speeds.get("student", _DASH if latency is None else f"{latency:.2f}"),
        shown_score(export.comparison.student_score, is_error),
        *(_DASH, _DASH),
    ]


def _student_costs(
    report: Mapping[str, Any], export: Export
) -> Mapping[str, Any]:
    """Returns the table's row of the model that an export is of."""
    rows = report.get("rows", {})
    if export.task is not None:
        rows = {row["name"]: row for row in report["tasks"]["rows"]}
    return rows.get(score_table.STUDENT, {})


def shown_score(score: float | None, is_error: bool) -> str:
    """Formats a score of an export: in percent, or the error itself."""
    if score is None:
        return _DASH
    if is_error:
        return score_table.shown_error(100.0 * score)
    return score_table.points(100.0 * score)


def notes(
    report: Mapping[str, Any], benchmarks: Mapping[str, Any]
) -> list[str]:
    """Returns what readers of the table should know, a sentence or two each."""
    said = [
        "The score is on the development set, of the export as it was read "
        "back; below a Keras file are its exports. Furthest is the largest "
        "difference of any output."
    ]
    measured = [(x, *_measured_at(found)) for x, found in benchmarks.items()]
    for folder, length, threads in measured:
        if length is not None:
            where = "" if folder == "." else f" of {folder}"
            said.append(
                f"CPU ms{where}: the median for one sequence of {length} "
                f"tokens, with {_count(threads, 'thread')}."
            )
    if not any(length for _, length, _ in measured):
        said.append(
            "CPU ms of exports are not measured; the command benchmark "
            "measures them. Those of a Keras file are the table's."
        )
    temperatures = {
        made.folder: made.temperature for made in exports_of(report)
    }
    for student, temperature in temperatures.items():
        if temperature != 1.0:
            said.append(
                f"Exports of {student} have the temperature {temperature:.3f} "
                "in their last layer: kernel and bias are divided by it. They "
                "are compared with the student divided likewise."
            )
    return said


def read_benchmarks(
    report: Mapping[str, Any], folder: Path
) -> dict[str, dict[str, Any]]:
    """Reads the measured speeds of all exported students, by folder.

    Args:
        report: the run's report.
        folder: the run's folder.

    Raises:
        ValueError: if a file is damaged.
    """
    found = {}
    for student in dict.fromkeys(x.folder for x in exports_of(report)):
        path = folder / student / BENCHMARK_FILE
        if path.is_file():
            try:
                content = json.loads(read_text(path))
                _speeds(content)
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
            ) as error:
                raise ValueError(f"{path} is damaged: {error}.") from error
            found[student] = content
    return found


def _speeds(benchmark: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns the milliseconds of each contestant, by name."""
    if benchmark is None:
        return {}
    length, threads = _measured_at(benchmark)
    return {
        each["name"]: f"{each['latency'][str(length)]['median_ms']:.3g}"
        for each in _of_threads(benchmark, threads)
        if str(length) in each["latency"]
    }


def _measured_at(benchmark: Mapping[str, Any]) -> tuple[int | None, int]:
    """The length that most contestants take, and the fewest threads."""
    threads = min(
        (each["num_threads"] for each in benchmark["measured"]), default=1
    )
    counts = collections.Counter(
        int(length)
        for each in _of_threads(benchmark, threads)
        for length in each["latency"]
    )
    best = max(
        counts, key=lambda n: (counts[n], -abs(n - _TOKENS)), default=None
    )
    return best, threads


def _of_threads(
    benchmark: Mapping[str, Any], threads: int
) -> Sequence[Mapping[str, Any]]:
    return [
        each
        for each in benchmark["measured"]
        if each["num_threads"] == threads and each["failed"] is None
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def export_dots(
    report: Mapping[str, Any], benchmarks: Mapping[str, Any]
) -> dict[str, list[charts.Dot]]:
    """Returns students and their exports as dots of a chart.

    Args:
        report: the run's report, as in `report.json`.
        benchmarks: from `read_benchmarks`; without its student's, an export has
            no latency.

    Returns:
        By the student's folder: the student, unless its size is not known, and
        its exports. Scores of a task are those on its development set; of text,
        the share of first choices that are the student's. Exports without a
        score, and those of a task with an error, are left out.
    """
    errors = report.get("tasks", {}).get("errors", ())
    found: dict[str, list[charts.Dot]] = {}
    for made in exports_of(report):
        compared, of_task = made.comparison, made.task is not None
        score = compared.score if of_task else compared.top1_agreement
        if score is None or made.task in errors:
            continue
        speeds = _speeds(benchmarks.get(made.folder))
        if made.folder not in found:
            own = compared.student_score if of_task else 1.0
            size = _student_costs(report, made).get("size_mb")
            found[made.folder] = []
            if size is not None and own is not None:
                found[made.folder].append(_dot("student", speeds, own, size))
        name = Path(made.path).name
        found[made.folder].append(_dot(name, speeds, score, made.size_mb))
    return found


def _dot(
    name: str, speeds: Mapping[str, str], score: Any, size_mb: Any
) -> charts.Dot:
    latency_ms = float(speeds[name]) if name in speeds else None
    return charts.Dot(name, latency_ms, 100 * score, size_mb)


def draw_exports(
    report: Mapping[str, Any], benchmarks: Mapping[str, Any]
) -> list[str]:
    """Draws score over size and latency, one chart for each student.

    Args:
        report: the run's report.
        benchmarks: from `read_benchmarks`.
    """
    drawn: list[str] = []
    for folder, dots in export_dots(report, benchmarks).items():
        shown = [dot for dot in dots if dot.can_be_drawn]
        score = "development score, %"
        if folder == ".":
            score = "same first choices, %"
        if shown:
            prefix = f"exports-{len(drawn)}"
            drawn.append(charts.draw_costs(shown, score=score, prefix=prefix))
    return drawn


def _breakable(path: str) -> str:
    """Returns a path as HTML whose lines break between its words."""
    return re.sub(r"([/_])(?=\w)", r"\1<wbr>", escape(path))


def section(report: Mapping[str, Any], folder: Path) -> ReportSection | None:
    """Returns the table as a section of the page.

    Args:
        report: the run's report.
        folder: the run's folder; damaged files in it are left out.

    Returns:
        The section; None for a run without exports.
    """
    if not exports_of(report):
        return None
    try:
        benchmarks = read_benchmarks(report, folder)
    except ValueError:
        benchmarks = {}
    lines = [
        f'<th scope="row">{_breakable(row[0])}</th><td class="text">'
        f"{escape(row[1])}</td>"
        + "".join(f"<td>{escape(text)}</td>" for text in row[2:])
        for row in export_rows(report, benchmarks)
    ]
    said = "\n".join(f"<p>{escape(x)}</p>" for x in notes(report, benchmarks))
    drawn = draw_exports(report, benchmarks)
    return ReportSection(
        "Exports",
        make_table("Exports: size, speed and score", HEADERS, lines, texts=2)
        + f'\n<div class="notes">\n{said}\n</div>'
        + (f"\n{show_charts(drawn)}" if drawn else ""),
    )
