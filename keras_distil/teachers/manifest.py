"""The file that describes a cache of a teacher's outputs."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from keras_distil import disk
from keras_distil.data import CorpusError

# Raise it whenever an earlier keras_distil could not read what is written, or
# the same teacher and corpus would give other outputs.
FORMAT_VERSION = 1
MANIFEST = "teacher_cache.json"
REMEDY = "Remove the cache's folder and make it again."

_Count: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**53)]
_AtLeastOne: TypeAlias = Annotated[int, pydantic.Field(ge=1, lt=2**31)]
_Id: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**31)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class TeacherSettings(_Section):
    """The teacher: a hash of its weights, its precision and its sizes."""

    weights: str
    precision: str
    vocabulary_size: _AtLeastOne
    hidden_dim: _AtLeastOne


class MaskingSettings(_Section):
    """How the sequences are masked.

    `special` are the ids of `SpecialTokens`, `vocabulary_size` that of the
    tokenizer, and `first_masks` is a hash of some masks: those of another
    version of the code may differ.
    """

    seed: Annotated[int, pydantic.Field(ge=-(2**63), lt=2**63)]
    rate: Annotated[float, pydantic.Field(gt=0, le=1)]
    rare_token_exponent: Annotated[float, pydantic.Field(ge=0)]
    special: dict[str, _Id]
    vocabulary_size: _AtLeastOne
    first_masks: str


class CacheSettings(_Section):
    """All that a teacher's outputs depend on, and which are kept.

    `temperatures` are those with tails; none if all logits are kept.
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

    @pydantic.model_validator(mode="after")
    def _fits(self) -> "CacheSettings":
        if self.top_k > self.teacher.vocabulary_size:
            raise ValueError("`top_k` exceeds the vocabulary")
        if (self.top_k < self.teacher.vocabulary_size) != bool(
            self.temperatures
        ):
            raise ValueError("`temperatures` do not fit `top_k`")
        return self

    @property
    def digest(self) -> str:
        """A hash of the settings and of the format."""
        return disk.sha256(disk.canonical([FORMAT_VERSION, self.model_dump()]))


class Shard(_Section):
    """A shard: its file in the cache's folder, and what it has to be."""

    file: Annotated[str, pydantic.Field(pattern=r"^\w[\w.-]*$")]
    sequences: _AtLeastOne
    bytes: _Count
    sha256: str


class Part(_Section):
    """The outputs for one part of the corpus, masking after masking.

    Attributes:
        length: tokens of a sequence.
        rows: sequences of the part.
        slots: positions of a sequence that have logits.
        shards: `maskings` times the rows, in order.
    """

    length: Annotated[int, pydantic.Field(ge=1, lt=2**20)]
    rows: _Count
    slots: _AtLeastOne
    shards: list[Shard]


class Manifest(_Section):
    """A whole cache."""

    format_version: int
    settings: CacheSettings
    parts: list[Part]
    sha256: str

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "Manifest":
        for part in self.parts:
            found = sum(shard.sequences for shard in part.shards)
            if found != part.rows * self.settings.maskings:
                raise ValueError("shards are missing")
            if part.slots > part.length:
                raise ValueError("there are more slots than positions")
        return self


def write_manifest(
    folder: Path, settings: CacheSettings, parts: list[Part]
) -> None:
    """Writes the manifest; with it, a cache is complete.

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
        CorpusError: if there is none, or anything is wrong with it.
    """
    manifest = _parse(folder / MANIFEST)
    for part in manifest.parts:
        for shard in part.shards:
            _check_shard(folder / shard.file, shard)
    return manifest


def _parse(path: Path) -> Manifest:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(
            f"{path.parent} holds no cache of a teacher: {path.name} is "
            "missing. `teachers.cache_teacher` makes one."
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(content, dict):
        raise _damaged(path, "it is no JSON object")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise CorpusError(
            f"The teacher's cache in {path.parent} has format version "
            f"{version!r}; this keras_distil reads {FORMAT_VERSION}. {REMEDY}"
        )
    body = {key: content[key] for key in content if key != "sha256"}
    if content.get("sha256") != disk.sha256(disk.canonical(body)):
        raise _damaged(path, "its checksum differs")
    try:
        return Manifest.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{place}: {first['msg']}") from error


def _check_shard(path: Path, shard: Shard) -> None:
    if not path.is_file():
        raise CorpusError(f"The shard {path} is missing. {REMEDY}")
    size = path.stat().st_size
    if size != shard.bytes:
        raise CorpusError(
            f"The shard {path} has {size:,} bytes, but its manifest says "
            f"{shard.bytes:,}: it is truncated or altered. {REMEDY}"
        )


def _damaged(path: Path, reason: str) -> CorpusError:
    return CorpusError(f"{path} is damaged ({reason}). {REMEDY}")


def differences(found: CacheSettings, wanted: CacheSettings) -> list[str]:
    """The settings that two caches differ in, with both values."""
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
    # The beginning of a hash tells two apart.
    is_hash = isinstance(value, str) and len(value) == 64
    return value[:12] if is_hash else repr(value)
