"""The share of the teacher's score that a model keeps.

It is only given where it has a meaning: a teacher that scores no more than a
constant answer has taught nothing that could be kept.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_distil.evaluation.significance import Array, Metric


def kept_percent(
    score: float | None, teacher: float | None, chance: float = 0.0
) -> float | None:
    """Returns a score in percent of the teacher's.

    Args:
        score: score of the model.
        teacher: score of its teacher, in the same unit.
        chance: score of a constant answer, in the same unit.

    Returns:
        The percentage; None if a score is missing, or the teacher's is not
        above both chance and 0.

    Example:
        >>> kept_percent(66.0, 88.0, chance=50.0)
        75.0
        >>> kept_percent(66.0, 50.0, chance=50.0)
    """
    if score is None or teacher is None or not teacher > max(chance, 0.0):
        return None
    return 100.0 * score / teacher


def chance_score(labels: Array, metric: Metric) -> float:
    """Returns the score of always answering the most frequent class.

    Args:
        labels: (n,) integers, classes; other labels have no most frequent
            class.
        metric: function of labels and predictions.

    Returns:
        The metric of that answer; 0 for correlations and for labels that are
        not classes.

    Example:
        >>> import numpy as np
        >>> from keras_distil.evaluation.significance import ACCURACY
        >>> chance_score(np.array([0, 1, 1, 1]), ACCURACY)
        0.75
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return 0.0
    classes, counts = np.unique(labels, return_counts=True)
    answers = np.full_like(labels, classes[counts.argmax()])
    return float(metric(labels, answers))


def most_frequent_share(batches: Iterable[tuple[Any, Any, Any]]) -> float:
    """Returns the share of the most frequent token among masked ones.

    Args:
        batches: Keras triples of masked language modelling.

    Returns:
        float, 0 to 1: the accuracy of always answering that token.
    """
    counts = np.zeros(0, np.int64)
    for _, targets, weight in batches:
        masked = np.asarray(targets)[np.asarray(weight) > 0]
        batch_counts = np.bincount(masked.ravel(), minlength=len(counts))
        batch_counts[: len(counts)] += counts
        counts = batch_counts
    return float(counts.max() / counts.sum()) if counts.any() else 0.0
