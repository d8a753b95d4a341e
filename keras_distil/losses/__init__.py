"""Distillation losses and the paper's triple loss."""

from keras_distil.losses.base import (
    DistillationLoss,
    HiddenStateLoss,
    LogitsLoss,
)
from keras_distil.losses.hidden_state import HiddenStateCosineDistance
from keras_distil.losses.masked_lm import MaskedLMCrossentropy
from keras_distil.losses.soft_target import SoftTargetKLDivergence

__all__ = [
    "DistillationLoss",
    "HiddenStateCosineDistance",
    "HiddenStateLoss",
    "LogitsLoss",
    "MaskedLMCrossentropy",
    "SoftTargetKLDivergence",
    "triple_loss",
]


def triple_loss(
    mlm_weight: float = 1.0,
    soft_target_weight: float = 1.0,
    cosine_weight: float = 1.0,
    temperature: float = 2.0,
    positions: str = "all",
) -> list[DistillationLoss]:
    """The three losses of DistilBERT.

    Formula:
        loss = mlm_weight * L_mlm + soft_target_weight * L_ce
               + cosine_weight * L_cos

    Args:
        mlm_weight: float >= 0, weight of `MaskedLMCrossentropy`.
        soft_target_weight: float >= 0, weight of `SoftTargetKLDivergence`.
        cosine_weight: float >= 0, weight of `HiddenStateCosineDistance`.
        temperature: float > 0, no unit, of the soft targets.
        positions: "all" or "masked", where the soft targets count.

    Returns:
        The three losses, in this order.

    Example:
        >>> [loss.name for loss in triple_loss()]
        ['mlm', 'soft_target', 'cosine']

    Reference:
        Sanh et al. 2019, arXiv:1910.01108, section 2. Differs: none; the
        authors' published runs weight the terms 2, 5 and 1.
    """
    return [
        MaskedLMCrossentropy(weight=mlm_weight),
        SoftTargetKLDivergence(
            weight=soft_target_weight,
            temperature=temperature,
            positions=positions,
        ),
        HiddenStateCosineDistance(weight=cosine_weight),
    ]
