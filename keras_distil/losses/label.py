"""The hard-label losses of tasks: what fine-tuning minimises."""

from typing import Any

import keras

from keras_distil.losses import functional
from keras_distil.losses.base import LogitsLoss

Tensor = Any


class _LabelLoss(LogitsLoss):
    """Mean over examples of what `token_values` says of their labels."""

    needs_teacher = False

    def __init__(self, weight: float = 1.0, name: str = "label") -> None:
        super().__init__(weight=weight, name=name)

    def call(
        self,
        labels: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Mean over the weighted examples."""
        values = self.token_values(
            targets=labels, teacher_logits=None, student_logits=student_logits
        )
        return functional.weighted_mean(values, sample_weight)


@keras.saving.register_keras_serializable(package="keras_distil")
class LabelCrossentropy(_LabelLoss):
    """Crossentropy of the true class.

    It serves classification, token classification and spans, where the
    classes are the positions.

    Formula:
        loss = logsumexp(logits) - logits[label]                 # nats

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        labels: int, (batch,) or (batch, length), from 0.
        student_logits: float, the same shape and (..., classes).
        sample_weight: float, as `labels`; 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> loss = LabelCrossentropy()
        >>> round(float(loss(np.array([1]), np.array([[0.0, 0.0]]))), 4)
        0.6931
    """

    def token_values(
        self,
        *,
        targets: Tensor,
        teacher_logits: Tensor | None,
        student_logits: Tensor,
    ) -> Tensor:
        """Crossentropy of each example in nats."""
        del teacher_logits
        return functional.masked_lm_crossentropy(targets, student_logits)


@keras.saving.register_keras_serializable(package="keras_distil")
class LabelSquaredError(_LabelLoss):
    """Squared error of a regression.

    Formula:
        loss = (output - label)**2            # squared unit of the labels

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        labels: float, (batch,).
        student_logits: float, (batch, 1), the outputs.
        sample_weight: float, (batch,); 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> loss = LabelSquaredError()
        >>> float(loss(np.array([3.0]), np.array([[1.0]])))
        4.0
    """

    def token_values(
        self,
        *,
        targets: Tensor,
        teacher_logits: Tensor | None,
        student_logits: Tensor,
    ) -> Tensor:
        """Squared error of each example."""
        del teacher_logits
        return functional.squared_error(targets, student_logits[..., 0])
