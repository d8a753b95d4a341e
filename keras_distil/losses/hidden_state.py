"""The cosine distance between student and teacher hidden states."""

from typing import Any

import keras

from keras_distil.losses import functional
from keras_distil.losses.base import HiddenStateLoss
from keras_distil.losses.layers import LAST

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class HiddenStateCosineDistance(HiddenStateLoss):
    """One minus the cosine of hidden states.

    Formula:
        loss = 1 - <t, s> / (|t| |s|)             # 0 to 2 per token, no unit

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        layers: the pairs of layers, over which the mean is taken; see
            `losses.HiddenStateLoss`.
        teacher: int >= 0. Which of several teachers it learns from.

    Call arguments:
        teacher_hidden_states: float, (batch, length, width).
        student_hidden_states: float, the same shape.
        sample_weight: float, (batch, length); 0 excludes a token, and must be
            set for padding. None counts every token.

    Returns:
        Scalar float32, mean over weighted tokens; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` or `teacher` is negative, `weight` not finite,
            or `layers` has another form.

    Example:
        >>> import numpy as np
        >>> loss = HiddenStateCosineDistance()
        >>> float(loss(np.array([[[1.0, 0.0]]]), np.array([[[0.0, 2.0]]])))
        1.0

    Reference:
        The L_cos of Sanh et al. 2019, arXiv:1910.01108, for the last layers.
        Differs: other layers, and the projection if widths differ.
    """

    caption = "cosine distance of states"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "cosine",
        *,
        layers: Any = LAST,
        teacher: int = 0,
    ) -> None:
        super().__init__(
            weight=weight, name=name, layers=layers, teacher=teacher
        )

    def token_values(
        self, *, teacher_hidden_states: Tensor, student_hidden_states: Tensor
    ) -> Tensor:
        """Returns the distance of each token."""
        return functional.cosine_distance(
            teacher_hidden_states, student_hidden_states
        )
