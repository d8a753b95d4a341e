"""Measurements as tables and as a picture."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table

from keras_distil.benchmark.race import BATCH, Contestant, Measured

_DASH = "\N{EN DASH}"
# Areas of dots in points squared: the smallest, and the area per megabyte.
_LEAST_AREA, _AREA_PER_MB = 20.0, 4.0


def make_tables(
    measured: Sequence[Measured], *, title: str
) -> rich.console.Group:
    """Makes tables of costs, median and 95th-percentile latencies.

    Args:
        measured: measurements from `run_race`.
        title: title of the first table.
    """
    lengths = sorted({length for each in measured for length in each.latency})
    headings = ("MB", "peak MB", "load s", f"{BATCH} at once, /s", "agree %")
    score = "error" if _have_errors(measured) else "score"
    costs = _table(title, (*headings, score))
    medians = _table("ms for one sequence, median", map(str, lengths))
    slowest = _table("ms for one sequence, 95th percentile", map(str, lengths))
    for each in measured:
        who = each.contestant.name, str(each.num_threads)
        if each.failed is not None:
            costs.add_row(*who, each.failed)
            continue
        costs.add_row(*who, *_costs(each))
        latencies = [each.latency.get(length) for length in lengths]
        medians.add_row(
            *who, *(_one_decimal(x.median_ms if x else None) for x in latencies)
        )
        slowest.add_row(
            *who, *(_one_decimal(x.p95_ms if x else None) for x in latencies)
        )
    return rich.console.Group(costs, medians, slowest)


def _table(title: str, headings: Iterable[str]) -> rich.table.Table:
    table = rich.table.Table(
        title=title, title_justify="left", box=rich.box.SIMPLE_HEAD
    )
    table.add_column("model", no_wrap=True)
    table.add_column("threads", justify="right")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _costs(each: Measured) -> list[str]:
    who = each.contestant
    agreement = None if who.agreement is None else 100 * who.agreement
    return [
        _one_decimal(who.size_mb),
        f"{each.peak_memory_mb:,.0f}",
        f"{each.load_s:.2f}",
        *map(_one_decimal, (each.throughput, agreement)),
        _score(who),
    ]


def _score(who: Contestant) -> str:
    """Formats a score: in percent, or the error itself."""
    if who.score is None:
        return _DASH
    return f"{-who.score:z.3f}" if who.is_error else f"{100 * who.score:.1f}"


def _have_errors(measured: Sequence[Measured]) -> bool:
    return any(each.contestant.is_error for each in measured)


def _one_decimal(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1f}"


def draw(
    measured: Sequence[Measured], path: Path, *, length: int, title: str
) -> None:
    """Draws size, latency and score, with a dot for each contestant.

    Farther left is faster. Higher is better, by the score on a development
    set (an error grows downwards), or else by agreement with the student.
    Smaller dots are smaller files.

    Args:
        measured: measurements with one number of threads. Those without a
            latency at `length`, or without a score or agreement, are left
            out.
        path: the PNG to write.
        length: the length whose latency is shown.
        title: title of the picture.
    """
    # Imported late: it takes a second. It draws without a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    scored = any(each.contestant.score is not None for each in measured)
    errors = scored and _have_errors(measured)
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for each in measured:
        who = each.contestant
        quality = who.score if scored else who.agreement
        if length not in each.latency or quality is None:
            continue
        size = who.size_mb or 0.0
        axes.scatter(
            each.latency[length].median_ms,
            -quality if errors else 100.0 * quality,
            s=_LEAST_AREA + _AREA_PER_MB * size,
            alpha=0.6,
            label=f"{who.name}, {size:.1f} MB",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(_round_numbers())
    axes.margins(0.2)
    if errors:
        axes.invert_yaxis()
    else:
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    axes.set_xlabel(f"CPU milliseconds for {length} tokens (log scale)")
    axes.set_ylabel(_quality(scored, errors))
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, markerscale=0.5)
    FigureCanvasAgg(figure).print_png(str(path))


def _quality(scored: bool, errors: bool) -> str:
    """What is drawn upwards."""
    if errors:
        return "error on the development set (less is better)"
    if scored:
        return "score on the development set, %"
    return "first choices like the student's, %"


def _round_numbers() -> Any:
    """Returns a tick locator at 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import LogLocator

    return LogLocator(subs=(1.0, 2.0, 5.0))
