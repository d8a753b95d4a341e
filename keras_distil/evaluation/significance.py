"""Bootstrap intervals of scores, and of differences between scores.

A score on a few hundred dev examples would have been different for other
examples of the same kind. The bootstrap measures by how much: it draws the
examples again, with replacement, a thousand times, and scores each draw. Two
systems are compared on the same draws, so whatever makes a draw easy or hard
affects both alike.

It measures only the effect of the choice of dev examples. How much another
training seed changes a score is shown by the seeds.

References:
    Efron 1979, Bootstrap methods: another look at the jackknife.
    Koehn 2004, Statistical significance tests for machine translation
    evaluation, section 4 (paired bootstrap resampling).
    Berg-Kirkpatrick et al. 2012, An empirical investigation of statistical
    significance in NLP. Differs: they count the draws whose difference is
    more than twice the observed one; here, as in Koehn, p is the share of
    draws in which the first system does not win.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_distil.utils.checks import check_count

Array = np.ndarray
# Maps labels (n, ...) and the predictions of one seed (n, ...) to a score.
Metric = Callable[[Array, Array], float]

# Draws in memory at a time, at 8 bytes per example and draw.
_COUNTS_AT_A_TIME = 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredExamples:
    """A system's predictions for a task's dev examples, seed by seed.

    Attributes:
        labels: (n, ...), the correct answers.
        predictions: (seeds, n, ...), the predictions of the system trained
            with each seed, for the same examples in the same order.

    Raises:
        ValueError: if there are no examples or no seeds, the shapes do not
            match or a value is not finite.
    """

    labels: Array
    predictions: Array

    def __post_init__(self) -> None:
        """Converts both to arrays and checks them."""
        labels = np.asarray(self.labels)
        predictions = np.asarray(self.predictions)
        _check_examples(labels, predictions)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "predictions", predictions)


@dataclasses.dataclass(frozen=True)
class CountedMetric:
    """A metric that scores many draws at once, from counts.

    Drawing an example twice means counting it twice, so a draw need not be
    gathered: a thousand draws are one matrix product.

    Attributes:
        name: string.
        by_counts: function of labels (n,), predictions (n,) and float counts
            (draws, n); returns the scores (draws,).

    Example:
        >>> import numpy as np
        >>> ACCURACY(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
        0.75
    """

    name: str
    by_counts: Callable[[Array, Array, Array], Array]

    def __call__(self, labels: Array, predictions: Array) -> float:
        """Scores the examples, each with a count of one."""
        once = np.ones((1, len(labels)))
        return float(self.by_counts(labels, predictions, once)[0])


@dataclasses.dataclass(frozen=True)
class Interval:
    """A range of scores, `low` to `high`."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """The difference by which one system scores above another.

    Attributes:
        mean: mean difference over the draws, negative if the first is worse.
        low: lower end of the interval.
        high: upper end of the interval.
        p_value: share of the draws in which the first does not score above
            the second (one-sided).
        inside: whether 0 is inside the interval, so that the choice of
            examples may explain the difference.
    """

    mean: float
    low: float
    high: float
    p_value: float
    inside: bool


def bootstrap_scores(
    labels: Array,
    predictions: Array,
    metric: Metric,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Array:
    """Scores a system on repeated random draws of its examples.

    A draw takes as many examples as there are, with replacement. It is scored
    for each training seed; the median over the seeds is the draw's score, as
    in the table. Calls with the same number of examples, `resamples` and
    `seed` draw the same examples, which pairs the systems of a task.

    Args:
        labels: (n, ...), the correct answers.
        predictions: (seeds, n, ...), predictions of one system.
        metric: function of labels and the predictions of one seed. A
            `CountedMetric` is fast; any other is called for every draw and
            seed.
        resamples: int >= 1, number of draws.
        seed: int >= 0, determines the draws.

    Returns:
        Float64 array, (resamples,).

    Raises:
        TypeError: if `resamples` or `seed` is not an integer.
        ValueError: if one of them is too small, `ScoredExamples` refuses the
            examples, or the metric does not return a finite number.

    Example:
        >>> import numpy as np
        >>> labels, predictions = np.array([1, 1]), np.array([[1, 0]])
        >>> draws = bootstrap_scores(labels, predictions, ACCURACY)
        >>> sorted({float(score) for score in draws})
        [0.0, 0.5, 1.0]
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    _check_examples(labels, predictions)
    resamples = check_count("resamples", resamples, 1)
    rng = np.random.default_rng(check_count("seed", seed, 0))
    medians = []
    scores: list[Any]
    for drawn in _draws(rng, len(labels), resamples):
        if isinstance(metric, CountedMetric):
            counts = _counts(drawn)
            scores = [metric.by_counts(labels, p, counts) for p in predictions]
        else:
            scores = [
                [metric(labels[rows], p[rows]) for rows in drawn]
                for p in predictions
            ]
        medians.append(np.median(_finite(scores), axis=0))
    return np.concatenate(medians)


def task_seed(task: str, seed: int = 0) -> int:
    """Returns the seed of a task's draws, so that tasks draw independently.

    Args:
        task: name of the task.
        seed: int >= 0, seed of the whole table.

    Raises:
        TypeError: if `seed` is not an integer.
        ValueError: if it is negative.
    """
    seed = check_count("seed", seed, 0)
    digest = hashlib.sha256(f"{seed}/{task}".encode("utf-8", "replace"))
    return int.from_bytes(digest.digest()[:8], "big")


def macro_samples(samples: Mapping[str, Array]) -> Array:
    """Returns the mean over the tasks, draw by draw.

    Args:
        samples: scores (resamples,) of each task, from independent draws.

    Raises:
        ValueError: if there are no tasks, or the numbers of draws differ.
    """
    lengths = {np.shape(scores) for scores in samples.values()}
    if len(lengths) != 1:
        raise ValueError(
            "`samples` must hold at least one array, all of one shape. "
            f"Received: shapes {sorted(lengths)}."
        )
    return np.mean(list(samples.values()), axis=0)


def interval(samples: Array, level: float = 0.95) -> Interval:
    """Returns the percentile interval of bootstrapped scores.

    Args:
        samples: (resamples,), as from `bootstrap_scores`.
        level: float between 0 and 1, share of the draws inside.

    Raises:
        ValueError: if there are no draws or `level` is out of range.

    Reference:
        Efron and Tibshirani 1993, An introduction to the bootstrap, chapter
        13.
    """
    samples = np.asarray(samples, "float64")
    if samples.ndim != 1 or not len(samples):
        raise ValueError(
            "`samples` must be an array with one axis and at least one draw. "
            f"Received: shape {samples.shape}."
        )
    if not 0 < level < 1:
        raise ValueError(
            f"`level` must be between 0 and 1. Received: level={level}."
        )
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_difference(
    first: Array, second: Array, level: float = 0.95
) -> PairedDifference:
    """Compares two systems on the same draws.

    Args:
        first: (resamples,), scores of the first system.
        second: scores of the second, from draws with the same seed.
        level: float between 0 and 1, level of the interval.

    Raises:
        ValueError: if the shapes differ, there are no draws or `level` is out
            of range.

    Example:
        >>> import numpy as np
        >>> difference = paired_difference(np.array([3, 2]), np.array([2, 2]))
        >>> difference.mean, difference.p_value
        (0.5, 0.5)
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(
            "`first` and `second` must come from the same draws. Received: "
            f"shapes {first.shape} and {second.shape}."
        )
    difference = first - second
    ends = interval(difference, level)
    return PairedDifference(
        mean=float(difference.mean()),
        low=ends.low,
        high=ends.high,
        p_value=float(np.mean(difference <= 0)),
        inside=ends.low <= 0 <= ends.high,
    )


def mean_of(*metrics: CountedMetric) -> CountedMetric:
    """Returns the mean of metrics, as in GLUE for tasks with two.

    Args:
        metrics: one or more.

    Raises:
        ValueError: if there are none.
    """
    if not metrics:
        raise ValueError("`metrics` must hold at least one. Received: ().")

    def by_counts(labels: Array, predictions: Array, counts: Array) -> Array:
        scores = [m.by_counts(labels, predictions, counts) for m in metrics]
        return np.mean(scores, axis=0)

    return CountedMetric("+".join(m.name for m in metrics), by_counts)


def _draws(
    rng: np.random.Generator, size: int, resamples: int
) -> Iterator[Array]:
    """Yields indices of examples, (some draws, size), until all are drawn."""
    step = max(1, _COUNTS_AT_A_TIME // size)
    for start in range(0, resamples, step):
        yield rng.integers(size, size=(min(step, resamples - start), size))


def _finite(scores: Any) -> Array:
    array = np.asarray(scores, "float64")
    wrong = array[~np.isfinite(array)]
    if len(wrong):
        raise ValueError(
            "`metric` must return a finite number for every draw. Received: "
            f"{wrong[0]}."
        )
    return array


def _counts(drawn: Array) -> Array:
    """Counts how often each draw has each example, as floats."""
    draws, size = drawn.shape
    places = drawn + size * np.arange(draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=draws * size)
    return counts.reshape(draws, size).astype("float64")


def _accuracy(labels: Array, predictions: Array, counts: Array) -> Array:
    return counts @ (labels == predictions) / counts.sum(axis=1)


def _f1(labels: Array, predictions: Array, counts: Array) -> Array:
    # Twice the true positives, over all true and all predicted positives.
    is_positive, said_positive = labels == 1, predictions == 1
    both = counts @ (is_positive & said_positive)
    either = counts @ is_positive + counts @ said_positive
    return divide(2 * both, either)


def _matthews(labels: Array, predictions: Array, counts: Array) -> Array:
    classes = np.union1d(labels, predictions)[:, None]
    total = counts.sum(axis=1)
    right = counts @ (labels == predictions)
    are = counts @ (labels == classes).T.astype("float64")
    said = counts @ (predictions == classes).T.astype("float64")
    covariance = right * total - (are * said).sum(axis=1)
    # Both are exactly 0 where a draw has a single class: counts are whole.
    spread = (total**2 - (are**2).sum(axis=1)) * (
        total**2 - (said**2).sum(axis=1)
    )
    return divide(covariance, np.sqrt(spread))


def _pearson(labels: Array, predictions: Array, counts: Array) -> Array:
    # Near 0, sums of squares lose no digits when the mean is subtracted.
    labels, predictions = _varying(labels), _varying(predictions)
    return _correlation(
        (labels - labels.mean())[None],
        (predictions - predictions.mean())[None],
        counts,
    )


def _spearman(labels: Array, predictions: Array, counts: Array) -> Array:
    labels, predictions = _varying(labels), _varying(predictions)
    return _correlation(
        _ranks(labels, counts), _ranks(predictions, counts), counts
    )


def _varying(values: Array) -> Array:
    """Returns zeros for values that differ only by rounding."""
    constant = np.ptp(values) <= 1e-12 * np.abs(values).max()
    return np.zeros(len(values)) if constant else values.astype("float64")


def _ranks(values: Array, counts: Array) -> Array:
    """Returns the rank of each value in each draw, minus the mean rank.

    Equal values share the middle of their ranks.
    """
    unique, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(unique)))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    middles = np.cumsum(sizes, axis=1) - sizes / 2
    return middles[:, group] - counts.sum(axis=1, keepdims=True) / 2


def _correlation(first: Array, second: Array, counts: Array) -> Array:
    """Returns the correlation over each draw; 0 if its values are equal."""

    def mean(values: Array) -> Array:
        return (counts * values).sum(axis=1) / total

    total = counts.sum(axis=1)
    mean_first, mean_second = mean(first), mean(second)
    squares = mean(first**2), mean(second**2)
    variances = squares[0] - mean_first**2, squares[1] - mean_second**2
    # Because of rounding, the variance of equal values is not exactly 0.
    varies = (variances[0] > 1e-12 * squares[0]) & (
        variances[1] > 1e-12 * squares[1]
    )
    covariance = mean(first * second) - mean_first * mean_second
    spread = np.sqrt(np.where(varies, variances[0] * variances[1], 0.0))
    return np.clip(divide(covariance, spread), -1.0, 1.0)


def divide(numerator: Array, denominator: Array) -> Array:
    """Returns quotients; 0 for 0 divided by 0, as in scikit-learn."""
    zeros = np.zeros(len(numerator))
    return np.divide(numerator, denominator, out=zeros, where=denominator > 0)


ACCURACY = CountedMetric("accuracy", _accuracy)
# For class 1.
F1 = CountedMetric("f1", _f1)
MATTHEWS = CountedMetric("matthews_correlation", _matthews)
PEARSON = CountedMetric("pearson", _pearson)
SPEARMAN = CountedMetric("spearman", _spearman)
COUNTED_METRICS = {
    metric.name: metric
    for metric in (ACCURACY, F1, MATTHEWS, PEARSON, SPEARMAN)
}


def _check_examples(labels: Array, predictions: Array) -> None:
    if not labels.ndim or not len(labels):
        raise ValueError(
            "`labels` must hold at least one example. Received: shape "
            f"{labels.shape}."
        )
    if (
        predictions.ndim < 2
        or not len(predictions)
        or predictions.shape[1] != len(labels)
    ):
        raise ValueError(
            f"`predictions` must have the shape (seeds, {len(labels)}, ...), "
            "a prediction per seed and label. Received: shape "
            f"{predictions.shape}."
        )
    # It would count as a wrong prediction, or as no correlation.
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(
                f"`{name}` must be finite. Received: "
                f"{values[~np.isfinite(values)][0]}."
            )
