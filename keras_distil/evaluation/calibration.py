"""Calibration error of predicted probabilities."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from keras_hub.models import MaskedLM
from numpy.typing import ArrayLike

from keras_distil.models import forward

BINS = 15


def expected_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, *, bins: int = BINS
) -> float:
    """Mean distance between confidence and accuracy.

    Formula:
        predictions are sorted into `bins` bins of equal width by confidence;
        sum over bins of (share of predictions in the bin)
            * |accuracy in the bin - mean confidence in the bin|

    Args:
        confidences: (predictions,), probability of the first choice, 0 to 1.
        correct: (predictions,), whether the first choice is right.
        bins: int >= 1.

    Returns:
        0 (calibrated) to 1.

    Raises:
        ValueError: if there are no predictions, the lengths differ, or a
            confidence is not a probability.

    Example:
        >>> expected_calibration_error([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0])
        0.05

    Reference:
        Guo et al. 2017, arXiv:1706.04599, section 2, with 15 bins as there.
    """
    probabilities = np.asarray(confidences, np.float64)
    right = np.asarray(correct, np.float64)
    if (
        probabilities.ndim != 1
        or probabilities.shape != right.shape
        or not len(probabilities)
    ):
        raise ValueError(
            "`confidences` and `correct` must have one length, at least 1. "
            f"Received: shapes {probabilities.shape} and {right.shape}."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(
            "`confidences` must be from 0 to 1. Received: from "
            f"{probabilities.min()} to {probabilities.max()}."
        )
    places = _bin_places(probabilities, bins)
    gaps = np.bincount(places, weights=right - probabilities, minlength=bins)
    return round(math.fsum(np.abs(gaps)) / len(probabilities), 12)


def reliability(
    confidences: np.ndarray, correct: np.ndarray, *, bins: int = BINS
) -> list[tuple[float, float, int]]:
    """Returns mean confidence, accuracy and size of each bin that is not empty.

    Args:
        confidences: (predictions,), as for `expected_calibration_error`.
        correct: (predictions,), likewise.
        bins: int >= 1, of equal width.

    Example:
        >>> reliability(np.array([0.75, 0.75]), np.array([1, 0]))
        [(0.75, 0.5, 2)]
    """
    places = _bin_places(confidences, bins)
    return [
        (
            float(confidences[places == place].mean()),
            float(correct[places == place].mean()),
            int((places == place).sum()),
        )
        for place in np.unique(places)
    ]


def _bin_places(probabilities: np.ndarray, bins: int) -> np.ndarray:
    # (0, 1/bins], (1/bins, 2/bins], ...
    return np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)


def first_choices(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first choices, int, and their probabilities.

    Args:
        logits: float, (predictions, classes).
    """
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1)
    return shifted.argmax(axis=-1), 1.0 / total


def masked_lm_calibration(
    model: MaskedLM, batches: Iterable[tuple[Any, Any, Any]]
) -> float:
    """Expected calibration error at the masked positions of held-out text.

    Args:
        model: the model.
        batches: a finite dataset of Keras triples.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def logits_of(x: Any, rows: tf.Tensor) -> tf.Tensor:
        states = forward.encode(model, x, training=False)
        projection = forward.project(model, forward.gather_rows(states, rows))
        return tf.cast(projection.products(), tf.float32) + projection.bias

    confidences, correct = [], []
    for x, y, weight in batches:
        rows = tf.where(tf.reshape(weight, [-1]) > 0)[:, 0]
        chosen, probabilities = first_choices(logits_of(x, rows).numpy())
        confidences.append(probabilities)
        correct.append(chosen == tf.gather(tf.reshape(y, [-1]), rows).numpy())
    return expected_calibration_error(
        np.concatenate(confidences), np.concatenate(correct)
    )
