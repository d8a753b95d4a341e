"""The KL divergence of attention distributions."""

from typing import Any

import keras

from keras_distil.losses.attention_tables import KEYS, QUERIES, Table
from keras_distil.losses.base import AttentionLoss
from keras_distil.losses.layers import LAST


@keras.saving.register_keras_serializable(package="keras_distil")
class AttentionTransfer(AttentionLoss):
    """KL divergence of the attention of layers with equal heads.

    Formula:
        p = softmax(queries_t @ keys_t^T / sqrt(size_t))   # over real tokens
        q = softmax(queries_s @ keys_s^T / sqrt(size_s))
        loss = mean over heads of sum(p * (log p - log q))  # nats per token

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        layers: the pairs of layers, over which the mean is taken; see
            `losses.AttentionLoss`.
        teacher: int >= 0. Which of several teachers it learns from.

    Call arguments:
        teacher_attention: float, (batch, length, 3, heads, size): queries,
            keys and values of a layer.
        student_attention: float, the same, of as many heads.
        padding_mask: (batch, length), above 0 at real tokens. None if all
            are.
        sample_weight: float, (batch, length); 0 excludes a token's row. None
            counts every real token.

    Returns:
        Scalar float32, mean over weighted tokens; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite, `layers` has
            another form, or teacher and student differ in their heads.

    Example:
        >>> import numpy as np
        >>> loss = AttentionTransfer()
        >>> vectors = np.random.normal(size=(1, 5, 3, 2, 8))
        >>> float(loss(vectors, vectors))
        0.0

    Reference:
        Wang et al. 2020, arXiv:2002.10957 (MiniLM), section 3.1, the transfer
        of self-attention distributions. Differs: any pairs of layers, and
        without the paper's second term, the relation of values, which
        `AttentionRelationKLDivergence` has.
    """

    caption = "divergence of attention"
    unit = "nats"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "attention_transfer",
        *,
        layers: Any = LAST,
        teacher: int = 0,
    ) -> None:
        super().__init__(
            weight=weight, name=name, layers=layers, teacher=teacher
        )

    @property
    def tables(self) -> list[Table]:
        """The attention itself."""
        return [Table(QUERIES, KEYS)]

    def heads_for(
        self, teacher: tuple[int, int], student: tuple[int, int]
    ) -> int:
        """Returns the number of heads, if teacher and student have equally."""
        if teacher[0] != student[0]:
            raise ValueError(
                "Teacher and student must have as many attention heads. "
                f"Received: {teacher[0]} and {student[0]} heads; use "
                "AttentionRelationKLDivergence (attention_relation in a "
                "recipe), which splits both anew."
            )
        return teacher[0]
