"""The table of losses that a recipe may name, readable without TensorFlow.

A new loss is one row of `ROWS`, plus a class in `settings` if it has any
besides a weight. Recipes, searches, plans and charts follow the table.
"""

import dataclasses
import importlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from keras_distil.losses.layers import Layer, find_pairs
from keras_distil.losses.settings import (
    AttentionRelationSettings,
    AttentionSettings,
    HiddenStateSettings,
    JensenShannonSettings,
    LabelwiseSoftTargetSettings,
    LossSettings,
    MaskedLMJensenShannonSettings,
    MaskedLMOutputSettings,
    MaskedLMReverseKLSettings,
    MaskedLMSoftTargetSettings,
    MatryoshkaSettings,
    ReverseKLSettings,
    SimilarityKLSettings,
    SimilaritySettings,
    SoftTargetSettings,
    TaskAttentionRelationSettings,
    TaskAttentionSettings,
    TaskHiddenStateSettings,
    VectorSettings,
)

if TYPE_CHECKING:
    from keras_distil.losses.base import DistillationLoss

MASKED_LM = "masked_lm"
TASK_KINDS = (
    "classification",
    "multi_label",
    "regression",
    "token_classification",
    "span",
)
EMBEDDING = "embedding"
KINDS = (MASKED_LM, *TASK_KINDS, EMBEDDING)
# Tasks whose outputs are logits of classes, of which one is right.
_OF_CLASSES = ("classification", "token_classification", "span")
# Kinds that have one teacher in a recipe.
_OF_TEXT = (MASKED_LM, EMBEDDING)


@dataclasses.dataclass(frozen=True)
class Row:
    """A loss in recipes.

    Attributes:
        name: its name in recipes and logs.
        kinds: the kinds of tasks it applies to.
        home: "module:Class" below `losses`.
        settings: the class of its settings.
    """

    name: str
    kinds: tuple[str, ...]
    home: str
    settings: type[LossSettings] = LossSettings

    @property
    def module(self) -> str:
        """The module of its class, below `losses`."""
        return self.home.partition(":")[0]

    @property
    def class_name(self) -> str:
        """The name of its class."""
        return self.home.partition(":")[2]


_SOFT_TARGETS = "soft_target:SoftTargetKLDivergence"
# If a loss has several rows, the first that fits has the settings, because a
# recipe gives the settings once for tasks of all kinds.
ROWS = (
    Row("mlm", (MASKED_LM,), "masked_lm:MaskedLMCrossentropy"),
    Row("label", _OF_CLASSES, "label:LabelCrossentropy"),
    Row("label", ("multi_label",), "label:LabelBinaryCrossentropy"),
    Row("label", ("regression",), "label:LabelSquaredError"),
    Row(
        "soft_target",
        (MASKED_LM,),
        _SOFT_TARGETS,
        MaskedLMSoftTargetSettings,
    ),
    Row(
        "soft_target",
        _OF_CLASSES,
        _SOFT_TARGETS,
        SoftTargetSettings,
    ),
    Row(
        "soft_target",
        ("multi_label",),
        "soft_labels:SoftTargetBinaryKLDivergence",
        LabelwiseSoftTargetSettings,
    ),
    Row(
        "soft_target",
        ("regression",),
        "soft_target:SoftTargetSquaredError",
    ),
    Row(
        "cosine",
        _OF_TEXT,
        "hidden_state:HiddenStateCosineDistance",
        HiddenStateSettings,
    ),
    Row(
        "cosine",
        TASK_KINDS,
        "hidden_state:HiddenStateCosineDistance",
        TaskHiddenStateSettings,
    ),
    Row(
        "hidden_mse",
        _OF_TEXT,
        "hidden_mse:HiddenStateMeanSquaredError",
        HiddenStateSettings,
    ),
    Row(
        "hidden_mse",
        TASK_KINDS,
        "hidden_mse:HiddenStateMeanSquaredError",
        TaskHiddenStateSettings,
    ),
    Row(
        "attention_relation",
        _OF_TEXT,
        "attention_relation:AttentionRelationKLDivergence",
        AttentionRelationSettings,
    ),
    Row(
        "attention_relation",
        TASK_KINDS,
        "attention_relation:AttentionRelationKLDivergence",
        TaskAttentionRelationSettings,
    ),
    Row(
        "attention_transfer",
        _OF_TEXT,
        "attention_transfer:AttentionTransfer",
        AttentionSettings,
    ),
    Row(
        "attention_transfer",
        TASK_KINDS,
        "attention_transfer:AttentionTransfer",
        TaskAttentionSettings,
    ),
    Row(
        "reverse_kl",
        (MASKED_LM,),
        "soft_divergence:SoftTargetReverseKLDivergence",
        MaskedLMReverseKLSettings,
    ),
    Row(
        "reverse_kl",
        _OF_CLASSES,
        "soft_divergence:SoftTargetReverseKLDivergence",
        ReverseKLSettings,
    ),
    Row(
        "jensen_shannon",
        (MASKED_LM,),
        "soft_divergence:SoftTargetJensenShannonDivergence",
        MaskedLMJensenShannonSettings,
    ),
    Row(
        "jensen_shannon",
        _OF_CLASSES,
        "soft_divergence:SoftTargetJensenShannonDivergence",
        JensenShannonSettings,
    ),
    Row(
        "output_mse",
        (MASKED_LM,),
        "soft_target:SoftTargetSquaredError",
        MaskedLMOutputSettings,
    ),
    Row("output_mse", TASK_KINDS, "soft_target:SoftTargetSquaredError"),
    Row(
        "vector_cosine",
        (EMBEDDING,),
        "vector_distance:VectorCosineDistance",
        VectorSettings,
    ),
    Row(
        "vector_mse",
        (EMBEDDING,),
        "vector_distance:VectorMeanSquaredError",
        VectorSettings,
    ),
    Row(
        "similarity_kl",
        (EMBEDDING,),
        "similarity:SimilarityKLDivergence",
        SimilarityKLSettings,
    ),
    Row(
        "similarity_mse",
        (EMBEDDING,),
        "similarity:SimilarityMeanSquaredError",
        SimilaritySettings,
    ),
    Row(
        "matryoshka",
        (EMBEDDING,),
        "matryoshka:Matryoshka",
        MatryoshkaSettings,
    ),
)

