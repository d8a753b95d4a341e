"""Output of the commands: lines, tables and JSON on standard output."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

# Wider tables have a line for each metric and a column for each model.
_MOST_COLUMNS = 6


def say(text: str) -> None:
    """Prints one line."""
    print(text)


def print_json(content: Any) -> None:
    """Prints plain values as JSON."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def print_summary(summary: dict[str, Any], as_json: bool) -> None:
    """Prints names and values, with a table for each title."""
    if as_json:
        print_json(summary)
        return
    console = rich.console.Console()
    for title, values in summary.items():
        table = rich.table.Table(
            title=title, show_header=False, title_justify="left"
        )
        for name, value in values.items():
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            table.add_row(name, shown)
        console.print(table)


def print_report(report: dict[str, Any]) -> None:
    """Prints the contents of `report.json`."""
    if "rows" in report:
        _print_held_out(report)
    if "tasks" in report:
        from keras_distil.runs import score_table
        from keras_distil.runs.report import result_table

        made = score_table.ResultTable.from_json(json.dumps(report["tasks"]))
        rich.console.Console().print(result_table.to_rich(made))
    errors = report.get("tasks", {}).get("errors", ())
    for made in report.get("export", ()):
        told = _score(made, errors)
        say(f"Export: {made['path']} ({made['size_mb']:.1f} MB){told}")
    say(f"Duration: {report['duration_s']:.0f} s")


def _score(made: dict[str, Any], errors: Sequence[str]) -> str:
    """The end of an export's line: its score, if it has one."""
    compared = made.get("comparison", {})
    score, student = compared.get("score"), compared.get("student_score")
    if score is None or student is None:
        return ""
    from keras_distil.runs.report.export_table import shown_score, task_of

    is_error = task_of(made["path"]) in errors
    one, other = (shown_score(x, is_error) for x in (score, student))
    return f": score {one} of the student's {other}"


def print_search(found: dict[str, Any]) -> None:
    """Prints the trials of a search, as `results.collect` returns them."""
    from keras_distil.search import results

    rich.console.Console().print(results.make_table(found))
    for line in results.summary(found):
        say(line)


def _print_held_out(report: dict[str, Any]) -> None:
    from keras_distil.training.metrics import TABLE, find_metric

    rows = report["rows"]
    shown = [find_metric(name) for name in TABLE if name in rows["teacher"]]
    if len(shown) > _MOST_COLUMNS:
        _print_transposed(f"{report['name']}: scores and costs", shown, rows)
        say(f"Updates of the student: {report['updates']:,}")
        return
    # Without lines between columns, the captions fit a terminal of 80.
    table = rich.table.Table(
        title=f"{report['name']}, held-out text",
        box=rich.box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("model", no_wrap=True)
    for metric in shown:
        table.add_column(metric.title, justify="right")
    for name, row in rows.items():
        table.add_row(
            name, *(metric.format(row[metric.name]) for metric in shown)
        )
    rich.console.Console().print(table)
    if "updates" in report:
        say(f"Updates of the student: {report['updates']:,}")
    if "kept_percent" in report:
        say(
            f"The student keeps {report['kept_percent']:.1f}% of the "
            "teacher's masked accuracy."
        )
    elif "most_frequent_token_accuracy" in report:
        most = 100 * report["most_frequent_token_accuracy"]
        say(
            "The teacher predicts masked words no better than the most "
            f"frequent word does ({most:.1f}%): there is nothing to keep a "
            "share of."
        )


def _print_transposed(
    title: str, metrics: Sequence[Any], rows: Mapping[str, Mapping[str, float]]
) -> None:
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, padding=0)
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    for metric in metrics:
        values = (metric.format(row[metric.name]) for row in rows.values())
        table.add_row(metric.title, *values)
    rich.console.Console().print(table)
