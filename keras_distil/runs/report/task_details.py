"""What report and card tell of a task beyond its score."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distil.runs import score_table
from keras_distil.runs.details import schema
from keras_distil.runs.details.schema import (
    Calibration,
    ClassRow,
    Confusions,
    Disagreement,
    Disagreements,
    LengthScores,
    Opinion,
    TaskDetails,
)
from keras_distil.runs.report import task_charts
from keras_distil.runs.report.export_table import (
    Export,
    exports_of,
    shown_score,
)
from keras_distil.runs.report.html_page import (
    ReportSection,
    escape,
    make_table,
    show_charts,
)
from keras_distil.runs.score_table import STUDENT, TEACHER
from keras_distil.utils import markdown

_DASH = "\N{EN DASH}"
# Classes that a table has space for, in the report and in the card.
_MOST_CLASSES = {"report": 50, "card": 20}
# Disagreements that the page has space for.
_SAMPLES = 12
_UNITS = {"token_classification": "Type", "multi_label": "Label"}
_Table = tuple[list[str], list[list[str]]]


def read_all(report: Mapping[str, Any], folder: Path) -> dict[str, TaskDetails]:
    """Reads the details of a run's tasks; what is damaged is left out."""
    found = {
        task: schema.read(folder / "tasks" / task / schema.DETAILS_FILE)
        for task in report.get("tasks", {}).get("tasks", ())
    }
    return {task: each for task, each in found.items() if each is not None}


# === The tables, as texts ===


def class_table(details: TaskDetails, most: int) -> _Table:
    """Returns precision, recall and F1 of each class, by row of the table.

    Args:
        details: the details.
        most: how many classes to show; those that the student finds worst.
    """
    rows = details.classes
    by_row = {row: {x.name: x for x in rows[row]} for row in rows}
    names = list(dict.fromkeys(x.name for row in rows for x in rows[row]))
    found = by_row.get(STUDENT, {})
    if len(names) > most:
        worst = sorted(
            names, key=lambda name: found[name].f1 if name in found else 0.0
        )[:most]
        names = [name for name in names if name in set(worst)]
    headers = [_UNITS.get(details.kind, "Class"), "Examples"]
    for row in rows:
        headers += [f"{row}: precision", "recall", "F1"]
    lines = []
    for name in names:
        each = [by_row[row].get(name) for row in rows]
        support = next((x.support for x in each if x is not None), 0)
        cells = [name, f"{support:,}"]
        for figures in each:
            cells += _figures(figures)
        lines.append(cells)
    return headers, lines


def _figures(found: ClassRow | None) -> list[str]:
    if found is None:
        return [_DASH] * 3
    values = (found.precision, found.recall, found.f1)
    return [score_table.points(100.0 * value) for value in values]


def class_notes(details: TaskDetails, most: int) -> list[str]:
    """Returns what the table of classes does not show by itself."""
    said = []
    figures = details.classes.get(STUDENT, [])
    if len(figures) > most:
        said.append(
            f"Of {len(figures)} classes, the {most} with the student's lowest "
            "F1 are shown."
        )
    absent = [x.name for x in figures if not x.support]
    if absent:
        said.append(
            "No development example has "
            f"{_listed(absent)}: precision, recall and F1 say nothing there."
        )
    for row, found in details.classes.items():
        answers = [x.name for x in found if x.predicted]
        if len(answers) < 2 <= len(found):
            but = f" but {answers[0]}" if answers else ""
            said.append(f"The {row} never answers anything{but}.")
    return said


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    more = len(names) - 10
    return f"{shown} and {more} more" if more > 0 else shown


def length_table(lengths: Sequence[LengthScores], is_error: bool) -> _Table:
    """Returns the scores on texts of similar length."""
    rows = list(lengths[0].scores)
    lines = [
        [
            f"{each.shortest:,} to {each.longest:,}"
            if each.shortest < each.longest
            else f"{each.longest:,}",
            f"{each.examples:,}",
            *(shown_score(each.scores[row], is_error) for row in rows),
        ]
        for each in lengths
    ]
    return ["Tokens", "Examples", *rows], lines


