"""The sections of the report that hold charts."""

from collections.abc import Iterator, Mapping, Sequence

from keras_distil import config
from keras_distil.losses import registry
from keras_distil.models import student_layer_indices
from keras_distil.runs import score_table
from keras_distil.runs.comparison import SideBySide
from keras_distil.runs.report import charts, schedule_chart
from keras_distil.runs.report.charts import Dot, Line
from keras_distil.runs.report.html_page import (
    ReportSection,
    escape,
    show_charts,
)
from keras_distil.runs.report.learning import Series, Training
from keras_distil.training.metrics import find_metric

# The model that each stage trains, by the stage's name.
_ROLES = {
    "distill": score_table.STUDENT,
    "baseline": score_table.BASELINE,
    "teacher": score_table.TEACHER,
}
# The tasks of `distill`.
_TEXT_KINDS = (registry.MASKED_LM, registry.EMBEDDING)
# Scores of text that are drawn over the latency.
_SCORES = {
    "mlm_accuracy": "masked words right, %",
    "sts_spearman": "STS, Spearman, %",
    "ndcg@10": "nDCG@10, %",
}
# None of our runs has more in a group.
_MOST_CHARTS = 20


def learning_curves(trainings: Mapping[str, Training]) -> ReportSection | None:
    """The losses of each stage.

    Args:
        trainings: by stage.

    Returns:
        The section; None if there are no trainings.
    """
    drawn = [
        *_text_curves(trainings, ("distill", "baseline"), "student"),
        *_text_curves(trainings, ("teacher",), "teacher"),
        *_task_curves(trainings),
    ]
    if not drawn:
        return None
    note = (
        "Of the batches of each update, with dropout if the recipe has it; "
        "long trainings are shown by the means of neighbouring updates."
    )
    return _section("Learning curves", drawn, note)


def _text_curves(
    trainings: Mapping[str, Training], stages: Sequence[str], prefix: str
) -> Iterator[str]:
    """One chart for each value that the stages logged."""
    series = {
        stage: _of_interest(trainings[stage].series)
        for stage in stages
        if stage in trainings
    }
    names = dict.fromkeys(name for found in series.values() for name in found)
    for number, name in enumerate(list(names)[:_MOST_CHARTS]):
        lines = [
            Line(_ROLES[stage], found[name])
            for stage, found in series.items()
            if name in found
        ]
        metric = find_metric(name, kinds=_TEXT_KINDS)
        yield charts.draw_curves(
            metric.chart_title, lines, prefix=f"{prefix}-{number}"
        )


def _of_interest(series: Mapping[str, Series]) -> dict[str, Series]:
    """All series, without the sum of the losses if there is only one loss."""
    single = sum(name.endswith("_loss") for name in series) < 2
    return {
        name: found
        for name, found in series.items()
        if name != "loss" or not single
    }


def _task_curves(trainings: Mapping[str, Training]) -> Iterator[str]:
    """One chart per task: every model's loss on the labels."""
    by_task: dict[str, list[Line]] = {}
    for stage, training in trainings.items():
        task, _, rest = stage.partition("/")
        if rest and "label_loss" in training.series:
            line = Line(rest.split("/")[0], training.series["label_loss"])
            by_task.setdefault(task, []).append(line)
    for number, task in enumerate(list(by_task)[:_MOST_CHARTS]):
        title = f"{task}: {find_metric('label_loss').caption}"
        yield charts.draw_curves(title, by_task[task], prefix=f"task-{number}")


def schedules(
    recipe: config.Recipe | None, trainings: Mapping[str, Training]
) -> ReportSection | None:
    """Values that the recipe changes over the updates.

    Args:
        recipe: the run's recipe; None if it cannot be read.
        trainings: by stage; they give the number of updates if the recipe
            counts epochs.

    Returns:
        The section; None if nothing is distilled, or the number of updates is
        not known.
    """
    if recipe is None or recipe.distill is None:
        return None
    steps = recipe.distill.steps
    if steps is None and "distill" in trainings:
        steps = trainings["distill"].last_step
    if steps is None:
        return None
    curves = schedule_chart.compute(recipe, steps=steps)
    drawn = charts.draw_schedules(curves, prefix="schedules")
    return _section("Schedules", [drawn])


