"""Soft targets of labels that do not exclude each other."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_distil.losses import binary
from keras_distil.losses.soft import SoftenedLoss

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetBinaryKLDivergence(SoftenedLoss):
    """KL divergence of temperature-softened probabilities, label by label.

    Formula:
        p = sigmoid(teacher_logits / temperature)
        q = sigmoid(student_logits / temperature)
        loss = temperature**2 * mean(p * log(p / q)
                                     + (1 - p) * log((1 - p) / (1 - q)))

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        temperature: float > 0, no unit. Divides both logits.
        name: string. The log is `<name>_loss`.

    Call arguments:
        teacher_logits: float, (batch, labels), unnormalised.
        student_logits: float, the same shape.
        sample_weight: float, (batch,); 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples, in nats per label; 0 if
        there are none.

    Raises:
        TypeError: if `weight` or `temperature` is not a number.
        ValueError: if `temperature` is not positive.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargetBinaryKLDivergence(temperature=2.0)
        >>> logits = np.array([[1.0, -2.0]])
        >>> float(loss(logits, logits))
        0.0

    Reference:
        Hinton et al. 2015, arXiv:1503.02531, section 2. Differs: two choices
        per label in place of one among all.
    """

    counts = "examples"
    caption = "soft-target loss"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        name: str = "soft_target",
    ) -> None:
        super().__init__(weight=weight, temperature=temperature, name=name)

    def join_teachers(
        self, teacher_logits: Sequence[Tensor], student_logits: Tensor
    ) -> Tensor:
        """Returns logits of the mean of the softened probabilities."""
        return binary.label_mixture_logits(teacher_logits, self.temperature)

    def token_values(
        self, *, teacher_logits: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns each example's divergence, the mean over its labels."""
        return binary.binary_kl_divergence(
            teacher_logits, student_logits, self.temperature
        )
