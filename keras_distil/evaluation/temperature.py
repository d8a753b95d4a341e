"""The temperature at which a task's probabilities are as right as they say."""

import math

import numpy as np
from scipy import optimize, special

from keras_distil.evaluation.calibration import first_choices

# Beyond these, there is no best temperature: nothing, or everything, is wrong.
LOWEST, HIGHEST = 0.05, 20.0


def log_loss(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> float:
    """Returns the mean negative log probability of the labels.

    Formula:
        classes: mean over texts of -log softmax(logits / temperature)[label]
        several labels: mean over texts and labels of
            -log sigmoid(+-logits / temperature), + where the label is there

    Args:
        logits: float, (texts, outputs).
        labels: int classes, (texts,), or 0 and 1, (texts, outputs).
        temperature: float > 0, no unit.

    Returns:
        float >= 0, in nats.

    Example:
        >>> log_loss(np.array([[0.0, 0.0]]), np.array([1]))
        0.6931471805599453
    """
    scaled = logits.astype(np.float64) / temperature
    if labels.ndim == 2:
        signed = np.where(labels > 0, scaled, -scaled)
        return float(np.logaddexp(0.0, -signed).mean())
    chosen = np.take_along_axis(scaled, labels[:, np.newaxis], axis=1)[:, 0]
    return float((special.logsumexp(scaled, axis=1) - chosen).mean())


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """Finds the temperature with the lowest log loss.

    The loss is convex in `1 / temperature`, so it has one minimum.

    Args:
        logits: float, (texts, outputs).
        labels: int classes, (texts,), or 0 and 1, (texts, outputs).

    Returns:
        A number between `LOWEST` and `HIGHEST`; None if the loss falls up to
        one of them: every answer is right, or none says anything.

    Reference:
        Guo et al. 2017, arXiv:1706.04599, section 4.2. Differs: several labels
        share one temperature, and SciPy finds it without gradients.
    """

    def loss(temperature: float) -> float:
        return log_loss(logits, labels, temperature)

    found = optimize.minimize_scalar(
        lambda power: loss(math.exp(power)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    # Where all is right, the loss is 0 in float64 long before a bound.
    if found.fun < min(loss(LOWEST), loss(HIGHEST)):
        return math.exp(found.x)
    return None


def decisions(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a model is sure of, and whether it is so.

    Args:
        logits: float, (texts, outputs).
        labels: int classes, (texts,), or 0 and 1, (texts, outputs).
        temperature: float > 0, no unit.

    Returns:
        Probabilities, float64, (decisions,), and 0 or 1 for each. Of classes:
        of the first choice, and whether it is right. Of several labels: of
        every label of every text, and whether it is there.
    """
    scaled = logits.astype(np.float64) / temperature
    if labels.ndim == 2:
        return special.expit(scaled).ravel(), labels.ravel() > 0
    chosen, confidences = first_choices(scaled)
    return confidences, chosen == labels
