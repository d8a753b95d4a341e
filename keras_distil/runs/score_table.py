"""The paper's table: what was lost, what was gained, and how sure that is."""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pydantic

from keras_distil.evaluation.retention import chance_score, kept_percent
from keras_distil.evaluation.significance import (
    COUNTED_METRICS,
    Array,
    Metric,
    ScoredExamples,
    bootstrap_scores,
    interval,
    macro_samples,
    mean_of,
    paired_difference,
    task_seed,
)
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Section,
    Share,
    StepCount,
)

# Rows of any other name are models of the student's size, too.
TEACHER, STUDENT = "teacher", "student"
BASELINE, ELMO = "baseline", "elmo"


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """What one row of the table reached on one task.

    Attributes:
        examples: labels and predictions of the dev examples, seed by seed.
        metrics: the single metrics of each seed by name, 0 to 1 (correlations
            -1 to 1), in the order of the predictions.

    Raises:
        ValueError: if the seeds of both are not the same number, they name
            different metrics or a metric is not finite.
    """

    examples: ScoredExamples
    metrics: Sequence[Mapping[str, float]]

    def __post_init__(self) -> None:
        """Checks the metrics."""
        seeds = len(self.examples.predictions)
        if len(self.metrics) != seeds:
            raise ValueError(
                f"`metrics` must hold one entry for each of the {seeds} seeds "
                f"of `examples`. Received: {len(self.metrics)}."
            )
        names = [sorted(metrics) for metrics in self.metrics]
        if any(other != names[0] for other in names):
            raise ValueError(
                "`metrics` must name the same metrics for every seed. "
                f"Received: {names}."
            )
        for values in self.metrics:
            for name, value in values.items():
                if not math.isfinite(value):
                    raise ValueError(
                        "`metrics` must be finite numbers. Received: "
                        f"{name}={value}."
                    )


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a row's model costs; None where it was not measured.

    Attributes:
        parameters: number of weights.
        size_mb: size on disk, in megabytes (1e6 bytes).
        latency_ms: on the CPU, of one input (batch 1), in milliseconds.

    Raises:
        ValueError: if one is negative or not finite.
    """

    parameters: int | None = None
    size_mb: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for name, value in vars(self).items():
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(
                    f"`{name}` must be a finite number that is not negative. "
                    f"Received: {name}={value}."
                )


class Range(Section):
    """A percentile interval of the bootstrap, in points (percent)."""

    low: float
    high: float


class TaskScore(Section):
    """A row's score on a task, in percent.

    Attributes:
        score: the task's main score, median over the seeds.
        lowest: of the worst seed.
        highest: of the best seed.
        seeds: how often the model was trained.
        interval: of `score`, from the choice of the dev examples.
        metrics: the single metrics by name, medians over the seeds.
        retention: share of the teacher's score; None without a teacher, or
            with one that scores no more than a constant answer.
    """

    score: float
    lowest: float
    highest: float
    seeds: Count
    interval: Range
    metrics: dict[str, float]
    retention: float | None


class MacroScore(Section):
    """The mean of a row's scores over all tasks of the table, in percent."""

    score: float
    interval: Range
    retention: float | None


class Row(Section):
    """A model of the table.

    Attributes:
        name: "teacher", "student", "baseline" (the student, trained without a
            teacher), "elmo", or another name.
        tasks: scores by task; tasks that were not run are left out.
        macro: None unless every task of the table is there.
        parameters: number of weights.
        size_mb: size on disk, in megabytes (1e6 bytes).
        latency_ms: on the CPU, of one input, in milliseconds.
        latency_ratio: `latency_ms` over the teacher's; below 1 is faster.
    """

    name: str
    tasks: dict[str, TaskScore]
    macro: MacroScore | None
    parameters: StepCount | None
    size_mb: NonNegative | None
    latency_ms: NonNegative | None
    latency_ratio: NonNegative | None

    @property
    def student_size(self) -> bool:
        """Whether the row competes with the student."""
        return self.name not in (TEACHER, ELMO)


class PublishedRow(Section):
    """What others report of a model, in percent, to set beside our rows.

    Attributes:
        name: of the model.
        source: who says so.
        scores: by task.
        macro: mean over the tasks of the source, which may be others.
        retention: share of the macro of the source's teacher.
        parameters: number of weights.
        latency_ms: on the source's machine: nothing to compare ours with,
            except its ratios.
    """

    name: str
    source: str
    scores: dict[str, float] = {}
    macro: float | None = None
    retention: float | None = None
    parameters: StepCount | None = None
    latency_ms: NonNegative | None = None


class Comparison(Section):
    """The difference of two rows on the same draws of examples.

    Attributes:
        first: name of a row.
        second: name of another.
        task: its name; None for the mean over the tasks.
        difference: score of the first minus that of the second, in points.
        interval: of the difference.
        p_value: share of the draws in which the first does not score above
            the second (one-sided).
        significant: whether 0 is outside the interval.
        level: of the interval.
    """

    first: str
    second: str
    task: str | None
    difference: float
    interval: Range
    p_value: Share
    significant: bool
    level: Share

    @property
    def sentence(self) -> str:
        """Says in words whether the difference counts."""
        where = self.task
        if where is None:
            where = "the mean over the tasks"
        low, high = _ends(self.interval)
        if self.significant:
            verdict, zero = "is significant", "does not contain 0"
        else:
            verdict, zero = "is not significant", "contains 0"
        return (
            f"The difference of {points(self.difference)} points between "
            f"{self.first} and {self.second} on {where} {verdict}: its "
            f"{100 * self.level:g}% interval [{low}, {high}] {zero}."
        )


