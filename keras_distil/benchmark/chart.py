"""What was measured, as people look at it: a table and a picture."""

from collections.abc import Sequence
from pathlib import Path

import rich.table

from keras_distil.benchmark.race import BATCH, Measured

_DASH = "\N{EN DASH}"
# Areas of the dots, in points squared: the smallest, and a megabyte's.
_LEAST_AREA, _AREA_PER_MB = 20.0, 4.0


def make_table(measured: Sequence[Measured], *, title: str) -> rich.table.Table:
    """A line for each contestant and number of threads.

    Args:
        measured: what `run_race` returned.
        title: of the table.
    """
    lengths = sorted({length for each in measured for length in each.latency})
    table = rich.table.Table(title=title)
    table.add_column("model")
    for heading in ("threads", "MB", "peak MB", "load s"):
        table.add_column(heading, justify="right")
    for length in lengths:
        table.add_column(f"{length} tokens, ms (p95)", justify="right")
    table.add_column(f"{BATCH} at once, per s", justify="right")
    table.add_column("agree %", justify="right")
    table.add_column("score", justify="right")
    for each in measured:
        table.add_row(*_cells(each, lengths))
    return table


def _cells(each: Measured, lengths: Sequence[int]) -> list[str]:
    who = each.contestant
    size = _DASH if who.size_mb is None else f"{who.size_mb:.1f}"
    found = [who.name, str(each.num_threads), size]
    if each.failed is not None:
        return [*found, each.failed]
    found += [f"{each.peak_memory_mb:,.0f}", f"{each.load_s:.2f}"]
    for length in lengths:
        taken = each.latency.get(length)
        found.append(
            f"{taken.median_ms:.1f} ({taken.p95_ms:.1f})" if taken else _DASH
        )
    found.append(_DASH if each.throughput is None else f"{each.throughput:.1f}")
    for share in (who.agreement, who.score):
        found.append(_DASH if share is None else f"{100 * share:.1f}")
    return found


def draw(
    measured: Sequence[Measured], path: Path, *, length: int, title: str
) -> None:
    """Draws size, latency and score: a dot for each contestant.

    To the left is faster; higher is closer to the student, by its score on a
    development set, else by its agreement with the student; smaller dots are
    smaller files.

    Args:
        measured: of one number of threads. Those without a latency at
            `length` are left out.
        path: the PNG to write.
        length: whose latency is shown.
        title: of the picture.
    """
    # Loads for a second, and draws without a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [each for each in measured if length in each.latency]
    scored = any(each.contestant.score is not None for each in shown)
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    for each in shown:
        who = each.contestant
        quality = who.score if scored else who.agreement
        height = 100.0 * (1.0 if quality is None else quality)
        taken = each.latency[length].median_ms
        size = who.size_mb or 0.0
        area = _LEAST_AREA + _AREA_PER_MB * size
        axes.scatter(taken, height, s=area, alpha=0.6)
        axes.annotate(
            f"{who.name}\n{size:.0f} MB" if size else who.name,
            (taken, height),
            fontsize=8,
            xytext=(6, 6),
            textcoords="offset points",
        )
    axes.set_xscale("log")
    axes.margins(0.2)
    axes.set_xlabel(f"CPU milliseconds for {length} tokens (log scale)")
    axes.set_ylabel(
        "score on the development set, %"
        if scored
        else "first choices like the student's, %"
    )
    axes.set_title(title)
    axes.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(str(path))
