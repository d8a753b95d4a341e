"""The table of losses that a recipe may name, readable without TensorFlow.

A new loss is one row of `ROWS`, plus a class for its settings if it has any
besides a weight. Recipes, searches, plans and charts follow the table.
"""

import dataclasses
import importlib
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from keras_distil.losses.layers import (
    LAST,
    Layer,
    check_attention_layers,
    check_layers,
    find_pairs,
)
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Positive,
    Section,
    StepCount,
    each_once,
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


class LossSettings(Section):
    """Settings of a loss in a recipe, which are arguments of its class.

    Attributes:
        scheduled: settings that may follow a schedule.
        is_on_states: whether the loss reads hidden states instead of outputs.
        is_on_attention: whether it reads attention instead of outputs.
        is_on_vectors: whether it reads the vectors of texts.
    """

    scheduled: ClassVar[tuple[str, ...]] = ("weight",)
    is_on_states: ClassVar[bool] = False
    is_on_attention: ClassVar[bool] = False
    is_on_vectors: ClassVar[bool] = False

    weight: NonNegative = 1.0

    @property
    def needs_live_teacher(self) -> str | None:
        """The setting that rules out a cached teacher; None without one.

        It is "" if the loss itself rules it out.
        """
        return None


class SoftTargetSettings(LossSettings):
    """Soft targets.

    `confidence_slope` sets how strongly the temperature of a token, or of an
    example, follows the student's confidence.
    """

    scheduled = ("temperature", "weight")

    temperature: Positive = 2.0
    confidence_slope: NonNegative = 0.0

    @property
    def needs_live_teacher(self) -> str | None:
        """A confidence slope needs all of the student's logits."""
        return "confidence_slope" if self.confidence_slope else None


class LabelwiseSoftTargetSettings(LossSettings):
    """Soft targets of labels that do not exclude each other."""

    scheduled = ("temperature", "weight")

    temperature: Positive = 2.0


class HiddenStateSettings(LossSettings):
    """A loss on hidden states, for pairs of layers (teacher, student)."""

    is_on_states = True

    layers: Annotated[Any, AfterValidator(check_layers)] = LAST

    @property
    def needs_live_teacher(self) -> str | None:
        """A cache holds only the last hidden states."""
        return "layers" if self.layers != LAST else None


class AttentionSettings(LossSettings):
    """A loss on attention, for pairs of layers (teacher, student)."""

    is_on_attention = True

    layers: Annotated[Any, AfterValidator(check_attention_layers)] = LAST

    @property
    def needs_live_teacher(self) -> str | None:
        """A cache holds only the last layer's attention."""
        return "layers" if self.layers != LAST else None


class AttentionRelationSettings(AttentionSettings):
    """Relations of queries, of keys and of values, split anew into heads."""

    relation_heads: Count = 12
    query_weight: NonNegative = 1.0
    key_weight: NonNegative = 1.0
    value_weight: NonNegative = 1.0

    @model_validator(mode="after")
    def _has_a_relation(self) -> Self:
        if not (self.query_weight or self.key_weight or self.value_weight):
            raise ValueError(
                "`query_weight`, `key_weight` or `value_weight` must be above "
                "0. Received: 0 for all three."
            )
        return self


class _OfOneTeacher(LossSettings):
    """Settings of a loss on the layers of one of several teachers.

    `teacher` is its place among the seeds of the task, from 0.
    """

    teacher: StepCount = 0


class TaskHiddenStateSettings(_OfOneTeacher, HiddenStateSettings):
    """A loss on hidden states in a task."""


class TaskAttentionSettings(_OfOneTeacher, AttentionSettings):
    """A loss on attention in a task."""


class TaskAttentionRelationSettings(_OfOneTeacher, AttentionRelationSettings):
    """Relations of queries, of keys and of values in a task."""


class MaskedLMSoftTargetSettings(SoftTargetSettings):
    """Soft targets of masked language modelling, with their positions."""

    positions: Literal["all", "masked"] = "all"


class _OfAllLogits(LossSettings):
    """Settings of a loss on all logits; a cache holds the largest only."""

    @property
    def needs_live_teacher(self) -> str | None:
        """The loss itself."""
        return ""


class ReverseKLSettings(_OfAllLogits):
    """The reverse KL divergence of softened outputs."""

    scheduled = ("temperature", "weight")

    temperature: Positive = 2.0


class MaskedLMReverseKLSettings(ReverseKLSettings):
    """The reverse KL divergence, with the positions of its tokens."""

    positions: Literal["all", "masked"] = "all"


class JensenShannonSettings(ReverseKLSettings):
    """The Jensen-Shannon divergence; the teacher's share in the mixture."""

    teacher_share: Annotated[float, Field(gt=0, lt=1)] = 0.5


class MaskedLMJensenShannonSettings(JensenShannonSettings):
    """The Jensen-Shannon divergence, with the positions of its tokens."""

    positions: Literal["all", "masked"] = "all"


class MaskedLMOutputSettings(_OfAllLogits):
    """The squared error of logits, with the positions of its tokens."""

    positions: Literal["all", "masked"] = "all"


class SimilaritySettings(LossSettings):
    """A loss on the similarities of texts."""

    is_on_vectors = True


class SimilarityKLSettings(SimilaritySettings):
    """The KL divergence of similarities."""

    scheduled = ("temperature", "weight")

    temperature: Positive = 0.0625


class VectorSettings(LossSettings):
    """A distance of two vectors; a projection for vectors of two sizes."""

    is_on_vectors = True

    projection: Literal["learned"] | None = None


class MatryoshkaSettings(LossSettings):
    """The other losses on vectors, for their first coordinates."""

    is_on_vectors = True

    dimensions: Annotated[
        list[Count], Field(min_length=1), AfterValidator(each_once)
    ] = [256, 128, 64]


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
