"""Loss maths of labels that do not exclude each other: a sigmoid for each."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_distil.losses.functional import soft_target_kl_divergence
from keras_distil.losses.mixtures import SeveralLogits, mixture_logits

Tensor = Any


def binary_crossentropy(labels: Tensor, logits: Tensor) -> Tensor:
    """Mean crossentropy of labels that do not exclude each other.

    Formula:
        loss = mean(p * log(1 + exp(-logits)) + (1 - p) * log(1 + exp(logits)))

    Unlike `log(1 + exp(logits)) - p * logits`, which is equal, it loses no
    digits where a logit is large and right.

    Args:
        labels: float, (..., labels), probabilities.
        logits: float, (..., labels).

    Returns:
        float32, (...,), nats per label.
    """
    labels = ops.cast(labels, "float32")
    logits = ops.cast(logits, "float32")
    return ops.mean(
        labels * ops.softplus(-logits) + (1.0 - labels) * ops.softplus(logits),
        axis=-1,
    )


def binary_kl_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: Tensor
) -> Tensor:
    """Mean KL divergence of softened sigmoids times temperature squared.

    Formula:
        p = sigmoid(teacher_logits / temperature), q likewise
        loss = temperature**2 * mean(p * log(p / q)
                                     + (1 - p) * log((1 - p) / (1 - q)))

    A sigmoid is a softmax over its logit and 0, so this is
    `soft_target_kl_divergence` of two choices per label, with its digits and
    its gradient.

    Args:
        teacher_logits: float, (..., labels). Gets no gradient.
        student_logits: float, (..., labels).
        temperature: scalar > 0, no unit.

    Returns:
        float32, (...,), nats per label.
    """
    values = soft_target_kl_divergence(
        _choices(teacher_logits), _choices(student_logits), temperature
    )
    return ops.mean(values, axis=-1)


def label_mixture_logits(
    teacher_logits: Sequence[Tensor], temperature: Tensor
) -> Tensor:
    """Logits whose sigmoid is the mean of the teachers' sigmoids.

    Formula:
        sigmoid(result / temperature)
            = mean over k of sigmoid(teacher_logits_k / temperature)

    It is `mixtures.mixture_logits` of two choices per label.

    Args:
        teacher_logits: float, (..., labels) each. They get no gradient.
        temperature: scalar > 0, no unit.

    Returns:
        float32, (..., labels).
    """
    joint = mixture_logits([_choices(x) for x in teacher_logits], temperature)
    return joint[..., 0] - joint[..., 1]


def joint_label_logits(teacher_logits: Tensor | SeveralLogits) -> Tensor:
    """Logits of what the teachers predict, at a temperature of 1."""
    if isinstance(teacher_logits, SeveralLogits):
        return label_mixture_logits(teacher_logits.logits, 1.0)
    return teacher_logits


def _choices(logits: Tensor) -> Tensor:
    """Logits of a label and of its absence, (..., labels, 2)."""
    return ops.stack([logits, ops.zeros_like(logits)], axis=-1)
