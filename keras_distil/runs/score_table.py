"""The paper's table: losses, gains, and how certain they are."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import pydantic

from keras_distil.evaluation.significance import (
    ScoredExamples,
)
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Section,
    Share,
    StepCount,
)

# Rows with any other name are also models of the student's size.
TEACHER, STUDENT = "teacher", "student"
BASELINE, NGRAMS, ELMO = "baseline", "ngrams", "elmo"


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """Results of one row of the table on one task.

    Attributes:
        examples: labels and predictions of the dev examples, for each seed.
        metrics: the single metrics of each seed by name, 0 to 1 (correlations
            -1 to 1), in the order of the predictions.

    Raises:
        ValueError: if the two have different numbers of seeds, the seeds have
            different metrics, or a metric is not finite.
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
    """Costs of a row's model; None if not measured.

    Attributes:
        parameters: number of weights.
        size_mb: size on disk, in megabytes (1e6 bytes).
        latency_ms: CPU latency for one input (batch 1), in milliseconds.

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
    """A percentile interval from the bootstrap, in points (percent)."""

    low: float
    high: float


class TaskScore(Section):
    """A row's score on a task, in percent.

    Attributes:
        score: the task's main score, median over the seeds.
        lowest: score of the worst seed.
        highest: score of the best seed.
        seeds: number of times the model was trained.
        interval: of `score`, from resampling the dev examples.
        metrics: the single metrics by name, medians over the seeds.
        retention: share of the teacher's score; None without a teacher, or if
            the teacher scores no better than a constant answer.
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
            teacher), "ngrams" (a linear model), "elmo", or another name.
        tasks: scores by task; tasks that were not run are omitted.
        macro: None if the row lacks a task of the table.
        parameters: number of weights.
        size_mb: size on disk, in megabytes (1e6 bytes).
        latency_ms: CPU latency for one input, in milliseconds.
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
        """Whether the row is a model of the student's size."""
        return self.name not in (TEACHER, NGRAMS, ELMO)


class PublishedRow(Section):
    """Published scores of a model, in percent, to compare with our rows.

    Attributes:
        name: name of the model.
        source: where the scores were published.
        scores: by task.
        macro: mean over the source's tasks, which may differ from ours.
        retention: share of the macro of the source's teacher.
        parameters: number of weights.
        latency_ms: on the source's machine; only its ratios can be compared
            with ours.
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
        second: name of another row.
        task: name of the task; None for the mean over the tasks.
        difference: score of the first minus that of the second, in points.
        interval: interval of the difference.
        p_value: share of the draws in which the first does not score above the
            second (one-sided).
        significant: whether 0 is outside the interval.
        level: confidence level of the interval.
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
        """States in words whether the difference is significant."""
        where = self.task
        if where is None:
            where = "the mean over the tasks"
        ends = _ends(self.interval)
        return self._state(f"{points(self.difference)} points", where, ends)

    @property
    def sentence_of_errors(self) -> str:
        """States it of errors, which are kept as negative percent."""
        low, high = -self.interval.high / 100, -self.interval.low / 100
        ends = _ends(Range(low=low, high=high), digits=3)
        difference = shown_error(self.difference)
        return self._state(difference, f"{self.task} (an error)", ends)

    def _state(self, difference: str, where: str, ends: Sequence[str]) -> str:
        low, high = ends
        if self.significant:
            verdict, zero = "is significant", "does not contain 0"
        else:
            verdict, zero = "is not significant", "contains 0"
        return (
            f"The difference of {difference} between "
            f"{self.first} and {self.second} on {where} {verdict}: its "
            f"{100 * self.level:g}% interval [{low}, {high}] {zero}."
        )


class ResultTable(Section):
    """The results table, which can be shown, saved and read back.

    Attributes:
        format_version: version of the JSON.
        tasks: the columns.
        rows: the models, teacher first.
        comparisons: every row with the teacher, and the student with the
            baseline, on every task and on the mean over the tasks.
        published: published scores of other models.
        level: confidence level of all intervals.
        resamples: number of bootstrap draws.
        selection: where the epochs were chosen, as in `finetune.selection`.
        cut: rows that began as layers of the fine-tuned teacher.
        cut_tasks: the tasks on which they did; empty in tables of before, in
            which it was all of them.
        errors: tasks of which less is better. Their scores are negative, as
            percent are 100 times the error; `shown_error` undoes both.
    """

    format_version: Literal[1] = 1
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]
    published: tuple[PublishedRow, ...] = ()
    level: Share
    resamples: Count
    selection: Literal["dev", "train"] = "dev"
    cut: tuple[str, ...] = ()
    cut_tasks: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

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
        if not {*used, *compared, *self.errors, *self.cut_tasks} <= set(
            self.tasks
        ):
            raise ValueError("`tasks` must name every task that is used")
        if not {*sides, *self.cut} <= set(names):
            raise ValueError("comparisons must be of rows of the table")
        return self

    @property
    def has_mean(self) -> bool:
        """Whether there is a mean over the tasks that is another number."""
        return len(self.tasks) > 1 and not self.errors

    @property
    def shows_mean(self) -> bool:
        """Whether the table has a column of means."""
        # A published row has one over tasks of its own.
        return self.has_mean or bool(self.published and not self.errors)

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
        """Reads a table that `to_json` wrote.

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
        # The paper says 97; this is computed from its scores.
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
# Tasks of which one of them has a score.
PUBLISHED_TASKS = frozenset(task for row in PUBLISHED for task in row.scores)


def points(value: float, digits: int = 1) -> str:
    """Formats percent or points with one decimal, and never as "-0.0"."""
    return f"{value:z.{digits}f}"


def shown_error(score: float) -> str:
    """Formats an error that is kept as a score in negative percent.

    Example:
        >>> shown_error(-69.31)
        '0.693'
    """
    return f"{-score / 100:z.3f}"


def _ends(ends: Range, digits: int = 1) -> tuple[str, str]:
    """Formats an interval so that an end reads 0 only if it is 0."""
    both = [value for value in (ends.low, ends.high) if value]
    while digits < 6 and any(not round(value, digits) for value in both):
        digits += 1
    return points(ends.low, digits), points(ends.high, digits)
