"""Divergences from several teachers in plain NumPy float64.

Written from the formulas, with nothing of the package.
"""

import numpy as np
from losses.reference import log_softmax


def mean_probabilities(teachers, temperature):
    """Mean over the first axis of the softmaxes.

    Args:
        teachers: (teachers, ..., outputs), logits.
        temperature: a number, or one for each token, (...,).
    """
    temperature = np.asarray(temperature, "float64")
    if temperature.ndim:
        temperature = temperature[..., None]
    teachers = np.asarray(teachers, "float64")
    return np.exp(log_softmax(teachers / temperature)).mean(axis=0)


def forward(p, q):
    """KL divergence of `q` from `p`, and its slope for the logits of `q`."""
    return (p * (np.log(p) - np.log(q))).sum(axis=-1), q - p


def reverse(p, q):
    ratio = np.log(q) - np.log(p)
    value = (q * ratio).sum(axis=-1)
    return value, q * (ratio - value[..., None])


def mixed(p, q, share=0.5):
    """Generalised Jensen-Shannon divergence, with the teachers' share."""
    log_m = np.log(share * p + (1 - share) * q)
    to_q = (q * (np.log(q) - log_m)).sum(axis=-1)
    to_p = (p * (np.log(p) - log_m)).sum(axis=-1)
    slope = (1 - share) * q * (np.log(q) - log_m - to_q[..., None])
    return share * to_p + (1 - share) * to_q, slope


def softened(divergence, teachers, student, temperature):
    """Value of each token, and gradient for the student's logits."""
    p = mean_probabilities(teachers, temperature)
    q = np.exp(log_softmax(np.asarray(student, "float64") / temperature))
    value, slope = divergence(p, q)
    return temperature**2 * value, temperature * slope


def squared(_, teachers, student, temperature=None):
    """Squared error from the mean of the outputs, as `softened`."""
    teachers, student = (np.asarray(x, "float64") for x in (teachers, student))
    difference = student - teachers.mean(axis=0)
    count = difference.shape[-1]
    return (difference**2).mean(axis=-1), 2 * difference / count
