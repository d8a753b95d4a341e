"""The KL divergence of relations between a layer's attention vectors."""

from typing import Any

import keras

from keras_distil.losses.attention_tables import (
    KEYS,
    QUERIES,
    VALUES,
    Table,
)
from keras_distil.losses.base import AttentionLoss
from keras_distil.losses.layers import LAST
from keras_distil.utils.checks import check_count, check_number

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class AttentionRelationKLDivergence(AttentionLoss):
    """KL divergence of the relations of queries, of keys and of values.

    The vectors of all heads of a layer are joined and split anew into
    `relation_heads`, so that teacher and student need neither equal widths
    nor equal numbers of heads, and no projection.

    Formula:
        p = softmax(a_t @ a_t^T / sqrt(size_t))    # a: queries, keys or values
        q = softmax(a_s @ a_s^T / sqrt(size_s))    # over real tokens
        kl = mean over relation heads of sum(p * (log p - log q))
        loss = query_weight * kl(queries) + key_weight * kl(keys)
            + value_weight * kl(values)                     # nats per token

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        layers: the pairs of layers, over which the mean is taken; see
            `losses.AttentionLoss`. The last is the paper's choice for
            teachers of 12 layers; for those of 24 layers, it is the 19th or
            the 21st.
        teacher: int >= 0. Which of several teachers it learns from.
        relation_heads: int >= 1, which divides both widths. More heads tell
            more of the teacher.
        query_weight: float >= 0, no unit. Factor of the relations of queries.
        key_weight: float >= 0, likewise of keys.
        value_weight: float >= 0, likewise of values.

    Call arguments:
        teacher_attention: float, (batch, length, 3, heads, size): queries,
            keys and values of a layer.
        student_attention: float, the same, with heads of its own.
        padding_mask: (batch, length), above 0 at real tokens. None if all
            are.
        sample_weight: float, (batch, length); 0 excludes a token's row. None
            counts every real token.

    Returns:
        Scalar float32, mean over weighted tokens; 0 if there are none.

    Raises:
        TypeError: if a weight is not a number or `relation_heads` not an
            integer.
        ValueError: if a weight is negative or not finite, all three of the
            relations are 0, `relation_heads` is below 1 or does not divide a
            width, or `layers` has another form.

    Example:
        >>> import numpy as np
        >>> loss = AttentionRelationKLDivergence(relation_heads=4)
        >>> vectors = np.random.normal(size=(1, 5, 3, 2, 8))
        >>> float(loss(vectors, vectors))
        0.0

    Reference:
        Wang et al. 2021, arXiv:2012.15828 (MiniLMv2), section 3.1. Differs:
        none; its authors leave out no relation and weigh them equally, as
        here by default.
    """

    caption = "divergence of attention relations"
    unit = "nats"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "attention_relation",
        *,
        layers: Any = LAST,
        teacher: int = 0,
        relation_heads: int = 12,
        query_weight: float = 1.0,
        key_weight: float = 1.0,
        value_weight: float = 1.0,
    ) -> None:
        super().__init__(
            weight=weight, name=name, layers=layers, teacher=teacher
        )
        self.relation_heads = check_count("relation_heads", relation_heads)
        self.query_weight = _check_weight("query_weight", query_weight)
        self.key_weight = _check_weight("key_weight", key_weight)
        self.value_weight = _check_weight("value_weight", value_weight)
        if not any(table.weight for table in self.tables):
            raise ValueError(
                "`query_weight`, `key_weight` or `value_weight` must be above "
                "0. Received: 0 for all three."
            )

    @property
    def tables(self) -> list[Table]:
        """The three relations."""
        return [
            Table(QUERIES, QUERIES, self.query_weight),
            Table(KEYS, KEYS, self.key_weight),
            Table(VALUES, VALUES, self.value_weight),
        ]

    def heads_for(
        self, teacher: tuple[int, int], student: tuple[int, int]
    ) -> int:
        """Returns the number of relation heads, if it divides both widths."""
        widths = [heads * size for heads, size in (teacher, student)]
        if any(width % self.relation_heads for width in widths):
            raise ValueError(
                "`relation_heads` must divide the widths of teacher and "
                f"student, {widths[0]} and {widths[1]}. "
                f"Received: relation_heads={self.relation_heads}."
            )
        return self.relation_heads

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {
            **super().get_config(),
            "relation_heads": self.relation_heads,
            "query_weight": self.query_weight,
            "key_weight": self.key_weight,
            "value_weight": self.value_weight,
        }


def _check_weight(name: str, value: float) -> float:
    weight = check_number(name, value)
    if weight < 0:
        raise ValueError(
            f"`{name}` must not be negative. Received: {name}={value}. "
            "Use 0 to leave a relation out."
        )
    return weight
