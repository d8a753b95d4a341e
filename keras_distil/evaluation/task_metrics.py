"""The metrics of tasks from files, from predictions and from bootstrap draws.

A score is computed by scikit-learn or SciPy. For bootstrap intervals, the same
metric is counted for a thousand draws at once, see `significance`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from keras_distil.evaluation.significance import (
    ACCURACY,
    MATTHEWS,
    PEARSON,
    SPEARMAN,
    Array,
    CountedMetric,
    divide,
)

# Metrics of which less is better: their scores count negative.
ERRORS = ("log_loss", "mean_absolute_error")


def score(metric: str, labels: Array, predictions: Array) -> float:
    """Computes a metric.

    Args:
        metric: "accuracy", "macro_f1", "weighted_f1" or "matthews" of classes,
            int, (n,), or the first three of 0 and 1, (n, labels);
            "mean_absolute_error", "pearson" or "spearman" of numbers, (n,).
        labels: the correct answers.
        predictions: of the same shape.

    Returns:
        The metric; 0 where it divides 0 by 0.

    Example:
        >>> score("macro_f1", np.array([0, 0, 1]), np.array([0, 1, 1]))
        0.6666666666666666
    """
    if metric in ("pearson", "spearman") and (
        _is_constant(labels) or _is_constant(predictions)
    ):
        return 0.0
    return float(_SCORES[metric](labels, predictions))


def log_losses(classes: Array, logits: Array) -> Array:
    """Returns each example's negative log probability of its class, in nats.

    Probabilities are clipped to float64's rounding, as scikit-learn does.

    Args:
        classes: int, (n,).
        logits: float, (n, classes).

    Returns:
        float64, (n,).
    """
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    chosen = np.take_along_axis(probabilities, classes[:, None], axis=1)[:, 0]
    rounding = np.finfo(np.float64).eps
    return -np.log(np.clip(chosen, rounding, 1.0 - rounding))


def entity_f1(counts: Array) -> float:
    """Returns the F1 of all entities of a data set.

    Formula:
        f1 = 2 right / (predicted + there)

    Args:
        counts: (sentences, 3), as from `entities.count_entities`.

    Returns:
        0 to 1; 0 if there is no entity at all.
    """
    right, predicted, there = counts.sum(axis=0, dtype=np.float64)
    return float(2.0 * right / max(predicted + there, 1.0))


def _is_constant(values: Array) -> bool:
    # As far as float32 can tell.
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _f1(average: str) -> Callable[[Array, Array], float]:
    def f1(labels: Array, predictions: Array) -> float:
        return metrics.f1_score(
            labels, predictions, average=average, zero_division=0.0
        )

    return f1


_SCORES: dict[str, Callable[[Array, Array], Any]] = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": _f1("macro"),
    "weighted_f1": _f1("weighted"),
    "matthews": metrics.matthews_corrcoef,
    "mean_absolute_error": metrics.mean_absolute_error,
    "pearson": lambda one, other: stats.pearsonr(one, other).statistic,
    "spearman": lambda one, other: stats.spearmanr(one, other).statistic,
}


# === For bootstrap draws ===


def _one_per_label(values: Array, classes: Array) -> Array:
    """Returns float64, (n, labels), 1 for the labels of each example."""
    if values.ndim == 2:
        return values.astype(np.float64)
    return (values[:, None] == classes).astype(np.float64)


def _f1_by_label(
    labels: Array, predictions: Array, counts: Array
) -> tuple[Array, Array, Array]:
    """Returns F1 and support of each label, (draws, labels), and its presence.

    A class that a draw neither has nor predicts does not count; of several
    labels per example, all do.
    """
    classes = np.union1d(labels, predictions)
    true = _one_per_label(labels, classes)
    said = _one_per_label(predictions, classes)
    right, there, chosen = counts @ (true * said), counts @ true, counts @ said
    either = there + chosen
    f1 = np.divide(
        2.0 * right, either, out=np.zeros_like(either), where=either > 0
    )
    is_there = np.ones_like(either) if labels.ndim == 2 else either > 0
    return f1, there, is_there.astype(np.float64)


def _macro_f1(labels: Array, predictions: Array, counts: Array) -> Array:
    f1, _, is_there = _f1_by_label(labels, predictions, counts)
    return divide((f1 * is_there).sum(axis=1), is_there.sum(axis=1))


def _weighted_f1(labels: Array, predictions: Array, counts: Array) -> Array:
    f1, support, _ = _f1_by_label(labels, predictions, counts)
    return divide((f1 * support).sum(axis=1), support.sum(axis=1))


def _subset_accuracy(labels: Array, predictions: Array, counts: Array) -> Array:
    if labels.ndim == 1:
        return ACCURACY.by_counts(labels, predictions, counts)
    return counts @ (labels == predictions).all(axis=1) / counts.sum(axis=1)


def _word_accuracy(labels: Array, predictions: Array, counts: Array) -> Array:
    del labels
    return divide(counts @ predictions[:, 0], counts @ predictions[:, 1])


def _entity_f1(labels: Array, predictions: Array, counts: Array) -> Array:
    del labels
    right, predicted, there = (counts @ predictions.astype(np.float64)).T
    return divide(2.0 * right, predicted + there)


def _negative_mean(labels: Array, predictions: Array, counts: Array) -> Array:
    del labels
    return -(counts @ predictions.astype(np.float64)) / counts.sum(axis=1)


def _negative_error(labels: Array, predictions: Array, counts: Array) -> Array:
    errors = np.abs(labels.astype(np.float64) - predictions)
    return -(counts @ errors) / counts.sum(axis=1)


def _column_mean(column: int) -> Callable[[Array, Array, Array], Array]:
    def mean(labels: Array, predictions: Array, counts: Array) -> Array:
        del labels
        values = predictions[:, column].astype(np.float64)
        return counts @ values / counts.sum(axis=1)

    return mean


COUNTED = {
    metric.name: metric
    for metric in (
        CountedMetric("accuracy", _subset_accuracy),
        CountedMetric("macro_f1", _macro_f1),
        CountedMetric("weighted_f1", _weighted_f1),
        CountedMetric("matthews", MATTHEWS.by_counts),
        CountedMetric("pearson", PEARSON.by_counts),
        CountedMetric("spearman", SPEARMAN.by_counts),
        CountedMetric("log_loss", _negative_mean),
        CountedMetric("mean_absolute_error", _negative_error),
        CountedMetric("entity_f1", _entity_f1),
        CountedMetric("word_accuracy", _word_accuracy),
        CountedMetric("exact_match", _column_mean(0)),
        CountedMetric("f1", _column_mean(1)),
    )
}
