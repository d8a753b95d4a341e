"""Soft-target losses other than the KL divergence from the teacher."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_distil.losses.divergences import (
    soft_target_jensen_shannon_divergence,
    soft_target_reverse_kl_divergence,
)
from keras_distil.losses.mixtures import mixture_logits
from keras_distil.losses.soft import SoftenedLoss, check_positions
from keras_distil.utils.checks import check_number

Tensor = Any


class _SoftDivergence(SoftenedLoss):
    """A divergence of two softened distributions; see its subclasses."""

    def __init__(
        self, *, weight: float, temperature: float, positions: str, name: str
    ) -> None:
        super().__init__(weight=weight, temperature=temperature, name=name)
        self.counts = check_positions(positions)
        self.positions = positions

    def join_teachers(
        self, teacher_logits: Sequence[Tensor], student_logits: Tensor
    ) -> Tensor:
        """Returns logits of the mean of the softened distributions."""
        return mixture_logits(teacher_logits, self.temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), "positions": self.positions}


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetReverseKLDivergence(_SoftDivergence):
    """Reverse KL divergence of temperature-softened distributions.

    The student is punished for what the teacher finds improbable, more than
    for what it leaves out, so it prefers a part of the teacher's choices.

    With several teachers, `p` is the mean of their softmaxes; see
    `losses.mixtures`.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        loss = temperature**2 * sum(q * (log q - log p))  # nats per token

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
        ValueError: if `temperature` is not positive or `positions`
            unknown.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargetReverseKLDivergence(temperature=2.0)
        >>> logits = np.array([[[1.0, 2.0, 3.0]]])
        >>> float(loss(logits, logits))
        0.0

    Reference:
        Gu et al. 2023, arXiv:2306.08543 (MiniLLM), section 2. Differs: on the
        given text, token by token, not on text that the student writes; and
        with a temperature and its square.
    """

    caption = "reverse KL divergence"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        positions: str = "all",
        name: str = "reverse_kl",
    ) -> None:
        super().__init__(
            weight=weight,
            temperature=temperature,
            positions=positions,
            name=name,
        )

    def token_values(
        self, *, teacher_logits: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns each token's divergence in nats times temperature squared."""
        return soft_target_reverse_kl_divergence(
            teacher_logits, student_logits, self.temperature
        )


@keras.saving.register_keras_serializable(package="keras_distil")
class SoftTargetJensenShannonDivergence(_SoftDivergence):
    """Generalised Jensen-Shannon divergence of softened distributions.

    It is bounded, and lies between the two KL divergences: divided by
    `teacher_share`, it approaches the soft-target loss where this is small.

    With several teachers, `p` is the mean of their softmaxes; see
    `losses.mixtures`.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        m = teacher_share * p + (1 - teacher_share) * q
        loss = temperature**2 * (
            teacher_share * sum(p * (log p - log m))
            + (1 - teacher_share) * sum(q * (log q - log m))
        )                                                 # nats per token

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        temperature: float > 0, no unit. Divides both logits.
        teacher_share: float, above 0 and below 1, no unit. Share of the
            teacher in the mixture.
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
        TypeError: if `weight`, `temperature` or `teacher_share` is not a
            number.
        ValueError: if `temperature` is not positive, `teacher_share`
            not between 0 and 1, or `positions` unknown.

    Example:
        >>> import numpy as np
        >>> loss = SoftTargetJensenShannonDivergence(temperature=2.0)
        >>> logits = np.array([[[1.0, 2.0, 3.0]]])
        >>> float(loss(logits, logits))
        0.0

    Reference:
        Agarwal et al. 2023, arXiv:2306.13649 (GKD), section 2, whose beta is
        `teacher_share`. Differs: on the given text, not on text that the
        student writes; and with a temperature and its square.
    """

    caption = "Jensen-Shannon divergence"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 2.0,
        teacher_share: float = 0.5,
        positions: str = "all",
        name: str = "jensen_shannon",
    ) -> None:
        super().__init__(
            weight=weight,
            temperature=temperature,
            positions=positions,
            name=name,
        )
        self.teacher_share = check_number("teacher_share", teacher_share)
        if not 0 < teacher_share < 1:
            raise ValueError(
                "`teacher_share` must be above 0 and below 1. Received: "
                f"teacher_share={teacher_share}. At the ends it is 0 for all "
                "students: use SoftTargetKLDivergence or "
                "SoftTargetReverseKLDivergence."
            )

    def token_values(
        self, *, teacher_logits: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns each token's divergence in nats times temperature squared."""
        return soft_target_jensen_shannon_divergence(
            teacher_logits,
            student_logits,
            self.temperature,
            self.teacher_share,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), "teacher_share": self.teacher_share}
