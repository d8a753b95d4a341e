"""Makes the score table of a run: medians, intervals, comparisons."""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from keras_distil.evaluation.retention import chance_score, kept_percent
from keras_distil.evaluation.significance import (
    COUNTED_METRICS,
    Array,
    Metric,
    bootstrap_scores,
    interval,
    macro_samples,
    mean_of,
    paired_difference,
    task_seed,
)
from keras_distil.runs.score_table import (
    BASELINE,
    ELMO,
    STUDENT,
    TEACHER,
    Comparison,
    Costs,
    MacroScore,
    PublishedRow,
    Range,
    ResultTable,
    Row,
    TaskResult,
    TaskScore,
)


def make_table(
    results: Mapping[str, Mapping[str, TaskResult]],
    costs: Mapping[str, Costs],
    published: Iterable[PublishedRow] | None = None,
    *,
    metrics: Mapping[str, Metric] | None = None,
    selection: Literal["dev", "train"] = "dev",
    cut: Sequence[str] = (),
    cut_tasks: Sequence[str] = (),
    errors: Sequence[str] = (),
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ResultTable:
    """Computes the table of a run.

    Args:
        results: by row and task. Rows may lack tasks; all rows of a task must
            have the same labels.
        costs: by row.
        published: scores of other models to show beside ours; `PUBLISHED` has
            those of DistilBERT.
        metrics: by task, the main score, 0 to 1, as a function of labels and
            the predictions of one seed. For other tasks it is the mean of their
            single metrics, recomputed from the examples.
        selection: where the epochs were chosen, for the notes of the table.
        cut: rows that began as layers of the fine-tuned teacher.
        cut_tasks: the tasks on which they did.
        errors: tasks whose scores are errors, counted negative.
        level: float between 0 and 1, confidence level of the intervals.
        resamples: int >= 1, number of bootstrap draws.
        seed: int >= 0, seed of the draws.

    Raises:
        TypeError: if `resamples` or `seed` is not an integer.
        ValueError: if there is nothing to show, `costs` has a row that
            `results` lacks, the rows of a task have different labels or
            metrics, a metric is unknown or does not match the examples, or an
            argument is out of range.
    """
    tasks = _check_results(results, costs)
    given = dict(metrics or {})
    metrics = {
        task: given.get(task) or _mean_metric(task, results) for task in tasks
    }
    known = [row for row in (TEACHER, STUDENT, BASELINE) if row in results]
    others = [row for row in results if row not in (*known, ELMO)]
    order = known + others + [row for row in results if row == ELMO]
    measured = {
        name: _measure(results[name], tasks, metrics, resamples, seed)
        for name in order
    }
    pairs = [(name, TEACHER) for name in order if name != TEACHER]
    return ResultTable(
        tasks=tasks,
        rows=tuple(
            _row(name, results[name], measured, costs, level) for name in order
        ),
        comparisons=tuple(
            _compare(first, second, column, measured, level)
            for first, second in [*pairs, (STUDENT, BASELINE)]
            for column in (*tasks, None)
            if column in measured.get(first, {})
            and column in measured.get(second, {})
        ),
        published=tuple(published or ()),
        level=level,
        resamples=resamples,
        selection=selection,
        cut=tuple(cut),
        cut_tasks=tuple(cut_tasks),
        errors=tuple(errors),
    )


@dataclasses.dataclass(frozen=True)
class _Measured:
    """A row's score in one column, in percent.

    Attributes:
        seeds: score of each seed; empty for the mean over the tasks.
        score: median over the seeds.
        draws: (resamples,), bootstrap scores.
        chance: score of always answering the most frequent class.
    """

    seeds: tuple[float, ...]
    score: float
    draws: Array
    chance: float


# By task; None is the mean over all tasks, if the row has them all.
_MeasuredRow = dict[str | None, _Measured]


def _check_results(
    results: Mapping[str, Mapping[str, TaskResult]],
    costs: Mapping[str, Costs],
) -> tuple[str, ...]:
    """Returns the tasks of all rows, in order of first appearance."""
    tasks = tuple(
        dict.fromkeys(task for row in results.values() for task in row)
    )
    if not tasks:
        raise ValueError(
            "`results` must hold a task or more. Received: rows "
            f"{list(results)} without any."
        )
    unknown = [name for name in costs if name not in results]
    if unknown:
        raise ValueError(
            f"`costs` must be of the rows of `results`, {list(results)}. "
            f"Received: {unknown}."
        )
    for task in tasks:
        first, *others = [row[task] for row in results.values() if task in row]
        for other in others:
            if not np.array_equal(first.examples.labels, other.examples.labels):
                raise ValueError(
                    "`results` must have the same labels in every row. "
                    f"Received: different ones of '{task}'."
                )
            if set(first.metrics[0]) != set(other.metrics[0]):
                raise ValueError(
                    "`results` must have the same metrics in every row. "
                    f"Received: for '{task}' {sorted(first.metrics[0])} and "
                    f"{sorted(other.metrics[0])}."
                )
    return tasks


def _mean_metric(
    task: str, results: Mapping[str, Mapping[str, TaskResult]]
) -> Metric:
    """Returns the mean of a task's single metrics, after checking them."""
    found = [row[task] for row in results.values() if task in row]
    names = list(found[0].metrics[0])
    if not names or not set(names) <= set(COUNTED_METRICS):
        raise ValueError(
            f"`metrics` must have a function for '{task}', unless its single "
            f"metrics are of {list(COUNTED_METRICS)}. Received: {names}."
        )
    for result in found:
        labels = result.examples.labels
        for said, one in zip(
            result.metrics, result.examples.predictions, strict=True
        ):
            for name in names:
                score = COUNTED_METRICS[name](labels, one)
                # Metrics in float32 are slightly off.
                if abs(score - said[name]) > 1e-5:
                    raise ValueError(
                        "The single metrics must be those of the examples. "
                        f"Received: {name}={said[name]} of '{task}', whose "
                        f"examples give {score}."
                    )
    return mean_of(*(COUNTED_METRICS[name] for name in names))


def _measure(
    row: Mapping[str, TaskResult],
    tasks: Sequence[str],
    metrics: Mapping[str, Metric],
    resamples: int,
    seed: int,
) -> _MeasuredRow:
    measured: _MeasuredRow = {}
    draws = {}
    for task in [task for task in tasks if task in row]:
        labels = row[task].examples.labels
        predictions = row[task].examples.predictions
        draws[task] = 100.0 * bootstrap_scores(
            labels,
            predictions,
            metrics[task],
            resamples=resamples,
            seed=task_seed(task, seed),
        )
        seeds = [100.0 * float(metrics[task](labels, p)) for p in predictions]
        measured[task] = _Measured(
            tuple(seeds),
            statistics.median(seeds),
            draws[task],
            100.0 * chance_score(labels, metrics[task]),
        )
    if len(draws) == len(tasks):
        mean = statistics.fmean(found.score for found in measured.values())
        chance = statistics.fmean(found.chance for found in measured.values())
        measured[None] = _Measured((), mean, macro_samples(draws), chance)
    return measured


def _row(
    name: str,
    row: Mapping[str, TaskResult],
    measured: Mapping[str, _MeasuredRow],
    costs: Mapping[str, Costs],
    level: float,
) -> Row:
    def common(column: str | None) -> dict[str, Any]:
        found = measured[name][column]
        best = measured.get(TEACHER, {}).get(column)
        whole = None if best is None else best.score
        return {
            "score": found.score,
            "interval": _range(found.draws, level),
            "retention": kept_percent(found.score, whole, found.chance),
        }

    own, teachers = costs.get(name, Costs()), costs.get(TEACHER, Costs())
    return Row(
        name=name,
        tasks={
            task: TaskScore(
                **common(task),
                lowest=min(found.seeds),
                highest=max(found.seeds),
                seeds=len(found.seeds),
                metrics=_medians(row[task].metrics),
            )
            for task, found in measured[name].items()
            if task is not None
        },
        macro=MacroScore(**common(None)) if None in measured[name] else None,
        parameters=own.parameters,
        size_mb=own.size_mb,
        latency_ms=own.latency_ms,
        latency_ratio=_ratio(own.latency_ms, teachers.latency_ms),
    )


def _compare(
    first: str,
    second: str,
    column: str | None,
    measured: Mapping[str, _MeasuredRow],
    level: float,
) -> Comparison:
    one, other = measured[first][column], measured[second][column]
    found = paired_difference(one.draws, other.draws, level)
    return Comparison(
        first=first,
        second=second,
        task=column,
        difference=one.score - other.score,
        interval=Range(low=found.low, high=found.high),
        p_value=found.p_value,
        significant=not found.inside,
        level=level,
    )


def _range(draws: Array, level: float) -> Range:
    ends = interval(draws, level)
    return Range(low=ends.low, high=ends.high)


def _ratio(value: float | None, whole: float | None) -> float | None:
    return value / whole if value is not None and whole else None


def _medians(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        name: 100.0 * statistics.median(float(one[name]) for one in metrics)
        for name in metrics[0]
    }
