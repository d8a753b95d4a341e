"""What a teacher's outputs for a task depend on, and their records."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias

import pydantic

from keras_distil import data
from keras_distil.losses import TASK_KINDS
from keras_distil.losses.layers import Attention, Layer
from keras_distil.teachers.store.manifest import (
    AtLeastOne,
    Manifest,
    Part,
    Settings,
)
from keras_distil.teachers.store.records import Field, RecordLayout

# The outputs of a token of a span: the logits of a start and of an end.
SPAN_OUTPUTS = 2
OUTPUTS = "outputs"

_Number: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**20)]
_Layers: TypeAlias = Annotated[
    list[_Number | Literal["embeddings", "last"]],
    pydantic.Field(max_length=1024),
]


class TaskCacheSettings(Settings):
    """Everything that the outputs depend on, and what is kept.

    Attributes:
        kind: kind of the task.
        task: name of the task, for messages; may be empty.
        tokenizer: hash of the tokenizer; empty if it is not known.
        examples: the fingerprints of the sets of examples.
        num_layers: number of the teacher's layers; None if only the last
            states are available.
        num_outputs: classes; 1 for a regression, 2 for a span.
        labels: names of the classes, if they have names.
        hidden_states: layers whose states are kept.
        attention: layers whose queries, keys and values are kept.
        attention_heads: number of heads of these; 0 without any.
    """

    kind: Literal[
        "classification",
        "multi_label",
        "regression",
        "token_classification",
        "span",
    ]
    task: str
    tokenizer: str
    examples: Annotated[list[str], pydantic.Field(min_length=1, max_length=16)]
    num_layers: AtLeastOne | None
    num_outputs: AtLeastOne
    labels: list[str] | None
    hidden_states: _Layers
    attention: _Layers
    attention_heads: _Number

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "TaskCacheSettings":
        only = {"regression": 1, "span": SPAN_OUTPUTS}.get(self.kind)
        if only is not None and self.num_outputs != only:
            raise ValueError("`num_outputs` does not fit the kind")
        if self.labels is not None and len(self.labels) != self.num_outputs:
            raise ValueError("`labels` do not name the outputs")
        for layers in (self.hidden_states, self.attention):
            if len(set(layers)) != len(layers):
                raise ValueError("a layer is listed twice")
        if bool(self.attention) != bool(self.attention_heads):
            raise ValueError("`attention_heads` do not fit `attention`")
        self.teacher.check_heads(self.attention_heads)
        return self

    @property
    def attention_shape(self) -> tuple[int, int]:
        """Number and size of the heads whose vectors are kept, or (0, 0)."""
        return self.teacher.attention_shape(self.attention_heads)

    @property
    def layers(self) -> list[Layer | Attention]:
        """All layers that are kept, as `forward.hidden_states` names them."""
        return [*self.hidden_states, *map(Attention, self.attention)]

    @property
    def layout(self) -> RecordLayout:
        """The layout of a record: the outputs for one example."""
        return record_layout(
            self.kind,
            self.num_outputs,
            hidden_dim=self.teacher.hidden_dim,
            hidden_states=self.hidden_states,
            attention=self.attention,
            attention_shape=self.attention_shape,
        )


class TaskManifest(Manifest[TaskCacheSettings, Part]):
    """A whole cache for the examples of a task, with a part for each set."""

    kinds: ClassVar = TASK_KINDS
    maker: ClassVar = "cache_task_teacher"

    @pydantic.model_validator(mode="after")
    def _has_its_parts(self) -> "TaskManifest":
        if len(self.parts) != len(self.settings.examples):
            raise ValueError("there must be one part for each set of examples")
        return self


def list_sets(
    examples: data.EncodedExamples | data.Mixture,
) -> list[data.EncodedExamples]:
    """Returns the sets of examples, in the order of their parts."""
    if isinstance(examples, data.Mixture):
        return examples.parts
    return [examples]


def field_of(layer: Layer | Attention) -> str:
    """Returns the name of the array with a layer's states or attention."""
    if isinstance(layer, Attention):
        return f"attention_{layer.layer}"
    return f"states_{layer}"


def record_layout(
    kind: str,
    num_outputs: int,
    *,
    hidden_dim: int,
    hidden_states: Sequence[Layer] = (),
    attention: Sequence[Layer] = (),
    attention_shape: tuple[int, int] = (0, 0),
) -> RecordLayout:
    """Returns the layout of a record: the outputs for one example.

    Args:
        kind: kind of the task.
        num_outputs: classes; 1 for a regression, 2 for a span.
        hidden_dim: width of the teacher's hidden states.
        hidden_states: layers whose states are kept.
        attention: layers whose queries, keys and values are kept.
        attention_shape: number and size of their heads.
    """
    per_token = kind in ("span", "token_classification")
    # All of them in full precision: they are few, and whoever learns from them
    # learns what it would learn from the teacher itself.
    fields = [Field(OUTPUTS, "float32", (num_outputs,), per_token)]
    fields += [
        Field(field_of(layer), "float16", (hidden_dim,), True)
        for layer in hidden_states
    ]
    fields += [
        Field(
            field_of(Attention(layer)), "float16", (3, *attention_shape), True
        )
        for layer in attention
    ]
    return RecordLayout(tuple(fields))
