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
    score_table.TEACHER: svg.GREY,
    score_table.STUDENT: svg.BLUE,
    score_table.BASELINE: "#d55e00",
    "student before": "#56b4e9",
    score_table.ELMO: "#009e73",
}
_OTHER_COLOR = "#cc79a7"
# Of dots with other roles, in turn.
_OTHER_COLORS = (
    *(svg.BLUE, "#d55e00", "#009e73"),
    *(_OTHER_COLOR, "#e69f00", "#56b4e9"),
)
_DASHES = {score_table.BASELINE: "--", score_table.TEACHER: ":"}
# Shapes of the dots, in turn: without colours they can be told apart, too. They
# are hollow, so that none hides another in the same place.
_SHAPES = "osD^vP*X"
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
        latency_ms: > 0; None if it is not measured.
        score: percent.
        size_mb: >= 0.
    """

    role: str
    latency_ms: float | None
    score: float
    size_mb: float

    @property
    def can_be_drawn(self) -> bool:
        """Whether an axis holds its numbers."""
        latency_ms = 1.0 if self.latency_ms is None else self.latency_ms
        return (
            1e-6 < latency_ms < 1e9
            and 0.0 <= self.size_mb < 1e9
            and abs(self.score) < 1e6
        )


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
                linestyle=_DASHES.get(line.role, "-"),
                linewidth=1.2,
                # A single update is drawn as a point.
                marker="." if len(line.series.steps) < 2 else None,
            )
            handles.setdefault(_short(line.role), drawn)
        axes.set_title(_short(title))
        axes.set_xlabel("updates")
        axes.locator_params(axis="x", integer=True)
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
    similarity: Sequence[Sequence[float]],
    *,
    copied: Sequence[int] = (),
    prefix: str,
) -> str:
    """Draws a map of the teacher's layers against the student's.

    Args:
        similarity: one row per teacher layer, embeddings first.
        copied: for each of the student's layers, the index of the teacher's
            layer that it was copied from, which is framed; empty if none was.
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
            grid, vmin=0.0, vmax=1.0, edgecolors=svg.PAPER, linewidth=0.8
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
        for layer, source in enumerate(copied):
            _frame(axes, row=source + 1, column=layer + 1)
        return svg.inline(
            figure,
            label=f"Linear CKA of {rows} states of the teacher by {columns} "
            "of the student",
            prefix=prefix,
        )


def _frame(axes: Any, *, row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    # Inside of the cell, whose edges others cover.
    frame = Rectangle((column + 0.02, row + 0.06), 0.96, 0.88)
    frame.set(fill=False, edgecolor="#d55e00", linewidth=2.2)
    axes.add_patch(frame)


def _write_values(axes: Any, grid: np.ndarray) -> None:
    size = 9.0 if grid.shape[1] <= 10 else 6.0
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
    """Draws score over size, and beside it over latency.

    Dots without a latency are in the first panel alone; if none has one, there
    is no second panel.

    Args:
        dots: in the order of the legend.
        score: name of the score.
        prefix: as for `svg.inline`.
    """
    from matplotlib.figure import Figure

    panels = {"size, MB": [dot.size_mb for dot in dots]}
    if any(dot.latency_ms is not None for dot in dots):
        panels["CPU ms for one input"] = [
            # Matplotlib draws nothing there.
            np.nan if dot.latency_ms is None else dot.latency_ms
            for dot in dots
        ]
    looks = list(map(_look, range(len(dots)), dots))
    with svg.style():
        figure = Figure(
            figsize=(WIDTH, 2.9 + 0.19 * len(dots)), layout="constrained"
        )
        drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (name, places) in zip(drawn, panels.items(), strict=True):
            for place, dot, look in zip(places, dots, looks, strict=True):
                axes.scatter(place, dot.score, **look)
            axes.margins(0.15)
            # From nothing on, so that half the cost is half the way.
            axes.set_xlim(0.0, 1.15 * np.nanmax(places) or 1.0)
            axes.locator_params(axis="x", nbins=5)
            axes.set_xlabel(name)
            axes.grid(alpha=0.3)
        drawn[0].set_ylabel(score)
        names = list(map(_numbers, dots))
        handles = [drawn[0].scatter([], [], **look) for look in looks]
        figure.legend(handles, names, loc="outside lower center")
        return svg.inline(
            figure,
            label=f"{score} over size and latency. {'; '.join(names)}",
            prefix=prefix,
        )


def _look(number: int, dot: Dot) -> dict[str, Any]:
    """Colour and shape of a dot, as arguments of `scatter`."""
    others = _OTHER_COLORS[number % len(_OTHER_COLORS)]
    return {
        "s": 45.0,
        "marker": _SHAPES[number % len(_SHAPES)],
        "facecolors": "none",
        "edgecolors": _COLORS.get(dot.role, others),
        "linewidths": 1.6,
        # The cheapest models are on the axis itself.
        "clip_on": False,
    }


def _numbers(dot: Dot) -> str:
    """The line of a dot in the legend."""
    shown = f"{_short(dot.role)}: {dot.score:.1f}, {dot.size_mb:.1f} MB"
    if dot.latency_ms is None:
        return shown
    return f"{shown}, {dot.latency_ms:.3g} ms"


def color_of(role: str) -> str:
    """The colour of a model in all charts."""
    return _COLORS.get(role, _OTHER_COLOR)


def _short(text: str) -> str:
    # Matplotlib's legends leave out names that begin with an underscore.
    shown = visible(text).strip(" _")
    if len(shown) <= _LONGEST:
        return shown
    return shown[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
