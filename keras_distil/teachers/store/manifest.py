"""The manifest of a store: what its outputs depend on, and its shards."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeAlias, TypeVar

import pydantic

from keras_distil.data import CorpusError
from keras_distil.data.corpus import manifests
from keras_distil.data.corpus.manifests import FileCount, Section, Shard
from keras_distil.utils import disk

# Increase it when an earlier keras_distil could not read what is written, or
# when the same teacher and texts would give other outputs.
FORMAT_VERSION = 1
MANIFEST = "teacher_cache.json"
REMEDY = "Remove the cache's folder and make it again."

AtLeastOne: TypeAlias = Annotated[int, pydantic.Field(ge=1, lt=2**31)]

# Settings without a kind are those of masked text, which was there first.
MASKED_LM = "masked_lm"


class TeacherSettings(Section):
    """The teacher: hash of its weights, precision and sizes."""

    weights: str
    precision: str
    vocabulary_size: AtLeastOne
    hidden_dim: AtLeastOne

    def attention_shape(self, heads: int) -> tuple[int, int]:
        """Returns number and size of its heads; (0, 0) if there are none."""
        return heads, self.hidden_dim // heads if heads else 0

    def check_heads(self, heads: int) -> None:
        """Raises ValueError if heads do not divide the width."""
        if heads and self.hidden_dim % heads:
            raise ValueError("`attention_heads` do not divide the width")


class Settings(Section):
    """Everything that a teacher's outputs depend on, and what is kept."""

    teacher: TeacherSettings

    @property
    def passes(self) -> int:
        """Number of records that each row has."""
        return 1

    @property
    def digest(self) -> str:
        """A hash of the settings and the format."""
        return disk.sha256(disk.canonical([FORMAT_VERSION, self.model_dump()]))


class Part(Section):
    """The outputs for some rows, pass after pass.

    Attributes:
        rows: number of rows.
        shards: the records of all passes, in order.
    """

    rows: FileCount
    shards: list[Shard]


AnySettings = TypeVar("AnySettings", bound=Settings)
AnyPart = TypeVar("AnyPart", bound=Part)


class Manifest(Section, Generic[AnySettings, AnyPart]):
    """A whole store.

    Attributes:
        kinds: the kinds of outputs that it may hold.
        maker: the function of `teachers` that makes one.
    """

    kinds: ClassVar[Collection[str]]
    maker: ClassVar[str]

    format_version: int
    settings: AnySettings
    parts: list[AnyPart]
    sha256: str

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "Manifest":
        for part in self.parts:
            count = sum(shard.sequences for shard in part.shards)
            if count != part.rows * self.settings.passes:
                raise ValueError("shards are missing")
        return self


AnyManifest = TypeVar("AnyManifest", bound=Manifest)


def write_manifest(
    folder: Path, settings: Settings, parts: Collection[Part]
) -> None:
    """Writes the manifest, which completes a store.

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


def read_manifest(folder: Path, schema: type[AnyManifest]) -> AnyManifest:
    """Reads and checks the manifest of a store, and its shards' sizes.

    Args:
        folder: the store's folder.
        schema: the manifest of the wanted kind.

    Raises:
        CorpusError: if there is none, or it is invalid or of another kind.
    """

    def check(content: dict[str, Any]) -> None:
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise CorpusError(
                f"The teacher's cache in {folder} has format version "
                f"{version!r}; this keras_distil reads {FORMAT_VERSION}. "
                f"{REMEDY}"
            )
        settings = content.get("settings")
        kind = MASKED_LM
        if isinstance(settings, dict):
            kind = settings.get("kind", MASKED_LM)
        if kind not in schema.kinds:
            raise CorpusError(
                f"{folder} holds a teacher's outputs for another purpose, "
                f"{_short(kind)}: `teachers.CachedTeacher` opens those for "
                "masked text, `teachers.CachedTaskTeacher` those for the "
                "examples of a task, `teachers.CachedEmbeddingTeacher` the "
                "vectors of texts."
            )

    found = manifests.read_manifest(
        folder / MANIFEST,
        schema,
        missing=(
            f"{folder} does not hold a teacher's cache: {MANIFEST} is missing. "
            f"`teachers.{schema.maker}` makes one."
        ),
        check=check,
        remedy=REMEDY,
    )
    for part in found.parts:
        for shard in part.shards:
            manifests.check_shard(folder / shard.file, shard, remedy=REMEDY)
    return found


def differences(found: Settings, wanted: Settings) -> list[str]:
    """Lists the settings in which two stores differ, with both values."""
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
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    is_hash = isinstance(value, str) and len(value) == 64
    return value[:12] if is_hash else f"{value!r:.80}"
