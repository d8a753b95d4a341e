"""The hard-label loss of masked language modelling."""

from typing import Any

import keras

from keras_distil.losses import functional
from keras_distil.losses.base import LogitsLoss

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class MaskedLMCrossentropy(LogitsLoss):
    """Crossentropy of the student's logits with the original tokens.

    Formula:
        loss = logsumexp(logits) - logits[token_id]       # nats per token

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        token_ids: int, (batch, length), the original tokens.
        student_logits: float, (batch, length, vocabulary), unnormalised.
        sample_weight: float, (batch, length), 1 at masked positions; 0
            excludes a token. None counts every token.

    Returns:
        Scalar float32, mean over weighted tokens; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> loss = MaskedLMCrossentropy()
        >>> round(float(loss(np.array([[1]]), np.zeros((1, 1, 4)))), 4)
        1.3863

    Reference:
        Devlin et al. 2019, arXiv:1810.04805, section 3.1; the L_mlm of Sanh
        et al. 2019, arXiv:1910.01108. Differs: none.
    """

    reads = frozenset({"targets", "student_logits"})
    counts = "masked"
    caption = "masked-LM loss"
    unit = "nats"

    def __init__(self, weight: float = 1.0, name: str = "mlm") -> None:
        super().__init__(weight=weight, name=name)

    def call(
        self,
        token_ids: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over the weighted tokens."""
        return functional.weighted_mean(
            functional.masked_lm_crossentropy(token_ids, student_logits),
            sample_weight,
        )

    def token_values(
        self, *, targets: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns the crossentropy of each token in nats."""
        return functional.masked_lm_crossentropy(targets, student_logits)
