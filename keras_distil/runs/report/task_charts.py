"""Charts of a task's answers: which classes are confused, and calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_distil.runs.details.schema import CALIBRATED, Reliability
from keras_distil.runs.report import svg
from keras_distil.runs.report.charts import WIDTH, color_of
from keras_distil.runs.score_table import STUDENT, TEACHER
from keras_distil.utils.markdown import visible

# Characters of a class's name beside a table of confusions.
_LONGEST = 16
# Of the dots of a reliability diagram; others are circles.
_SHAPES = {TEACHER: "s", CALIBRATED: "D"}


def draw_confusions(
    title: str,
    names: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    prefix: str,
) -> str:
    """Draws a table of confusions, dark where a class is often taken for one.

    The colour of a cell is its share of the class's row.

    Args:
        title: whose answers they are.
        names: the classes.
        counts: examples of each class (row) by the model's answer (column).
        prefix: as for `svg.inline`.
    """
    from matplotlib.figure import Figure

    table = np.array(counts, np.float64)
    count = len(names)
    whole = table.sum(axis=1, keepdims=True)
    share = np.divide(table, whole, out=np.zeros_like(table), where=whole > 0)
    shown = [_short(name) for name in names]
    with svg.style():
        figure = Figure(
            figsize=(WIDTH, 1.4 + 0.27 * count), layout="constrained"
        )
        axes = figure.add_subplot()
        axes.pcolormesh(
            share,
            vmin=0.0,
            vmax=1.0,
            cmap="Blues",
            edgecolors=svg.PAPER,
            linewidth=0.8,
        )
        places = np.arange(count) + 0.5
        is_long = max(map(len, shown)) * count > 40
        axes.set_xticks(places, shown, rotation=90 if is_long else 0)
        axes.set_yticks(places, shown)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        axes.set_xlabel("answer")
        axes.set_ylabel("label")
        for (row, column), value in np.ndenumerate(table):
            if value:
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{int(value)}",
                    ha="center",
                    va="center",
                    fontsize=9.0 if count <= 8 else 7.0,
                    color="white" if share[row, column] > 0.6 else "black",
                )
        right = int(np.trace(table))
        return svg.inline(
            figure,
            label=f"{title}: {right} of {int(table.sum())} examples of "
            f"{count} classes are right",
            prefix=prefix,
        )


def draw_reliability(rows: Mapping[str, Reliability], *, prefix: str) -> str:
    """Draws accuracy over confidence, one curve per model.

    The area of a dot grows with the number of answers.

    Args:
        rows: by row.
        prefix: as for `svg.inline`.
    """
    from matplotlib.figure import Figure

    with svg.style():
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1.0)
        handles = []
        for row, found in rows.items():
            color = color_of(STUDENT if row == CALIBRATED else row)
            places = (
                [each.confidence for each in found.bins],
                [each.accuracy for each in found.bins],
            )
            axes.plot(
                *places,
                color=color,
                linestyle="--" if row == CALIBRATED else "-",
                linewidth=1.2,
            )
            most = max(each.count for each in found.bins)
            sizes = [4.0 + 60.0 * each.count / most for each in found.bins]
            look: dict[str, Any] = {
                "marker": _SHAPES.get(row, "o"),
                "facecolors": "none",
                "edgecolors": color,
                "linewidths": 1.2,
            }
            axes.scatter(*places, s=sizes, **look)
            handles.append(axes.scatter([], [], s=40.0, label=row, **look))
        axes.set_xlabel("probability")
        axes.set_ylabel("share that is right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(handles=handles, loc="best")
        return svg.inline(
            figure,
            label="How often answers are right over their probability: "
            + ", ".join(rows),
            prefix=prefix,
        )


def _short(name: str) -> str:
    text = visible(name).strip()
    if len(text) <= _LONGEST:
        return text
    # Names that begin alike often end differently.
    half = _LONGEST // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[1 - half :]}"
