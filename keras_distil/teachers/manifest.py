"""The manifest of a cache of a teacher's outputs."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from keras_distil.data import CorpusError
from keras_distil.data.corpus import manifests
from keras_distil.data.corpus.manifests import FileCount, Section, Shard
from keras_distil.utils import disk

# Increase it when an earlier keras_distil could not read what is written, or
# when the same teacher and corpus would give other outputs.
FORMAT_VERSION = 1
MANIFEST = "teacher_cache.json"
REMEDY = "Remove the cache's folder and make it again."

_AtLeastOne: TypeAlias = Annotated[int, pydantic.Field(ge=1, lt=2**31)]
_Id: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


class TeacherSettings(Section):
    """The teacher: hash of its weights, precision and sizes."""

    weights: str
    precision: str
    vocabulary_size: _AtLeastOne
    hidden_dim: _AtLeastOne


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
    vocabulary_size: _AtLeastOne
    first_masks: str


class CacheSettings(Section):
    """Everything that a teacher's outputs depend on, and what is kept.

    `temperatures` are those with tails; empty if all logits are kept.
    `attention_heads` is the number of the teacher's heads if its last
    queries, keys and values are kept, else 0, which is not written, so that
    such a cache keeps the name that it had before there were any.
    """

    teacher: TeacherSettings
    corpus: str
    masking: MaskingSettings
    maskings: _AtLeastOne
    top_k: _AtLeastOne
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
        heads = self.attention_heads
        if heads and self.teacher.hidden_dim % heads:
            raise ValueError("`attention_heads` do not divide the width")
        return self

    @property
    def digest(self) -> str:
        """A hash of the settings and the format."""
        return disk.sha256(disk.canonical([FORMAT_VERSION, self.model_dump()]))


class Part(Section):
    """The outputs for one part of the corpus, masking after masking.

    Attributes:
        length: tokens per sequence.
        rows: number of sequences in the part.
        slots: positions per sequence that have logits.
        shards: `maskings` times the rows, in order.
    """

    length: Annotated[int, pydantic.Field(ge=1, lt=2**20)]
    rows: FileCount
    slots: _AtLeastOne
    shards: list[Shard]


class Manifest(Section):
    """A whole cache."""

    format_version: int
    settings: CacheSettings
    parts: list[Part]
    sha256: str

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "Manifest":
        for part in self.parts:
            count = sum(shard.sequences for shard in part.shards)
            if count != part.rows * self.settings.maskings:
                raise ValueError("shards are missing")
            if part.slots > part.length:
                raise ValueError("there are more slots than positions")
        return self


def write_manifest(
    folder: Path, settings: CacheSettings, parts: list[Part]
) -> None:
    """Writes the manifest, which completes a cache.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    body = {
        "format_version": FORMAT_VERSION,
        "settings": settings.model_dump(),
        "parts": [part.model_dump() for part in parts],
    }
    content = {**body, "sha256": disk.sha256(disk.canonical(body))}
    path = folder / MANIFEST
    partial = folder / f".{MANIFEST}.partial"
    with disk.replacing(path, partial):
        partial.write_text(json.dumps(content), "utf-8")
        disk.flush(partial)


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a cache, and its shards' sizes.

    Raises:
        CorpusError: if there is none, or it is invalid.
    """

    def check_version(version: Any) -> None:
        if version != FORMAT_VERSION:
            raise CorpusError(
                f"The teacher's cache in {folder} has format version "
                f"{version!r}; this keras_distil reads {FORMAT_VERSION}. "
                f"{REMEDY}"
            )

    manifest = manifests.read_manifest(
        folder / MANIFEST,
        Manifest,
        missing=(
            f"{folder} does not hold a teacher's cache: {MANIFEST} is missing. "
            "`teachers.cache_teacher` makes one."
        ),
        check_version=check_version,
        remedy=REMEDY,
    )
    for part in manifest.parts:
        for shard in part.shards:
            manifests.check_shard(folder / shard.file, shard, remedy=REMEDY)
    return manifest


def differences(found: CacheSettings, wanted: CacheSettings) -> list[str]:
    """Lists the settings in which two caches differ, with both values."""
    one, other = (_flat(x.model_dump()) for x in (found, wanted))
    return [
        f"{key}={_short(one.get(key))} (asked for: {_short(other.get(key))})"
        for key in {**one, **other}
        if one.get(key) != other.get(key)
    ]


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{path}{key}"
        flat |= (
            _flat(value, f"{name}.")
            if isinstance(value, dict)
            else {name: value}
        )
    return flat


def _short(value: Any) -> str:
    # The beginning of a hash is enough to distinguish two.
    is_hash = isinstance(value, str) and len(value) == 64
    return value[:12] if is_hash else repr(value)
