"""The soft-target losses, which match the teacher's outputs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_distil.losses import functional
from keras_distil.losses.mixtures import mean_outputs, mixture_logits
from keras_distil.losses.soft import (
    SoftenedLoss,
    SoftTargetLoss,
    check_positions,
)
from keras_distil.losses.top_logits import TopLogits
from keras_distil.utils.checks import check_number

Tensor = Any

# Largest factor between a token's temperature and the loss's temperature.
_BOUND = 4.0
# Momentum of the running mean.
_MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetKLDivergence(SoftenedLoss):
    """KL divergence of temperature-softened distributions.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        loss = temperature**2 * sum(p * (log p - log q))  # nats per token

    With a `confidence_slope`, every token has its own temperature, which is
    below `temperature` where the student is less confident than average, and
    above it where it is more confident:

        w = 1 / (max(softmax(student_logits)) + 0.001)
        tau = temperature + confidence_slope * (mean(w) - w)

    clipped to between a quarter and four times `temperature`. The mean is a
    running mean over earlier updates.

    With several teachers, `p` is the mean of their softmaxes, so that the
    loss is the mean divergence from the teachers up to a constant. The mean of
    their logits would be a product of experts, sharper than any of them; see
    `losses.mixtures`.

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        temperature: float > 0, no unit. Divides both logits.
        positions: "all" for every non-padding position, "masked" for the
            positions chosen for masked language modelling.
        confidence_slope: float >= 0, no unit; 0 for a single temperature.
        name: string. The log is `<name>_loss`.

    Call arguments:
        teacher_logits: float, (batch, length, vocabulary), unnormalised.
        student_logits: float, the same shape.
        sample_weight: float, (batch, length); 0 excludes a token. None
            counts every token.

    Returns:
        Scalar float32, mean over weighted tokens; 0 if there are none.

    Raises:
        TypeError: if `weight`, `temperature` or `confidence_slope` is not a
            number.
        ValueError: if `temperature` is not positive, `confidence_slope`
            negative or `positions` unknown.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargetKLDivergence(temperature=2.0)
        >>> logits = np.array([[[1.0, 2.0, 3.0]]])
        >>> float(loss(logits, logits))
        0.0

    Reference:
        Hinton et al. 2015, arXiv:1503.02531, section 2; the L_ce of Sanh et
        al. 2019, arXiv:1910.01108. Differs: the paper writes a crossentropy;
        its authors' code, as here, uses the KL divergence, which has the same
        gradient and is 0 where student and teacher agree. The temperature per
        token: Wen et al. 2019, arXiv:1911.07471 (CWSM), as in TextBrewer.
        Differs: theirs uses the mean of the current batch, no bounds and no
        factor of the squared temperature.
    """

    caption = "soft-target loss"
    takes_top_logits = True

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        positions: str = "all",
        confidence_slope: float = 0.0,
        name: str = "soft_target",
    ) -> None:
        super().__init__(weight=weight, temperature=temperature, name=name)
        self.counts = check_positions(positions)
        self.positions = positions
        self.confidence_slope = check_number(
            "confidence_slope", confidence_slope
        )
        if confidence_slope < 0:
            raise ValueError(
                "`confidence_slope` must not be negative. "
                f"Received: confidence_slope={confidence_slope}."
            )
        if confidence_slope:
            # The temperatures depend on all of the student's logits.
            self.takes_top_logits = False
            self.statistic = "inverse_confidence"
            # It is 0 until the first update.
            self.mean_inverse_confidence = self.add_scalar(
                "mean_inverse_confidence", 0.0
            )

    def token_temperature(self, student_logits: Tensor) -> Tensor:
        """Returns the temperature, a scalar or one per token."""
        if self.statistic is None:
            return self.temperature
        mean = ops.convert_to_tensor(self.mean_inverse_confidence)
        base = ops.convert_to_tensor(self.temperature)
        found = functional.inverse_confidence(student_logits)
        deviation = ops.where(mean > 0, mean - found, ops.zeros_like(found))
        return ops.clip(
            base + self.confidence_slope * deviation,
            base / _BOUND,
            base * _BOUND,
        )

    def token_statistic(self, student_logits: Tensor) -> Tensor:
        """Returns the student's inverse confidence at each token."""
        return functional.inverse_confidence(student_logits)

    def observe(self, mean: Tensor) -> None:
        """Updates the running mean."""
        before = ops.convert_to_tensor(self.mean_inverse_confidence)
        moved = _MOMENTUM * before + (1 - _MOMENTUM) * mean
        self.mean_inverse_confidence.assign(
            ops.where(before > 0, moved, ops.cast(mean, before.dtype))
        )

    def join_teachers(
        self, teacher_logits: Sequence[Tensor], student_logits: Tensor
    ) -> Tensor:
        """Returns logits of the mean of the softened distributions."""
        return mixture_logits(
            teacher_logits, self.token_temperature(student_logits)
        )

    def token_values(
        self, *, teacher_logits: Tensor | TopLogits, student_logits: Tensor
    ) -> Tensor:
        """Returns each token's divergence in nats times temperature squared."""
        if isinstance(teacher_logits, TopLogits):
            return functional.top_soft_target_kl_divergence(
                teacher_logits.token_ids,
                teacher_logits.logits,
                teacher_logits.tail_at(self.temperature),
                student_logits,
                self.temperature,
            )
        return functional.soft_target_kl_divergence(
            teacher_logits,
            student_logits,
            self.token_temperature(student_logits),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {
            **super().get_config(),
            "positions": self.positions,
            "confidence_slope": self.confidence_slope,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetSquaredError(SoftTargetLoss):
    """Squared difference between the student's and the teacher's output.

    Formula:
        loss = (student - teacher)**2         # squared unit of the labels

    Of several outputs, such as the logits of classes or of a vocabulary, the
    mean over them; of a span, over its real positions. With several teachers,
    `teacher` is the mean of their outputs.

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        positions: "all" for every non-padding position, "masked" for the
            positions chosen for masked language modelling.

    Call arguments:
        teacher_logits: float, (batch, outputs), the teacher's outputs.
        student_logits: float, (batch, outputs), the student's.
        sample_weight: float, (batch,); 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite, or `positions`
            unknown.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargetSquaredError()
        >>> float(loss(np.array([[1.0]]), np.array([[4.0]])))
        9.0

    Reference:
        Ba and Caruana 2014, arXiv:1312.6184, section 2, on logits; here on
        the outputs of a regression, too. Differs: no factor of a half, and
        the mean over outputs instead of the sum.
    """

    caption = "squared error of outputs"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "soft_target",
        *,
        positions: str = "all",
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.counts = check_positions(positions)
        self.positions = positions

    def join_teachers(
        self, teacher_logits: Sequence[Tensor], student_logits: Tensor
    ) -> Tensor:
        """Returns the mean of the teachers' outputs."""
        return mean_outputs(teacher_logits)

    def token_values(
        self, *, teacher_logits: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns the squared difference of each example."""
        return functional.squared_error_of_outputs(
            teacher_logits, student_logits
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), "positions": self.positions}
