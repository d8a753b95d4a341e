"""What a teacher's outputs for masked text depend on, and their records."""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import pydantic

from keras_distil.data.corpus.manifests import Section
from keras_distil.teachers.store.manifest import (
    MASKED_LM,
    AtLeastOne,
    Manifest,
    Part,
    Settings,
)
from keras_distil.teachers.store.records import Field, RecordLayout

_Id: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


class MaskingSettings(Section):
    """The masking of the sequences.

    `special` are the ids of `SpecialTokens` by role, `vocabulary_size` is the
    tokenizer's, and `first_masks` is a hash of some masks, because another
    version of the code may mask differently.
    """

    seed: Annotated[int, pydantic.Field(ge=-(2**63), lt=2**63)]
    rate: Annotated[float, pydantic.Field(gt=0, le=1)]
    rare_token_exponent: Annotated[float, pydantic.Field(ge=0)]
    special: dict[str, _Id | None]
    vocabulary_size: AtLeastOne
    first_masks: str


class CacheSettings(Settings):
    """Everything that the outputs depend on, and what is kept.

    `temperatures` are those with tails; empty if all logits are kept.
    `attention_heads` is the number of the teacher's heads if its last
    queries, keys and values are kept, else 0, which is not written, so that
    such a cache keeps the name that it had before there were any.
    """

    corpus: str
    masking: MaskingSettings
    maskings: AtLeastOne
    top_k: AtLeastOne
    positions: Literal["all", "masked"]
    temperatures: Annotated[
        list[Annotated[float, pydantic.Field(gt=0)]],
        pydantic.Field(max_length=64),
    ]
    hidden_states: bool
    attention_heads: Annotated[int, pydantic.Field(ge=0, lt=2**20)] = 0

    @pydantic.model_serializer(mode="wrap")
    def _without_zero(self, serialize: Any) -> dict[str, Any]:
        values = serialize(self)
        if not self.attention_heads:
            del values["attention_heads"]
        return values

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "CacheSettings":
        if self.top_k > self.teacher.vocabulary_size:
            raise ValueError("`top_k` exceeds the vocabulary")
        if (self.top_k < self.teacher.vocabulary_size) != bool(
            self.temperatures
        ):
            raise ValueError("`temperatures` do not fit `top_k`")
        self.teacher.check_heads(self.attention_heads)
        return self

    @property
    def passes(self) -> int:
        """One record for each masking of a sequence."""
        return self.maskings

    @property
    def attention_shape(self) -> tuple[int, int]:
        """Number and size of the heads whose vectors are kept, or (0, 0)."""
        return self.teacher.attention_shape(self.attention_heads)


class CorpusPart(Part):
    """The outputs for one part of the corpus, masking after masking.

    Attributes:
        rows: number of sequences.
        shards: `maskings` times the rows, in order.
        length: tokens per sequence.
        slots: positions per sequence that have logits.
    """

    length: Annotated[int, pydantic.Field(ge=1, lt=2**20)]
    slots: AtLeastOne

    @pydantic.model_validator(mode="after")
    def _has_its_slots(self) -> "CorpusPart":
        if self.slots > self.length:
            raise ValueError("there are more slots than positions")
        return self


class CacheManifest(Manifest[CacheSettings, CorpusPart]):
    """A whole cache for masked text."""

    kinds: ClassVar = (MASKED_LM,)
    maker: ClassVar = "cache_teacher"


def record_layout(
    *,
    slots: int,
    top_k: int,
    temperatures: int,
    vocabulary_size: int,
    hidden_dim: int = 0,
    attention: tuple[int, int] = (0, 0),
) -> RecordLayout:
    """Returns the layout of a record: one sequence under one masking.

    Args:
        slots: number of positions with logits.
        top_k: number of logits per position.
        temperatures: number of tails per position.
        vocabulary_size: upper bound of token ids.
        hidden_dim: width of the last hidden states, 0 if they are left out.
        attention: number and size of heads of the last layer's queries, keys
            and values; (0, 0) if they are left out.
    """
    ids = "uint16" if vocabulary_size <= 2**16 else "int32"
    fields = [
        Field("token_ids", ids, (slots, top_k)),
        # Relative to the largest, so half precision is exact to 1e-3 for
        # logits within 4 of it, which have most of the mass.
        Field("logits", "float16", (slots, top_k)),
        Field("tails", "float32", (slots, temperatures)),
    ]
    if hidden_dim:
        fields.append(Field("states", "float16", (hidden_dim,), True))
    if attention[0]:
        fields.append(Field("attention", "float16", (3, *attention), True))
    return RecordLayout(tuple(fields))


def layout_of(settings: CacheSettings, slots: int) -> RecordLayout:
    """Returns the layout of the records with some slots in a cache."""
    return record_layout(
        slots=slots,
        top_k=settings.top_k,
        temperatures=len(settings.temperatures),
        vocabulary_size=settings.teacher.vocabulary_size,
        hidden_dim=(
            settings.teacher.hidden_dim if settings.hidden_states else 0
        ),
        attention=settings.attention_shape,
    )
