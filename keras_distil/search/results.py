"""The results of a search: table, picture and best recipe."""

import json
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
import rich.table
from keras_tuner.errors import FailedTrialError

from keras_distil import config
from keras_distil.evaluation.task_metrics import ERRORS
from keras_distil.runs.run_folder import Run, read_text, write_json
from keras_distil.runs.sections import search_settings
from keras_distil.search.trials import (
    CHECKED,
    REACHED,
    RECIPE,
    RecipeTrials,
    get_recipe_values,
)
from keras_distil.utils import disk

RESULT_FILE = "search.json"
BEST_FILE = "best.yaml"
CHART_FILE = "trials.png"


def score_own_values(trials: RecipeTrials) -> dict[str, Any]:
    """Scores the recipe's own values, or says why they have no score."""
    try:
        return {"scores": trials.own_scores()}
    except FailedTrialError as error:
        return {"message": str(error)}


def collect(
    run: Run, tuner: keras_tuner.Tuner, own: dict[str, Any] | None
) -> dict[str, Any]:
    """Collects the trials of a finished search, in order.

    Returns:
        A dict of plain values: "objective", "direction", "trials" (the first
        has the recipe's own values), and "best", the index of the best trial
        or None if all have failed.
    """
    settings = search_settings(run.recipe)
    objective = tuner.oracle.objective
    before = {"name": RECIPE, "values": get_recipe_values(run.recipe)}
    rows = [{**before, **(own or {}), "score": None}]
    for trial_id in sorted(tuner.oracle.trials):
        trial = tuner.oracle.trials[trial_id]
        values = {
            key: trial.hyperparameters.values[key]
            for key in settings.space
            if key in trial.hyperparameters.values
        }
        row: dict[str, Any] = {"name": f"trial_{trial_id}", "values": values}
        if trial.status == "COMPLETED":
            reached = Path(tuner.get_trial_dir(trial_id)) / REACHED
            row["scores"] = json.loads(read_text(reached))
        else:
            row["message"] = _last_line(trial.message)
        rows.append(row)
    for row in rows:
        row["score"] = row.get("scores", {}).get(objective.name)
    sign = -1 if objective.direction == "min" else 1
    ended = [x for x in range(1, len(rows)) if rows[x]["score"] is not None]
    return {
        "name": run.recipe.name,
        "objective": settings.objective,
        "metric": objective.name,
        "direction": objective.direction,
        "is_error": counts_errors(run.recipe),
        "trials": rows,
        "best": max(
            ended, key=lambda at: sign * rows[at]["score"], default=None
        ),
    }


def counts_errors(recipe: config.Recipe) -> bool:
    """Whether a search's objective is a task's error, counted negative."""
    if recipe.finetune is None:
        return False
    task = recipe.finetune.own_task(search_settings(recipe).objective)
    return task is not None and task.metric in ERRORS


def _last_line(message: str | None) -> str:
    """Extracts the error from KerasTuner's message, a whole traceback."""
    lines = (message or "").strip().splitlines()
    return lines[-1].partition(": ")[2] or lines[-1] if lines else "unknown"


def write(run: Run, result: dict[str, Any]) -> None:
    """Writes the results, the chart and the best recipe."""
    write_json(run.folder / RESULT_FILE, result)
    draw(result, run.folder / CHART_FILE)
    if result["best"] is not None:
        disk.write_text(run.folder / BEST_FILE, best_recipe(run.recipe, result))


def read(folder: Path) -> dict[str, Any] | None:
    """Reads the results in a search's folder; None if it has not ended."""
    try:
        result = json.loads(read_text(folder / RESULT_FILE))
        whole = len(result["trials"]) > 1 and "best" in result
        best = result["best"]
        whole = whole and (best is None or 0 < best < len(result["trials"]))
        make_table(result)
        summary(result)
    # The file is missing or damaged, so it is made again.
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return result if whole else None


def best_recipe(recipe: config.Recipe, result: dict[str, Any]) -> str:
    """Returns the best trial's recipe as YAML, ready to run."""
    best = result["trials"][result["best"]]
    space = search_settings(recipe).space
    values = {
        key: _value(space[key], value) for key, value in best["values"].items()
    }
    chosen = config.with_values(
        recipe, {**values, "name": f"{recipe.name}_best"}
    )
    header = "".join(f"# {line}\n" for line in summary(result))
    return f"{header}{config.dump_recipe(chosen)}"


def _value(dimension: config.Dimension, value: Any) -> Any:
    """Returns the value that a tuner's value represents."""
    if dimension.bounds is not None:
        return value
    return dimension.by_value()[value]


def summary(result: dict[str, Any]) -> list[str]:
    """Describes the gain of a search in sentences."""
    trials = result["trials"]
    failed = sum(x["score"] is None for x in trials[1:])
    lines = [
        f"{len(trials) - 1} trials, {failed} without a score; "
        f"objective: {_title(result)} ({_direction(result)})."
    ]
    if result["best"] is None:
        return [*lines, "No trial has a score."]
    best, before = trials[result["best"]], trials[0]
    lines.append(f"Best: {best['name']}.")
    if before["score"] is None:
        return [*lines, "The recipe's own values have no score to compare."]
    own, chosen = before["score"], best["score"]
    lines.append(
        f"{_format_score(result, own)} with the recipe's own values, "
        f"{_format_score(result, chosen)} with those of {best['name']}, which "
        f"was chosen for it: {_format_gain(result, own, chosen)}."
    )
    key = f"{CHECKED}_{result['objective']}"
    if key in best["scores"]:
        own, chosen = before["scores"][key], best["scores"][key]
        lines.append(
            "On held-out text not used to choose a trial: "
            f"{_format_score(result, own)} and "
            f"{_format_score(result, chosen)}, "
            f"{_format_gain(result, own, chosen)}."
        )
    return lines


