"""What a teacher's vectors depend on, and their records."""

from typing import ClassVar, Literal

from keras_distil.losses.registry import EMBEDDING
from keras_distil.teachers.store.manifest import (
    AtLeastOne,
    Manifest,
    Part,
    Settings,
)
from keras_distil.teachers.store.records import Field, RecordLayout

VECTOR = "vector"


class EmbeddingCacheSettings(Settings):
    """Everything that the vectors depend on.

    Attributes:
        kind: always "embedding".
        tokenizer: hash of the tokenizer; empty if it is not known.
        examples: the fingerprint of the texts.
        pooling_mode: how the teacher makes a vector of its states.
        normalize: whether its vectors have length 1.
        dimension: their size.
    """

    kind: Literal["embedding"]
    tokenizer: str
    examples: str
    pooling_mode: Literal["mean", "cls", "max"]
    normalize: bool
    dimension: AtLeastOne

    @property
    def layout(self) -> RecordLayout:
        """The layout of a record: the vector of one text."""
        return record_layout(self.dimension)


class EmbeddingManifest(Manifest[EmbeddingCacheSettings, Part]):
    """A whole cache of the vectors of texts."""

    kinds: ClassVar = (EMBEDDING,)
    maker: ClassVar = "cache_embedding_teacher"


def record_layout(dimension: int) -> RecordLayout:
    """Returns the layout of a record: a vector of this size."""
    return RecordLayout((Field(VECTOR, "float16", (dimension,)),))