# The losses of a recipe without the key `losses`.
TEXT_DEFAULTS = ("mlm", "soft_target", "cosine")
TASK_DEFAULTS = ("label", "soft_target", "cosine")
EMBEDDING_DEFAULTS = ("vector_cosine", "similarity_kl")


def rows_for(kinds: Collection[str]) -> dict[str, Row]:
    """Returns, by name, the first row that fits any of some kinds of tasks."""
    found: dict[str, Row] = {}
    for row in ROWS:
        if set(row.kinds) & set(kinds):
            found.setdefault(row.name, row)
    return found


def loss_class(name: str, kind: str) -> "type[DistillationLoss]":
    """Returns the class of a loss.

    Args:
        name: its name in a recipe.
        kind: one of `KINDS`.

    Raises:
        ValueError: if there is no such loss for this kind of task.
    """
    rows = rows_for([kind])
    if name not in rows:
        raise ValueError(
            f"The loss {name!r} is not for {kind} tasks. Losses for them: "
            f"{', '.join(rows)}."
        )
    row = rows[name]
    module = importlib.import_module(f"keras_distil.losses.{row.module}")
    return getattr(module, row.class_name)


def make_losses(
    settings: Mapping[str, LossSettings], kind: str
) -> "list[DistillationLoss]":
    """Makes the losses that a recipe names.

    Settings that the loss lacks for this kind of task are left out, such as
    the temperature for a regression.

    Args:
        settings: settings by name, as in a recipe.
        kind: one of `KINDS`.

    Returns:
        The losses in the order of the table, not of the recipe.

    Raises:
        ValueError: if a loss does not apply to this kind of task.

    Example:
        >>> made = make_losses({"mlm": LossSettings(weight=2.0)}, "masked_lm")
        >>> [(loss.name, float(loss.weight)) for loss in made]
        [('mlm', 2.0)]
    """
    rows = rows_for([kind])
    known = [name for name in rows if name in settings]
    unknown = [name for name in settings if name not in rows]
    return [
        loss_class(name, kind)(
            name=name,
            **settings[name].model_dump(
                include=set(rows[name].settings.model_fields)
            ),
        )
        for name in [*known, *unknown]
    ]


def read_hidden_states(names: Collection[str], kind: str) -> bool:
    """Whether any of these losses reads hidden states."""
    rows = rows_for([kind])
    return any(rows[name].settings.is_on_states for name in names)


def read_attention(names: Collection[str], kind: str) -> bool:
    """Whether any of these losses reads attention."""
    rows = rows_for([kind])
    return any(rows[name].settings.is_on_attention for name in names)


def read_teacher_layers(
    losses: Iterable[LossSettings],
    teacher_layers: int | None,
    student_layers: int | None,
) -> tuple[list[Layer], list[Layer]]:
    """Returns the teacher's layers that losses read.

    Args:
        losses: the settings of some losses.
        teacher_layers: number of the teacher's layers; None if only its last
            hidden states are available.
        student_layers: likewise for the student.

    Returns:
        The layers whose hidden states are read, and those whose attention is,
        each once.

    Raises:
        ValueError: if a layer does not exist, or the layers cannot be paired.
    """
    states: dict[Layer, None] = {}
    attention: dict[Layer, None] = {}
    for each in losses:
        if isinstance(each, HiddenStateSettings | AttentionSettings):
            pairs = find_pairs(each.layers, teacher_layers, student_layers)
            found = attention if each.is_on_attention else states
            found.update(dict.fromkeys(layer for layer, _ in pairs))
    return list(states), list(attention)
