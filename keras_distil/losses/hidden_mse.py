"""The mean squared error between student and teacher hidden states."""

from typing import Any

import keras

from keras_distil.losses import functional
from keras_distil.losses.base import HiddenStateLoss
from keras_distil.losses.layers import LAST

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class HiddenStateMeanSquaredError(HiddenStateLoss):
    """Mean squared difference of hidden states.

    Formula:
        loss = sum((t - s)**2) / width        # squared unit of the states

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
        >>> loss = HiddenStateMeanSquaredError()
        >>> float(loss(np.array([[[1.0, 0.0]]]), np.array([[[0.0, 2.0]]])))
        2.5

    Reference:
        The loss on hidden states of Jiao et al. 2020, arXiv:1909.10351,
        equation 8. Differs: theirs has one projection, without a bias, for
        all layers; here every pair has its own, and only if widths differ.
    """

    caption = "squared error of states"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "hidden_mse",
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
        """Returns the mean squared difference of each token."""
        return functional.mean_squared_error(
            teacher_hidden_states, student_hidden_states
        )
