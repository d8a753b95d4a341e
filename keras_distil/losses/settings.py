"""The settings of losses in recipes, readable without TensorFlow."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from keras_distil.losses.layers import (
    LAST,
    check_attention_layers,
    check_layers,
)
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Positive,
    Section,
    StepCount,
    each_once,
)


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