class ResultTable(Section):
    """The table, as it is shown, kept and read again.

    Attributes:
        format_version: of the JSON.
        tasks: the columns.
        rows: the models, teacher first.
        comparisons: every row with the teacher and the student with the
            baseline, on every task and on the mean over the tasks.
        published: figures of others.
        level: of all intervals.
        resamples: draws behind them.
    """

    format_version: Literal[1] = 1
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    published: tuple[PublishedRow, ...] = ()
    level: Share
    resamples: Count

    @pydantic.model_validator(mode="after")
    def _check_names(self) -> "ResultTable":
        names = [row.name for row in self.rows]
        used = [task for row in self.rows for task in row.tasks]
        compared = {c.task for c in self.comparisons} - {None}
        sides = [s for c in self.comparisons for s in (c.first, c.second)]
        if len(set(names)) < len(names) or len(set(self.tasks)) < len(
            self.tasks
        ):
            raise ValueError("rows and tasks must have different names")
        if not {*used, *compared} <= set(self.tasks):
            raise ValueError("`tasks` must name every task that is used")
        if not set(sides) <= set(names):
            raise ValueError("comparisons must be of rows of the table")
        return self

    def comparison(
        self, first: str, second: str, task: str | None = None
    ) -> Comparison | None:
        """Returns a comparison; None if it was not made.

        Args:
            first: name of a row.
            second: name of another.
            task: None for the mean over the tasks.
        """
        for found in self.comparisons:
            if (found.first, found.second, found.task) == (first, second, task):
                return found
        return None

    def to_json(self) -> str:
        """Returns JSON that `from_json` reads."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ResultTable":
        """Returns the table that `to_json` wrote.

        Args:
            text: JSON.

        Raises:
            ValueError: if it is damaged, or from another version.
        """
        try:
            return cls.model_validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"])
        said = f"{place}: {first['msg']}" if place else first["msg"]
        raise ValueError(
            "`text` must be the JSON of a results table, format version 1. "
            f"Received: {said}."
        )


_SUMMARY = (
    "Summary of Sanh et al. 2019, arXiv:1910.01108, that this project "
    "implements, section 3.1"
)
PUBLISHED = (
    PublishedRow(
        name="BERT-base",
        source=_SUMMARY,
        scores={
            "cola": 56.3,
            "mnli": 84.7,
            "mrpc": 88.6,
            "qnli": 91.8,
            "qqp": 89.6,
            "rte": 69.3,
            "sst2": 92.7,
            "stsb": 89.0,
            "wnli": 53.5,
        },
        macro=79.5,
        retention=100.0,
        parameters=110_000_000,
        latency_ms=649.0,
    ),
    PublishedRow(
        name="DistilBERT",
        source=_SUMMARY,
        scores={
            "cola": 51.3,
            "mnli": 82.1,
            "mrpc": 87.5,
            "qnli": 89.2,
            "qqp": 88.5,
            "rte": 59.9,
            "sst2": 91.3,
            "stsb": 86.9,
            "wnli": 56.3,
        },
        macro=77.0,
        # It says 97; so it follows from the scores.
        retention=100 * 77.0 / 79.5,
        parameters=66_000_000,
        latency_ms=410.0,
    ),
    PublishedRow(
        name="ELMo",
        source=_SUMMARY,
        macro=71.0,
        retention=100 * 71.0 / 79.5,
        parameters=180_000_000,
        latency_ms=895.0,
    ),
)


def make_table(
    results: Mapping[str, Mapping[str, TaskResult]],
    costs: Mapping[str, Costs],
    published: Iterable[PublishedRow] | None = None,
    *,
    metrics: Mapping[str, Metric] | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ResultTable:
    """Computes the table of a run.

    Args:
        results: by row and task. Rows may lack tasks; all rows of a task must
            have the same labels.
        costs: by row.
        published: figures to set beside; `PUBLISHED` has those of DistilBERT.
        metrics: main score of a task, 0 to 1, as a function of labels and
            the predictions of one seed. A task that is not named here has the
            mean of its single metrics, computed anew from the examples.
        level: float between 0 and 1, of the intervals.
        resamples: int >= 1, draws of the bootstrap.
        seed: int >= 0, of the draws.

    Raises:
        TypeError: if `resamples` or `seed` is no integer.
        ValueError: if there is nothing to show, `costs` has a row that
            `results` has not, the rows of a task have different labels or
            metrics, a metric is unknown or not that of the examples, or an
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
    )


def points(value: float, digits: int = 1) -> str:
    """Writes percent or points with one decimal, and never "-0.0"."""
    return f"{value:z.{digits}f}"


@dataclasses.dataclass(frozen=True)
class _Measured:
    """A row's score in one column, in percent.

    Attributes:
        seeds: of each seed; empty for the mean over the tasks.
        score: median over the seeds.
        draws: (resamples,), of the bootstrap.
        chance: of always answering the most frequent class.
    """

    seeds: tuple[float, ...]
    score: float
    draws: Array
    chance: float


# By task; None is the mean over all tasks, where the row has all.
_MeasuredRow = dict[str | None, _Measured]


def _check_results(
    results: Mapping[str, Mapping[str, TaskResult]],
    costs: Mapping[str, Costs],
) -> tuple[str, ...]:
    """Returns the tasks of all rows, in the order in which they come."""
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
    """Returns the mean of a task's single metrics, checked to be that."""
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
                # Metrics in float32 are a little off.
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


def _ends(ends: Range) -> tuple[str, str]:
    """Writes an interval so that an end shows as 0 only if it is 0."""
    both = [value for value in (ends.low, ends.high) if value]
    digits = 1
    while digits < 6 and any(not round(value, digits) for value in both):
        digits += 1
    return points(ends.low, digits), points(ends.high, digits)
