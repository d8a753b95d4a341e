"""The losses in plain NumPy float64: value and gradient of the mean.

Written from the papers' formulas, with nothing of the package; the tests of
losses, objectives and Distiller compare with it.
"""

import numpy as np


def log_softmax(logits):
    logits = np.asarray(logits, "float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def mean_factors(weight, shape):
    """What each token's value is multiplied by in the mean."""
    weight = np.ones(shape) if weight is None else np.asarray(weight, "float64")
    total = weight.sum()
    return weight / total if total > 0 else np.zeros(shape)


def crossentropy(token_ids, logits, weight=None):
    """Value, and gradient for the logits."""
    log_probabilities = log_softmax(logits)
    one_hot = np.eye(logits.shape[-1])[token_ids]
    factors = mean_factors(weight, token_ids.shape)
    values = -(one_hot * log_probabilities).sum(axis=-1)
    gradient = np.exp(log_probabilities) - one_hot
    return (values * factors).sum(), gradient * factors[..., None]


def kl_divergence(teacher_logits, student_logits, temperature, weight=None):
    """Value, and gradient for the student's logits."""
    log_p = log_softmax(np.asarray(teacher_logits, "float64") / temperature)
    log_q = log_softmax(np.asarray(student_logits, "float64") / temperature)
    factors = mean_factors(weight, log_p.shape[:-1])
    values = temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    gradient = temperature * (np.exp(log_q) - np.exp(log_p))
    return (values * factors).sum(), gradient * factors[..., None]


def cosine_distance(teacher_states, student_states, weight=None):
    """Value, and gradient for the student's states."""
    teacher = np.asarray(teacher_states, "float64")
    student = np.asarray(student_states, "float64")
    teacher_norm = np.linalg.norm(teacher, axis=-1, keepdims=True)
    student_norm = np.linalg.norm(student, axis=-1, keepdims=True)
    inner = (teacher * student).sum(axis=-1, keepdims=True)
    cosine = inner / (teacher_norm * student_norm)
    factors = mean_factors(weight, teacher.shape[:-1])
    gradient = cosine * student / student_norm**2 - teacher / (
        teacher_norm * student_norm
    )
    values = 1.0 - cosine[..., 0]
    return (values * factors).sum(), gradient * factors[..., None]