def similarity(
    compared: SideBySide | None, recipe: config.Recipe | None = None
) -> ReportSection | None:
    """A map of the teacher's layers against the student's.

    Args:
        compared: the run's comparison; None if it has none.
        recipe: the run's recipe; None if it cannot be read.
    """
    if compared is None:
        return None
    copied = copied_layers(compared, recipe)
    drawn = charts.draw_similarity(
        compared.similarity, copied=copied, prefix="similarity"
    )
    note = (
        "Linear CKA of the hidden states of "
        f"{compared.sequences} held-out sequences, at the end of the run: 1 "
        "(bright) if one is a rotation of the other, 0 (dark) if they have "
        "nothing in common. The first row and column are the embeddings "
        "(emb.). Kornblith et al. 2019, arXiv:1905.00414."
    )
    if copied:
        note += " Framed: the teacher's layer that the student's began as."
    return _section("Similarity of layers", [drawn], note)


def copied_layers(
    compared: SideBySide, recipe: config.Recipe | None
) -> list[int]:
    """The teacher's layer that each of the student's layers began as.

    Args:
        compared: the run's comparison.
        recipe: the run's recipe; None if it cannot be read.

    Returns:
        Indices from 0; empty if the student copied none, or it is not known.
    """
    student = None if recipe is None else recipe.student
    if student is None or student.source or student.hidden_dim:
        return []
    if student.initialization != "teacher":
        return []
    depths = len(compared.similarity) - 1, len(compared.similarity[0]) - 1
    try:
        return student_layer_indices(*depths, student.layers)
    except (TypeError, ValueError):
        # The files are not of one run.
        return []


def costs(
    rows: Mapping[str, Mapping[str, float]],
    tasks: score_table.ResultTable | None,
) -> ReportSection | None:
    """Score over size and latency.

    Args:
        rows: scores and costs on held-out text, by model name.
        tasks: the table of the tasks, if there is one.

    Returns:
        The section; None if no row has all three.
    """
    drawn = [
        charts.draw_costs(dots, score=score, prefix=f"costs-{number}")
        for number, (score, dots) in enumerate(cost_dots(rows, tasks).items())
    ]
    note = "To the left is smaller and faster, higher is better."
    return _section("Size, latency and score", drawn, note) if drawn else None


def cost_dots(
    rows: Mapping[str, Mapping[str, float]],
    tasks: score_table.ResultTable | None,
) -> dict[str, list[Dot]]:
    """The models of a run by score, those with all of size, latency and score.

    Args:
        rows: as for `costs`.
        tasks: likewise.
    """
    by_score = {
        shown: [
            Dot(model, row["latency_ms"], 100 * row[name], row["size_mb"])
            for model, row in rows.items()
            if {"latency_ms", name, "size_mb"} <= set(row)
        ]
        for name, shown in _SCORES.items()
    }
    by_score["mean score of the tasks, %"] = [
        Dot(row.name, row.latency_ms, row.macro.score, row.size_mb)
        for row in (tasks.rows if tasks and not tasks.errors else ())
        if row.macro and row.latency_ms and row.size_mb is not None
    ]
    drawn = {
        score: [dot for dot in dots if dot.can_be_drawn][:_MOST_CHARTS]
        for score, dots in by_score.items()
    }
    return {score: dots for score, dots in drawn.items() if dots}


def _section(
    heading: str, drawn: Sequence[str], note: str = ""
) -> ReportSection:
    body = show_charts(drawn)
    if note:
        body += f'\n<p class="notes">{escape(note)}</p>'
    return ReportSection(heading, body)
