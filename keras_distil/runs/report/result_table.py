"""The results table in the terminal, in Markdown and in HTML.

Names come from other people's recipes and files: whatever they contain is shown
as text, never as markup.
"""

import dataclasses
from collections.abc import Callable, Sequence

import rich.console
import rich.table
import rich.text
from rich.cells import cell_len

from keras_distil.evaluation.task_metrics import ERRORS
from keras_distil.runs.report.html_page import ReportSection, escape, make_table
from keras_distil.runs.report.result_notes import (
    DAGGER,
    describe_comparisons,
    describe_table,
)
from keras_distil.runs.score_table import (
    TEACHER,
    MacroScore,
    PublishedRow,
    Range,
    ResultTable,
    Row,
    TaskScore,
    points,
    shown_error,
)
from keras_distil.training.metrics import format_amount, format_count
from keras_distil.utils import markdown
from keras_distil.utils.markdown import visible

_DASH = "\N{EN DASH}"


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A value of the table and how to show it.

    Attributes:
        text: the value, or a dash.
        best: whether no model of the student's size is better.
        inside: whether the difference to the teacher is not significant.
        spread: lowest and highest over the seeds, if there are several.
    """

    text: str = _DASH
    best: bool = False
    inside: bool = False
    spread: str = ""

    @property
    def plain(self) -> str:
        """The value with its mark."""
        return self.text + DAGGER * self.inside


@dataclasses.dataclass(frozen=True)
class _Line:
    name: str
    cells: list[_Cell]


def to_rich(table: ResultTable) -> rich.console.Group:
    """Returns the table for the terminal.

    Models are the columns and tasks the rows, so that it fits into 80
    characters. Print it with a `rich.console.Console`.

    Args:
        table: the results.
    """
    lines = _our_lines(table) + _published_lines(table)
    main = rich.table.Table(title="Results", title_justify="left")
    main.add_column("")
    for line in lines:
        main.add_column(_rich(line.name), justify="right")
    for place, header in enumerate(_headers(table)):
        cells = [line.cells[place] for line in lines]
        main.add_row(
            _rich(header),
            *(_rich(cell.plain, "bold" if cell.best else "") for cell in cells),
        )
    details = rich.table.Table(title="Each score", title_justify="left")
    for place, header in enumerate(_detail_headers(table)):
        details.add_column(header, justify="left" if place < 2 else "right")
    for texts in _details(table):
        details.add_row(*map(_rich, texts))
    said = [
        _rich(text)
        for text in describe_table(table) + describe_comparisons(table)
    ]
    return rich.console.Group(main, details, *said)


def to_markdown(table: ResultTable) -> str:
    """Returns the table as Markdown, with aligned pipes.

    Args:
        table: the results.
    """
    lines = [
        [markdown.escape(line.name)]
        + [f"**{c.plain}**" if c.best else c.plain for c in line.cells]
        for line in _our_lines(table) + _published_lines(table)
    ]
    details = [list(map(markdown.escape, texts)) for texts in _details(table)]
    parts = [
        _pipes(["Model", *map(markdown.escape, _headers(table))], lines, 1),
        *map(markdown.escape, describe_table(table)),
        _pipes(_detail_headers(table), details, 2),
        "\n".join(
            f"- {markdown.escape(text)}" for text in describe_comparisons(table)
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html_section(
    table: ResultTable, heading: str = "Results"
) -> ReportSection:
    """Returns the table as a section of the report.

    Args:
        table: the results.
        heading: text.
    """
    ours = [_html_line(line) for line in _our_lines(table)]
    others = [_html_line(line) for line in _published_lines(table)]
    details = [
        "".join(
            [f'<th scope="row">{escape(texts[0])}</th>']
            + [f'<td class="text">{escape(texts[1])}</td>']
            + [f"<td>{escape(text)}</td>" for text in texts[2:]]
        )
        for texts in _details(table)
    ]
    notes = "\n".join(
        f"<p>{escape(text)}</p>" for text in describe_table(table)
    )
    said = "\n".join(
        f"<li>{escape(text)}</li>" for text in describe_comparisons(table)
    )
    parts = [
        make_table(
            f"{heading}: scores and costs",
            ["Model", *_headers(table)],
            ours,
            others,
        ),
        f'<div class="notes">\n{notes}\n</div>',
        "<h3>Each score</h3>",
        make_table(
            f"{heading}: each score", _detail_headers(table), details, texts=2
        ),
    ]
    if said:
        parts += ["<h3>Which differences count</h3>", f"<ul>\n{said}\n</ul>"]
    return ReportSection(heading, "\n".join(parts))


@dataclasses.dataclass(frozen=True)
class _Column:
    """A quantity by which the models are compared.

    Attributes:
        header: the column's heading.
        ours: gets the value from a row; None if it has none.
        others: gets the value from a published row.
        written: formats the value.
        more_is_better: whether the highest value is the best.
        task: the task that it scores, "" for the mean; None if it is not a
            score.
    """

    header: str
    ours: Callable[[Row], float | None]
    others: Callable[[PublishedRow], float | None]
    written: Callable[[float], str] = points
    more_is_better: bool = True
    task: str | None = None


def _columns(table: ResultTable) -> list[_Column]:
    made = [_task_column(task, task in table.errors) for task in table.tasks]
    if table.shows_mean:
        made.append(
            _Column(
                "Mean", lambda r: _score(r.macro), lambda r: r.macro, task=""
            )
        )
    # Scores and errors have no mean, nor has an error a share that is kept.
    if not table.errors:
        made.append(_Column("Kept %", _kept, lambda r: r.retention))
    return [*made, *_COST_COLUMNS]


def _task_column(task: str, is_error: bool) -> _Column:
    return _Column(
        f"{task} (error)" if is_error else task,
        lambda row: _score(row.tasks.get(task)),
        lambda row: row.scores.get(task),
        shown_error if is_error else points,
        task=task,
    )


def _headers(table: ResultTable) -> list[str]:
    return [column.header for column in _columns(table)]


def _our_lines(table: ResultTable) -> list[_Line]:
    columns = _columns(table)
    best = [_best(column, table.rows) for column in columns]
    return [
        _Line(
            row.name,
            [
                _our_cell(table, row, column, text)
                for column, text in zip(columns, best, strict=True)
            ],
        )
        for row in table.rows
    ]


def _our_cell(
    table: ResultTable, row: Row, column: _Column, best: str | None
) -> _Cell:
    value = column.ours(row)
    if value is None:
        return _Cell()
    text = column.written(value)
    compared = None
    if column.task is not None:
        compared = table.comparison(row.name, TEACHER, column.task or None)
    score = row.tasks.get(column.task) if column.task else None
    return _Cell(
        text,
        best=row.student_size and text == best,
        inside=compared is not None and not compared.significant,
        spread=_spread(score, column.written)
        if score and score.seeds > 1
        else "",
    )


def _best(column: _Column, rows: Sequence[Row]) -> str | None:
    """Returns the best value as written; None if all are the same.

    Values that are written alike are equally good.
    """
    values = [column.ours(row) for row in rows if row.student_size]
    known = [value for value in values if value is not None]
    if len({column.written(value) for value in known}) < 2:
        return None
    return column.written(max(known) if column.more_is_better else min(known))


def _published_lines(table: ResultTable) -> list[_Line]:
    lines = []
    for row in table.published:
        values = [(c, c.others(row)) for c in _columns(table)]
        cells = [
            _Cell() if value is None else _Cell(column.written(value))
            for column, value in values
        ]
        lines.append(_Line(f"{row.name} (published)", cells))
    return lines


def _detail_headers(table: ResultTable) -> list[str]:
    interval = f"{100 * table.level:g}% interval"
    return [
        "Model",
        "Task",
        "Score",
        "Seeds",
        "Range",
        interval,
        "Kept %",
        "Metrics",
    ]


def _details(table: ResultTable) -> list[list[str]]:
    """Returns a row for each score, with everything known about it."""
    lines = []
    for row in table.rows:
        for task in table.tasks:
            score = row.tasks.get(task)
            if score is None:
                continue
            written = shown_error if task in table.errors else points
            lines.append(
                [
                    row.name,
                    task,
                    written(score.score),
                    str(score.seeds),
                    _spread(score, written) if score.seeds > 1 else _DASH,
                    _range(score.interval, written),
                    _points(score.retention),
                    ", ".join(
                        f"{name} {_metric(name, value)}"
                        for name, value in score.metrics.items()
                    ),
                ]
            )
        if row.macro is not None and table.has_mean:
            mean, kept = row.macro, _points(row.macro.retention)
            lines.append(
                [row.name, "mean", points(mean.score), _DASH, _DASH]
                + [_range(mean.interval, points), kept, _DASH]
            )
    return lines


def _score(found: TaskScore | MacroScore | None) -> float | None:
    return None if found is None else found.score


def _kept(row: Row) -> float | None:
    return None if row.macro is None else row.macro.retention


def _spread(score: TaskScore, written: Callable[[float], str]) -> str:
    return _range(Range(low=score.lowest, high=score.highest), written)


def _range(ends: Range, written: Callable[[float], str]) -> str:
    low, high = ends.low, ends.high
    if written is shown_error:
        low, high = high, low
    return f"{written(low)} to {written(high)}"


def _metric(name: str, value: float) -> str:
    """Formats a single metric, which is kept in percent."""
    return f"{value / 100:.3f}" if name in ERRORS else points(value)


def _points(value: float | None) -> str:
    return _DASH if value is None else points(value)


# For each of these, less is better.
_COST_COLUMNS = (
    _Column(
        "Parameters",
        lambda row: row.parameters,
        lambda row: row.parameters,
        format_count,
        more_is_better=False,
    ),
    _Column(
        "Disk MB",
        lambda row: row.size_mb,
        lambda row: None,
        format_amount,
        more_is_better=False,
    ),
    _Column(
        "CPU ms",
        lambda row: row.latency_ms,
        lambda row: row.latency_ms,
        format_amount,
        more_is_better=False,
    ),
    _Column(
        "CPU ratio",
        lambda row: row.latency_ratio,
        lambda row: None,
        format_amount,
        more_is_better=False,
    ),
)


def _rich(text: str, style: str = "") -> rich.text.Text:
    return rich.text.Text(visible(text), style)


def _pipes(headers: list[str], lines: list[list[str]], texts: int) -> str:
    """Returns a table with pipes; the first `texts` columns hold words."""
    widths = [
        max(3, *map(cell_len, cells))
        for cells in zip(headers, *lines, strict=True)
    ]

    def line(cells: list[str]) -> str:
        padded = []
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            blank = " " * (width - cell_len(cell))
            padded.append(cell + blank if place < texts else blank + cell)
        return f"| {' | '.join(padded)} |"

    rules = [
        "-" * width if place < texts else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    return "\n".join(map(line, [headers, rules, *lines]))


def _html_line(line: _Line) -> str:
    parts = [f'<th scope="row">{escape(line.name)}</th>']
    for cell in line.cells:
        text = f"<strong>{cell.text}</strong>" if cell.best else cell.text
        mark = f"<sup>{DAGGER}</sup>" if cell.inside else ""
        spread = f"<small>{cell.spread}</small>" if cell.spread else ""
        parts.append(f"<td>{text}{mark}{spread}</td>")
    return "".join(parts)