def calibration_table(found: Calibration) -> _Table:
    """Returns calibration error and log loss of each row."""
    return (
        ["Model", "Calibration error, points", "Log loss, nats"],
        [
            [
                row,
                score_table.points(100.0 * each.error, 2),
                f"{each.log_loss:.4f}",
            ]
            for row, each in found.rows.items()
        ],
    )


def calibration_notes(
    found: Calibration, exports: Sequence[Export]
) -> list[str]:
    """Returns what the temperature is, and where it is.

    Args:
        found: the calibration.
        exports: the reports of the task's exports.
    """
    if found.reason is not None:
        return [f"No temperature was fitted: {found.reason}."]
    said = [
        f"The student's temperature is {found.temperature:.3f}. It was fitted "
        f"on {found.fitted_on:,} texts of the development set; the figures are "
        f"of the other {found.reported_on:,}."
    ]
    carry = [x.temperature != 1.0 for x in exports]
    if carry:
        where = "have it in their last layer" if all(carry) else "lack it"
        said.append(
            f"The exports of this run {where}; the Keras file is as it was "
            "trained."
        )
    return said


def _exports_of(report: Mapping[str, Any], task: str) -> list[Export]:
    return [made for made in exports_of(report) if made.task == task]


# === The sections of the page ===


def sections(report: Mapping[str, Any], folder: Path) -> list[ReportSection]:
    """Returns a section for each task with details."""
    errors = report.get("tasks", {}).get("errors", ())
    return [
        ReportSection(
            f"Answers: {task}",
            "\n".join(
                _parts(
                    details,
                    is_error=task in errors,
                    exports=_exports_of(report, task),
                    prefix=f"answers-{number}",
                )
            ),
        )
        for number, (task, details) in enumerate(
            read_all(report, folder).items()
        )
    ]


def _parts(
    details: TaskDetails,
    *,
    is_error: bool,
    exports: Sequence[Export],
    prefix: str,
) -> Iterator[str]:
    """Yields the parts of a section."""
    yield (
        '<p class="notes">Of the development set, by the student with the best '
        f"score (seed {details.seed}) and the other models of its seed.</p>"
    )
    if details.classes:
        most = _MOST_CLASSES["report"]
        yield "<h3>Each class</h3>"
        yield _html(class_table(details, most), "Each class")
        yield _notes(class_notes(details, most))
    if details.confusions is not None:
        yield from _confusions(details.confusions, prefix)
    if details.disagreements is not None:
        yield from _disagreements(details.disagreements)
    if details.calibration is not None:
        found = details.calibration
        yield "<h3>Calibration</h3>"
        yield _html(calibration_table(found), "Calibration")
        yield _notes(calibration_notes(found, exports))
        drawn = task_charts.draw_reliability(
            found.rows, prefix=f"{prefix}-reliability"
        )
        yield show_charts([drawn])
    if details.lengths:
        yield "<h3>By length</h3>"
        yield _html(length_table(details.lengths, is_error), "By length")


def _confusions(found: Confusions, prefix: str) -> Iterator[str]:
    yield "<h3>Which class is taken for which</h3>"
    yield show_charts(
        [
            task_charts.draw_confusions(
                row, found.names, counts, prefix=f"{prefix}-{row}"
            )
            for row, counts in found.counts.items()
        ]
    )
    said = ["The darker, the larger a share of its row."]
    if len(found.names) < found.classes:
        said.append(
            f"Of {found.classes} classes, the {len(found.names)} that are most "
            "often confused are shown; answers outside of them are left out."
        )
    yield _notes([" ".join(said)])


