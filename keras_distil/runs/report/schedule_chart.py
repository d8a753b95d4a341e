"""Draws a recipe's schedules before it runs."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil import config, schedules
from keras_distil.config.distill_section import DistillSection
from keras_distil.runs import trainers
from keras_distil.runs.schedules import make_schedule
from keras_distil.runs.sections import distill_section
from keras_distil.utils import disk

# Points of a curve; the corners of schedules are added.
_POINTS = 500
_STYLES = ("-", "--", ":", "-.")


@dataclasses.dataclass(frozen=True)
class Curve:
    """A value over the updates.

    Attributes:
        name: name of the value.
        values: (steps,), value at each of `Curves.steps`.
    """

    name: str
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Curves:
    """All values of a distillation that may change.

    Attributes:
        steps: int, (points,), number of updates made before.
        settings: by setting, a curve for each loss that has it. The weights
            come last.
        learning_rate: the optimizer's learning rate.
    """

    steps: np.ndarray
    settings: dict[str, tuple[Curve, ...]]
    learning_rate: Curve


def compute(recipe: config.Recipe, *, steps: int | None = None) -> Curves:
    """Evaluates the recipe's schedules.

    Args:
        recipe: a recipe with a `distill` section.
        steps: int >= 1, updates, for a recipe that counts epochs.

    Raises:
        ValueError: if the recipe distils nothing, or the number of updates is
            not known.
    """
    settings = distill_section(recipe)
    total = steps or settings.steps
    if total is None:
        raise ValueError(
            f"The recipe {recipe.name!r} counts epochs, so its updates depend "
            "on the corpus: give their number with --steps."
        )
    at = np.unique(
        np.concatenate(
            [np.linspace(0, total - 1, _POINTS).astype(int), _corners(recipe)]
        )
    )
    at = at[at < total]

    rate = trainers.learning_rate_schedule(
        learning_rate=settings.learning_rate,
        steps=total,
        warmup_steps=settings.warmup_steps,
        decay=settings.decay,
    )
    return Curves(
        steps=at,
        settings=_settings(settings, at),
        learning_rate=Curve(
            "learning_rate", np.array([float(rate(step)) for step in at])
        ),
    )


def _settings(
    distill: DistillSection, steps: np.ndarray
) -> dict[str, tuple[Curve, ...]]:
    """Curves of the settings that may be scheduled, by setting."""
    found: dict[str, list[Curve]] = {}
    for name, settings in distill.losses.by_name.items():
        given = distill.schedules.by_name.get(name, {})
        for setting in settings.scheduled:
            value: Callable = schedules.Constant(getattr(settings, setting))
            if setting in given:
                value = make_schedule(given[setting])
            curve = np.array([float(value(step)) for step in steps])
            found.setdefault(setting, []).append(
                Curve(f"{name}_{setting}", curve)
            )
    found["weight"] = found.pop("weight")
    return {setting: tuple(curves) for setting, curves in found.items()}


def _corners(recipe: config.Recipe) -> np.ndarray:
    """Updates at which a schedule turns, and the updates before them."""
    settings = distill_section(recipe)
    found = [settings.warmup_steps]
    for by_setting in settings.schedules.by_name.values():
        for each in by_setting.values():
            found += list(getattr(each, "boundaries", ()))
            found.append(getattr(each, "steps", 0))
    corners = np.array(found, int)
    return np.maximum(np.concatenate([corners, corners - 1, corners + 1]), 0)


def draw(curves: Curves, path: Path, *, title: str) -> None:
    """Draws a panel for each setting, and one for the learning rate.

    Args:
        curves: from `compute`.
        path: the PNG to write.
        title: title of the picture.

    Raises:
        OSError: if it cannot be written.
    """
    # Importing it takes a second; it draws without a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = make_figure(curves, size=(8.0, 7.0))
    figure.axes[0].set_title(title)
    partial = path.with_name(f".{path.name}")
    with disk.replacing(path, partial):
        FigureCanvasAgg(figure).print_png(str(partial))


def make_figure(curves: Curves, *, size: tuple[float, float]) -> Any:
    """Makes the panels as a Matplotlib figure.

    Args:
        curves: from `compute`.
        size: width and height in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    shown = (*curves.settings.values(), (curves.learning_rate,))
    panels = figure.subplots(len(shown), 1, sharex=True)
    for axes, lines in zip(panels, shown, strict=True):
        for number, line in enumerate(lines):
            # A curve below another one shows in its gaps.
            style = _STYLES[number % len(_STYLES)]
            axes.plot(curves.steps, line.values, style, label=line.name)
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
        axes.legend(loc="best")
    panels[-1].locator_params(axis="x", integer=True)
    panels[-1].set_xlabel("updates")
    return figure
