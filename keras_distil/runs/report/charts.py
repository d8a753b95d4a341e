"""The charts of the report, each an `<svg>`.

They are as wide as a phone; a wide page shows several side by side.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_distil.runs import score_table
from keras_distil.runs.report import schedule_chart, svg
from keras_distil.runs.report.learning import Series
from keras_distil.utils.markdown import visible

# Inches; one inch is 72 units of the drawing, which are roughly pixels.
WIDTH = 4.6
# Distinguishable for colour-blind readers; dashes tell them apart in print.
_COLORS = {
    score_table.TEACHER: "#555555",
    score_table.STUDENT: "#0072b2",
    score_table.BASELINE: "#d55e00",
    "student before": "#56b4e9",
    score_table.ELMO: "#009e73",
}
_OTHER_COLOR = "#cc79a7"
_DASHED = (score_table.BASELINE,)
# Areas of the dots in points squared: the smallest, the increase per megabyte,
# and the largest.
_LEAST_AREA, _AREA_PER_MB, _MOST_AREA = 20.0, 2.0, 1500.0
_LONGEST = 48


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Attributes:
        role: role of the model: its row in the tables.
        series: the points.
    """

    role: str
    series: Series


@dataclasses.dataclass(frozen=True)
class Dot:
    """A model in the chart of costs.

    Attributes:
        role: the model's row in the table.
        latency_ms: > 0.
        score: percent.
        size_mb: >= 0.
    """

    role: str
    latency_ms: float
    score: float
    size_mb: float


def draw_curves(title: str, lines: Sequence[Line], *, prefix: str) -> str:
    """Draws a value over the updates, one curve per training.

    Args:
        title: name of the value.
        lines: in the order of the legend, which names each role once.
        prefix: as for `svg.inline`.
    """
    from matplotlib.figure import Figure

    with svg.style():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        axes = figure.add_subplot()
        handles: dict[str, Any] = {}
        for line in lines:
            [drawn] = axes.plot(
                line.series.steps,
                line.series.values,
                color=color_of(line.role),
                linestyle="--" if line.role in _DASHED else "-",
                linewidth=1.2,
                # A single update is drawn as a point.
                marker="." if len(line.series.steps) < 2 else None,
            )
            handles.setdefault(_short(line.role), drawn)
        axes.set_title(_short(title))
        axes.set_xlabel("updates")
        axes.grid(alpha=0.3)
        axes.legend(list(handles.values()), list(handles), loc="best")
        return svg.inline(
            figure,
            label=f"{title} over the updates: {', '.join(handles)}",
            prefix=prefix,
        )


def draw_schedules(curves: schedule_chart.Curves, *, prefix: str) -> str:
    """Draws temperature, weights and learning rate over the updates.

    Args:
        curves: from `schedule_chart.compute`.
        prefix: as for `svg.inline`.
    """
    with svg.style():
        figure = schedule_chart.make_figure(curves, size=(WIDTH, 5.4))
        return svg.inline(
            figure,
            label="Temperature, weights of the losses and learning rate over "
            "the updates",
            prefix=prefix,
        )


def draw_similarity(
    similarity: Sequence[Sequence[float]], *, prefix: str
) -> str:
    """Draws a map of the teacher's layers against the student's.

    Args:
        similarity: one row per teacher layer, embeddings first.
        prefix: as for `svg.inline`.
    """
    from matplotlib.figure import Figure

    grid = np.array(similarity)
    rows, columns = grid.shape
    with svg.style():
        figure = Figure(
            figsize=(WIDTH, 0.8 + 0.27 * rows), layout="constrained"
        )
        axes = figure.add_subplot()
        axes.pcolormesh(
            grid, vmin=0.0, vmax=1.0, edgecolors="white", linewidth=0.8
        )
        for name, count, axis in (
            ("teacher's", rows, axes.yaxis),
            ("student's", columns, axes.xaxis),
        ):
            every = -(-count // 26)
            places = range(0, count, every)
            axis.set_ticks(
                [place + 0.5 for place in places],
                [str(place) if place else "emb." for place in places],
            )
            axis.set_label_text(f"{name} layer")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if columns <= 16:
            _write_values(axes, grid)
        return svg.inline(
            figure,
            label=f"Linear CKA of {rows} states of the teacher by {columns} "
            "of the student",
            prefix=prefix,
        )


def _write_values(axes: Any, grid: np.ndarray) -> None:
    size = 8.0 if grid.shape[1] <= 10 else 6.0
    for (row, column), value in np.ndenumerate(grid):
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if value < 0.6 else "black",
        )


def draw_costs(dots: Sequence[Dot], *, score: str, prefix: str) -> str:
    """Draws score over latency; the area of a dot is the model's size.

    Args:
        dots: in the order of the legend.
        score: name of the score.
        prefix: as for `svg.inline`.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

    with svg.style():
        figure = Figure(
            figsize=(WIDTH, 3.1 + 0.16 * len(dots)), layout="constrained"
        )
        axes = figure.add_subplot()
        for dot in dots:
            axes.scatter(
                dot.latency_ms,
                dot.score,
                s=min(_LEAST_AREA + _AREA_PER_MB * dot.size_mb, _MOST_AREA),
                color=color_of(dot.role),
                alpha=0.6,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
        )
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.margins(0.3)
        axes.set_xlabel("CPU ms for one input (log scale)")
        axes.set_ylabel(score)
        axes.grid(alpha=0.3)
        names = [
            f"{_short(dot.role)}: {dot.score:.1f}, {dot.latency_ms:.1f} ms, "
            f"{dot.size_mb:.1f} MB"
            for dot in dots
        ]
        # In the legend, all dots have the same size.
        handles = [
            axes.scatter([], [], s=30.0, color=color_of(dot.role), alpha=0.6)
            for dot in dots
        ]
        figure.legend(handles, names, loc="outside lower center")
        return svg.inline(
            figure,
            label=f"{score} over latency and size. {'; '.join(names)}",
            prefix=prefix,
        )


def color_of(role: str) -> str:
    """The colour of a model in all charts."""
    return _COLORS.get(role, _OTHER_COLOR)


def _short(text: str) -> str:
    # Matplotlib's legends leave out names that begin with an underscore.
    shown = visible(text).strip(" _")
    if len(shown) <= _LONGEST:
        return shown
    return shown[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
