"""The calibration of a task's models, and the student's temperature."""

from collections.abc import Mapping

import numpy as np

from keras_distil.evaluation.calibration import (
    expected_calibration_error,
    reliability,
)
from keras_distil.evaluation.temperature import (
    HIGHEST,
    LOWEST,
    decisions,
    fit_temperature,
    log_loss,
)
from keras_distil.runs.details.schema import (
    CALIBRATED,
    Bin,
    Calibration,
    Reliability,
)
from keras_distil.runs.score_table import STUDENT

# Development texts without which no temperature is fitted: half of them are
# needed to tell whether it helps.
LEAST_TEXTS = 50


def calibrate(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray
) -> Calibration:
    """Measures the calibration of models, and finds the student's temperature.

    It is fitted on half of the texts, chosen at random but always the same, and
    taken if it lowers the log loss of the other half.

    Args:
        outputs: logits of each row, float32, (texts, outputs); with the
            student.
        labels: int classes, (texts,), or 0 and 1, (texts, outputs).
    """
    fitted, other = _halves(len(labels))
    student = outputs[STUDENT]
    temperature, reason = 1.0, None
    if len(labels) < LEAST_TEXTS:
        fitted, other = fitted[:0], np.arange(len(labels))
        reason = (
            f"the development set has {len(labels)} texts, and a temperature "
            f"needs {LEAST_TEXTS} or more"
        )
    else:
        temperature, reason = _choose_temperature(
            student, labels, fitted, other
        )
    rows = {
        row: _reliability(found[other], labels[other])
        for row, found in outputs.items()
    }
    if reason is None:
        rows[CALIBRATED] = _reliability(
            student[other], labels[other], temperature
        )
    return Calibration(
        errors={
            row: expected_calibration_error(*decisions(found, labels))
            for row, found in outputs.items()
        },
        temperature=temperature,
        reason=reason,
        fitted_on=len(fitted),
        reported_on=len(other),
        rows=rows,
    )


def _choose_temperature(
    logits: np.ndarray,
    labels: np.ndarray,
    fitted: np.ndarray,
    other: np.ndarray,
) -> tuple[float, str | None]:
    """Returns a temperature, or 1 and the reason why it is 1."""
    found = fit_temperature(logits[fitted], labels[fitted])
    if found is None:
        return 1.0, (
            f"no temperature from {LOWEST:g} to {HIGHEST:g} is the best: on "
            "the half of the texts that it is fitted on, the student is always "
            "right, or no better than chance"
        )
    before = log_loss(logits[other], labels[other])
    after = log_loss(logits[other], labels[other], found)
    if after > before:
        return 1.0, (
            f"the one that was fitted, {found:.3f}, raises the log loss of the "
            f"other half from {before:.4f} to {after:.4f}"
        )
    return found, None


def _halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the numbers of both halves, ascending."""
    # At random, because files may be sorted, or alternate between classes.
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _reliability(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> Reliability:
    confidences, right = decisions(logits, labels, temperature)
    return Reliability(
        error=expected_calibration_error(confidences, right),
        # Rounding may put it below 0.
        log_loss=max(log_loss(logits, labels, temperature), 0.0),
        bins=[
            Bin(
                confidence=min(confidence, 1.0),
                accuracy=accuracy,
                count=count,
            )
            for confidence, accuracy, count in reliability(confidences, right)
        ],
    )