def _disagreements(found: Disagreements) -> Iterator[str]:
    yield "<h3>Where teacher and student disagree</h3>"
    samples = found.shown[:_SAMPLES]
    order = "most confident ones"
    if found.mean_difference is None:
        said = (
            f"On {found.count:,} of {found.decisions:,} {found.unit} "
            f"({100 * found.count / found.decisions:.1f}%)."
        )
    else:
        said = f"By {found.mean_difference:.4g} on average."
        order = "largest differences"
    if len(samples) < found.count:
        said += f" The {len(samples)} {order}:"
    yield _notes([said])
    if samples:
        items = "\n".join(f"<li>{_item(each)}</li>" for each in samples)
        yield f'<ul class="samples">\n{items}\n</ul>'


def _item(each: Disagreement) -> str:
    text = escape(each.text)
    if each.word:
        text += f" <mark>{escape(each.word)}</mark> {escape(each.after)}"
    lines = [f"<p>{text.strip()}</p>"]
    if each.second:
        lines.append(f"<p>{escape(each.second)}</p>")
    if each.label:
        lines.append(f"<p><strong>{escape(each.label)}?</strong></p>")
    cells = [escape(each.truth) or _DASH]
    cells += [
        _opinion(opinion, each.truth)
        for opinion in (each.teacher, each.student)
    ]
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Label", "Teacher", "Student")
    )
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    lines.append(
        f"<table>\n<thead>\n<tr>{heads}</tr>\n</thead>\n<tbody>\n"
        f"<tr>{row}</tr>\n</tbody>\n</table>"
    )
    return "\n".join(lines)


def _opinion(found: Opinion, truth: str) -> str:
    shown = escape(found.answer) or _DASH
    if found.answer == truth:
        shown = f"<strong>{shown}</strong>"
    if found.confidence is None:
        return shown
    return f"{shown} {found.confidence:.0%}"


def _html(table: _Table, label: str) -> str:
    headers, lines = table
    rows = [
        f'<th scope="row">{escape(line[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in line[1:])
        for line in lines
    ]
    return make_table(label, headers, rows)


def _notes(said: Sequence[str]) -> str:
    shown = "\n".join(f"<p>{escape(text)}</p>" for text in said)
    return f'<div class="notes">\n{shown}\n</div>'


# === The parts of the card ===


def card_parts(report: Mapping[str, Any], folder: Path) -> list[str]:
    """Returns headings, tables and notes in Markdown, for the card."""
    errors = report.get("tasks", {}).get("errors", ())
    parts = []
    for task, details in read_all(report, folder).items():
        own = [
            *_card_classes(details),
            *_card_calibration(details, _exports_of(report, task)),
        ]
        if details.lengths:
            own.append("By length:")
            table = length_table(details.lengths, task in errors)
            own.append(_markdown(table))
        parts += [f"## Answers: {markdown.escape(task)}", *own] if own else []
    return parts


def _card_classes(details: TaskDetails) -> Iterator[str]:
    kept = {
        row: found
        for row, found in details.classes.items()
        if row in (TEACHER, STUDENT)
    }
    if not kept:
        return
    details = details.model_copy(update={"classes": kept})
    most = _MOST_CLASSES["card"]
    yield _markdown(class_table(details, most))
    yield from map(markdown.escape, class_notes(details, most))
    found = details.disagreements
    if found is not None and found.mean_difference is not None:
        yield (
            f"Teacher and student differ by {found.mean_difference:.4g} on "
            "average."
        )
    elif found is not None:
        yield (
            f"Teacher and student disagree on {found.count:,} of "
            f"{found.decisions:,} {found.unit}."
        )


def _card_calibration(
    details: TaskDetails, exports: Sequence[Export]
) -> Iterator[str]:
    found = details.calibration
    if found is None:
        return
    yield from calibration_notes(found, exports)
    if found.reason is None:
        yield _markdown(calibration_table(found))


def _markdown(table: _Table) -> str:
    headers, lines = table
    escaped: Callable[[str], str] = markdown.escape
    rows = [headers, ["---", *("---:" for _ in headers[1:])]]
    rows += [[*map(escaped, line)] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