def _is_error(result: dict[str, Any]) -> bool:
    # Results of earlier versions do not say.
    return result.get("is_error", False)


def _title(result: dict[str, Any]) -> str:
    name = result["objective"]
    return f"{name} (error)" if _is_error(result) else name


def _direction(result: dict[str, Any]) -> str:
    """The direction of what is shown: that of an error is "min"."""
    return "min" if _is_error(result) else result["direction"]


def _shown(result: dict[str, Any], score: float) -> float:
    """Turns an error, which is counted negative, into what it is."""
    return -score if _is_error(result) else score


def _format_score(result: dict[str, Any], score: float) -> str:
    if _is_error(result) or result["objective"] == "mlm_loss":
        return f"{_shown(result, score):z.3f}"
    return f"{100 * score:.2f}%"


def _format_gain(result: dict[str, Any], before: float, after: float) -> str:
    if _is_error(result) or result["objective"] == "mlm_loss":
        return f"{_shown(result, after) - _shown(result, before):+z.3f}"
    return f"{100 * (after - before):+.2f} points"


def make_table(result: dict[str, Any]) -> rich.table.Table:
    """Makes a terminal table of trials, with the best marked."""
    keys = _keys(result)
    table = rich.table.Table(title=f"{result['name']}, search")
    table.add_column("trial")
    for key in keys:
        table.add_column(_shorten_key(key), justify="right")
    table.add_column(_title(result), justify="right")
    table.add_column("s", justify="right")
    for at, row in enumerate(result["trials"]):
        style = "bold" if at == result["best"] else None
        cells = [_format_value(row["values"].get(key)) for key in keys]
        scores = row.get("scores")
        table.add_row(
            row["name"],
            *cells,
            _format_score(result, row["score"]) if scores else row["message"],
            f"{scores['duration_s']:.0f}" if scores else "",
            style=style,
        )
    return table


def _keys(result: dict[str, Any]) -> list[str]:
    return list(
        dict.fromkeys(key for x in result["trials"] for key in x["values"])
    )


def _shorten_key(key: str) -> str:
    return key.rpartition(".")[2]


def _format_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draws the trials as lines across axes for each key and the score.

    Args:
        result: as from `collect`.
        path: the PNG to write.

    Raises:
        OSError: if it cannot be written.
    """
    # Imported late, because it takes a second. It draws without a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    keys = _keys(result)
    rows = [x for x in result["trials"][1:] if x["score"] is not None]
    # Worst first, so that the best is drawn over the others.
    rows.sort(
        key=lambda row: row["score"], reverse=result["direction"] == "min"
    )
    size = 2.2 * (len(keys) + 1) + 1, 5.0
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{result['name']}: {len(rows)} trials")
    columns = [_axis([row["values"].get(key) for row in rows]) for key in keys]
    before = result["trials"][0]["score"]
    if before is not None:
        before = _shown(result, before)
    scores = [_shown(result, row["score"]) for row in rows]
    # Include the recipe's own score in the axis.
    places, ticks = _axis(scores + [before] * (before is not None))
    columns.append((places[: len(rows)], ticks))
    _draw_trials(axes, rows, np.array([at for at, _ in columns]).T)
    if before is not None:
        end = len(keys)
        axes.plot(
            [end - 0.2, end + 0.05],
            [places[-1]] * 2,
            "k:",
            linewidth=2.0,
            label="the recipe's own values",
        )
    _draw_axes(axes, columns)
    names = [*map(_shorten_key, keys), _title(result)]
    axes.set_xticks(range(len(names)), names)
    if rows or before is not None:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2)
    partial = path.with_name(f".{path.name}")
    with disk.replacing(path, partial):
        FigureCanvasAgg(figure).print_png(str(partial))


def _draw_trials(axes: Any, rows: list[Any], places: np.ndarray) -> None:
    """Draws a line for each trial; the last one is the best."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    last = len(rows) - 1
    for at, row in enumerate(rows):
        axes.plot(
            places[at],
            color=colours(at / max(last, 1)),
            linewidth=3.0 if at == last else 1.2,
            label=f"best: {row['name']}" if at == last else None,
        )


def _draw_axes(axes: Any, columns: list[tuple]) -> None:
    """Draws upright axes with their ticks."""
    for at, (_, ticks) in enumerate(columns):
        axes.axvline(at, color="black", linewidth=0.8)
        for place, text in ticks:
            axes.annotate(
                text,
                (at, place),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox={"boxstyle": "round,pad=0.1", "fc": "white", "lw": 0},
            )
    axes.set_xlim(-0.2, len(columns) - 0.4)
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _axis(values: list[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Places values on an axis from 0 to 1; returns its ticks as well."""
    if not all(isinstance(x, (int, float)) for x in values):
        known = sorted(set(map(str, values)))
        span = max(len(known) - 1, 1)
        ticks = [(at / span, text) for at, text in enumerate(known)]
        return [known.index(str(x)) / span for x in values], ticks
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        return [0.5 for _ in values], [(0.5, _format_value(low))]
    wide = low > 0 and high / low > 30
    ends = (np.log(low), np.log(high)) if wide else (low, high)

    def place(value: float) -> float:
        drawn = np.log(value) if wide else value
        return float((drawn - ends[0]) / (ends[1] - ends[0]))

    marks = np.linspace(ends[0], ends[1], 5)
    texts = list(np.exp(marks) if wide else marks)
    if all(isinstance(x, int) for x in values):
        texts = sorted(set(values))
    ticks = [(place(text), f"{text:.3g}") for text in texts]
    return [place(value) for value in values], ticks
