"""The soft-target loss: match the teacher's softened distribution."""

from typing import Any

import keras
from keras import ops

from keras_distil.losses import functional
from keras_distil.losses.base import LogitsLoss, _number
from keras_distil.losses.top_logits import TopLogits

Tensor = Any

POSITIONS = ("all", "masked")


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetKLDivergence(LogitsLoss):
    """KL divergence of temperature-softened distributions.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        loss = temperature**2 * sum(p * (log p - log q))  # nats per token

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        temperature: float > 0, no unit. Divides both logits.
        positions: "all" for every non-padding position, "masked" for the
            positions chosen for masked language modelling.
        name: string. The log is `<name>_loss`.

    Call arguments:
        teacher_logits: float, (batch, length, vocabulary), unnormalised.
        student_logits: float, the same shape.
        sample_weight: float, (batch, length); 0 excludes a token. None
            counts every token.

    Returns:
        Scalar float32, mean over weighted tokens; 0 if there are none.

    Raises:
        TypeError: if `weight` or `temperature` is not a number.
        ValueError: if `temperature` is not positive or `positions` unknown.

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
        gradient and is 0 where student and teacher agree.
    """

    takes_top_logits = True

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        positions: str = "all",
        name: str = "soft_target",
    ) -> None:
        super().__init__(weight=weight, name=name)
        if positions not in POSITIONS:
            raise ValueError(
                f"`positions` must be one of {list(POSITIONS)}. "
                f"Received: positions={positions!r}."
            )
        self.temperature = self._add_scalar("temperature", temperature)
        if temperature <= 0:
            raise ValueError(
                "`temperature` must be positive. "
                f"Received: temperature={temperature}."
            )
        self.positions = positions

    def call(
        self,
        teacher_logits: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Mean over the weighted tokens."""
        return functional.weighted_mean(
            functional.soft_target_kl_divergence(
                teacher_logits, student_logits, self.temperature
            ),
            sample_weight,
        )

    def token_values(
        self,
        *,
        targets: Tensor,
        teacher_logits: Tensor | TopLogits | None,
        student_logits: Tensor,
    ) -> Tensor:
        """Divergence of each token in nats, times temperature squared."""
        del targets
        if isinstance(teacher_logits, TopLogits):
            return functional.top_soft_target_kl_divergence(
                teacher_logits.token_ids,
                teacher_logits.logits,
                teacher_logits.tail_at(self.temperature),
                student_logits,
                self.temperature,
            )
        return functional.soft_target_kl_divergence(
            teacher_logits, student_logits, self.temperature
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {
            **super().get_config(),
            "temperature": _number(self.temperature),
            "positions": self.positions,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetSquaredError(LogitsLoss):
    """Squared difference of the student's number and the teacher's.

    Formula:
        loss = (student - teacher)**2         # squared unit of the labels

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        teacher_logits: float, (batch, 1), the teacher's outputs.
        student_logits: float, (batch, 1), the student's.
        sample_weight: float, (batch,); 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargetSquaredError()
        >>> float(loss(np.array([[1.0]]), np.array([[4.0]])))
        9.0

    Reference:
        Ba and Caruana 2014, arXiv:1312.6184, section 2, on logits; here on
        the outputs of a regression. Differs: no factor of a half.
    """

    def __init__(self, weight: float = 1.0, name: str = "soft_target") -> None:
        super().__init__(weight=weight, name=name)

    def call(
        self,
        teacher_logits: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Mean over the weighted examples."""
        return functional.weighted_mean(
            functional.squared_error(
                teacher_logits[..., 0], student_logits[..., 0]
            ),
            sample_weight,
        )

    def token_values(
        self,
        *,
        targets: Tensor,
        teacher_logits: Tensor | None,
        student_logits: Tensor,
    ) -> Tensor:
        """Squared difference of each example."""
        del targets
        teacher_logits = ops.convert_to_tensor(teacher_logits)
        return functional.squared_error(
            teacher_logits[..., 0], student_logits[..., 0]
        )
