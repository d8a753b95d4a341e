"""The combinations of losses from the paper, for text and for tasks."""

from typing import Any

from keras_distil.losses.base import DistillationLoss
from keras_distil.losses.hidden_state import HiddenStateCosineDistance
from keras_distil.losses.masked_lm import MaskedLMCrossentropy
from keras_distil.losses.registry import TASK_KINDS, loss_class
from keras_distil.losses.soft_target import SoftTargetKLDivergence


def triple_loss(
    mlm_weight: float = 1.0,
    soft_target_weight: float = 1.0,
    cosine_weight: float = 1.0,
    temperature: float = 2.0,
    positions: str = "all",
    confidence_slope: float = 0.0,
) -> list[DistillationLoss]:
    """Returns the three losses of DistilBERT.

    Formula:
        loss = mlm_weight * L_mlm + soft_target_weight * L_ce
               + cosine_weight * L_cos

    Args:
        mlm_weight: float >= 0, weight of `MaskedLMCrossentropy`.
        soft_target_weight: float >= 0, weight of `SoftTargetKLDivergence`.
        cosine_weight: float >= 0, weight of `HiddenStateCosineDistance`.
        temperature: float > 0, no unit, temperature of the soft targets.
        positions: "all" or "masked", the positions of the soft targets.
        confidence_slope: float >= 0, no unit: how strongly the temperature of
            a token follows the student's confidence.

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
            confidence_slope=confidence_slope,
        ),
        HiddenStateCosineDistance(weight=cosine_weight),
    ]


def task_loss(
    kind: str,
    label_weight: float = 1.0,
    soft_target_weight: float = 1.0,
    cosine_weight: float = 1.0,
    temperature: float = 2.0,
    confidence_slope: float = 0.0,
) -> list[DistillationLoss]:
    """Returns the losses for learning a task from a fine-tuned teacher.

    Formula:
        loss = label_weight * L_label + soft_target_weight * L_soft
               + cosine_weight * L_cos

    Args:
        kind: "classification", "multi_label", "regression",
            "token_classification" or "span". A regression uses squared errors
            for labels and soft targets; the others use crossentropy and KL
            divergence, of several labels one for each.
        label_weight: float >= 0, weight of the true labels.
        soft_target_weight: float >= 0, weight of the teacher's outputs.
        cosine_weight: float >= 0, weight of `HiddenStateCosineDistance`.
        temperature: float > 0, no unit, temperature of the soft targets; not
            used for a regression.
        confidence_slope: float >= 0, no unit: how strongly the temperature of
            an example follows the student's confidence.

    Returns:
        The losses whose weight is not 0, in this order.

    Raises:
        ValueError: if `kind` is unknown, or all weights are 0.

    Example:
        >>> [loss.name for loss in task_loss("regression", cosine_weight=0.0)]
        ['label', 'soft_target']

    Reference:
        Sanh et al. 2019, arXiv:1910.01108, section 3: the second step of
        distillation, done there for SQuAD. Differs: theirs has no loss on
        hidden states in this step.
    """
    if kind not in TASK_KINDS:
        raise ValueError(
            f"`kind` must be one of {list(TASK_KINDS)}. "
            f"Received: kind={kind!r}."
        )
    made: list[DistillationLoss] = []
    make: Any
    if label_weight:
        make = loss_class("label", kind)
        made.append(make(weight=label_weight))
    if soft_target_weight:
        settings: dict[str, float] = {}
        if kind != "regression":
            settings["temperature"] = temperature
        if kind not in ("multi_label", "regression"):
            settings["confidence_slope"] = confidence_slope
        make = loss_class("soft_target", kind)
        made.append(make(weight=soft_target_weight, **settings))
    if cosine_weight:
        made.append(HiddenStateCosineDistance(weight=cosine_weight))
    if not made:
        raise ValueError(
            "At least one of `label_weight`, `soft_target_weight` and "
            "`cosine_weight` must be positive. Received: 0 for all."
        )
    return made
