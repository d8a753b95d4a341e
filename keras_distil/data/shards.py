"""A prepared corpus on disk: shards of token ids and their manifest."""

import atexit
import dataclasses
import functools
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import pydantic
from array_record.python import array_record_module

from keras_distil.data.corpus import CorpusReport
from keras_distil.data.tokenize import SpecialTokens
from keras_distil.data.tokenized import Part

# Raise it whenever an earlier keras_distil could not read what is written, or
# the same sources would give other shards.
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
# One sequence a record, each in a chunk of its own: records are read in any
# order, and Riegeli checks each chunk's hash as it reads it.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"
_OPEN_FILES = 256
_ROWS_COUNTED = 4096


class _Reading:
    """Reads one at a time, and none when the interpreter ends.

    A thread of tf.data that waits for the interpreter's lock at its end is
    stopped in its tracks: the process would abort, or wait for it for ever.
    So the last thing that happens before is that reads fail at once, until
    the buffers of tf.data are full and it asks no more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended = False
        self._calls = 0
        atexit.register(self._end)

    def __enter__(self) -> None:
        self._lock.acquire()
        self._calls += 1
        if self._ended:
            self._lock.release()
            raise RuntimeError("the process ends")

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        for _ in range(100):
            before = self._calls
            time.sleep(0.02)
            if self._calls == before:
                break


_reading = _Reading()


class CorpusError(ValueError):
    """A prepared corpus is incomplete, damaged or does not fit."""


@dataclasses.dataclass(frozen=True)
class PreparedCorpus:
    """Token ids on disk, ready for `masked_lm_dataset`.

    Attributes:
        train: the training sequences: of one length if they are packed, a
            list with one entry a bucket if they are bucketed.
        held_out: the held-out sequences; may have no rows.
        token_counts: int64, (vocabulary,), occurrences of each token in the
            training paragraphs.
        fingerprint: sha256 over the shards and the settings.
        report: what was read and what was skipped.
        folder: where it is.
    """

    train: "ShardedSequences | list[ShardedSequences]"
    held_out: "ShardedSequences"
    token_counts: np.ndarray
    fingerprint: str
    report: CorpusReport
    folder: Path

    @property
    def train_sequences(self) -> int:
        """Number of training sequences."""
        buckets = self.train if isinstance(self.train, list) else [self.train]
        return sum(map(len, buckets))


class ShardedSequences:
    """Sequences of one length in ArrayRecord files, read row by row.

    Nothing is held in memory but the handles of open files. Rows are read
    like those of an array: by a number, a slice or an array of numbers.

    Args:
        paths: the shards, in order.
        counts: int, sequences of each shard.
        length: int, tokens of a sequence.
        dtype: of the token ids.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        counts: Sequence[int],
        *,
        length: int,
        dtype: np.dtype,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self._paths = list(paths)
        self._ends = np.cumsum([0, *counts])
        self.shape = (int(self._ends[-1]), length)
        self._reader = functools.lru_cache(_OPEN_FILES)(_open)

    def __len__(self) -> int:
        """Number of sequences."""
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads rows as indexing an array does."""
        if isinstance(rows, slice):
            return self.read(np.arange(len(self))[rows])
        numbers = np.arange(len(self))[rows]
        return self.read(numbers.reshape(-1)).reshape(
            *numbers.shape, self.shape[1]
        )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows by number.

        Args:
            rows: integers, (n,), from 0 on.

        Returns:
            (n, length), of `dtype`.

        Raises:
            CorpusError: if a shard has vanished or is damaged, naming it.
        """
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        shards = np.searchsorted(self._ends, rows, side="right") - 1
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            numbers = rows[here] - self._ends[shard]
            found[here] = self._read_shard(int(shard), numbers.tolist())
        return found

    def _read_shard(self, shard: int, numbers: list[int]) -> np.ndarray:
        path = self._paths[shard]
        try:
            with _reading:
                records = self._reader(path).read(numbers)
            stored = self.dtype.newbyteorder("<")
            rows = np.frombuffer(b"".join(records), stored)
            return rows.reshape(len(numbers), self.shape[1])
        except (RuntimeError, IndexError, OSError, ValueError) as error:
            raise CorpusError(
                f"The shard {path} cannot be read: it has vanished or is "
                f"damaged ({_first_line(error)}). {_REMEDY}"
            ) from error


_REMEDY = "Make it again with `keras-distil prepare`, or copy it again."


def _open(path: Path) -> Any:
    # A missing file is an error of ArrayRecord's only when it is read.
    if not path.is_file():
        raise FileNotFoundError("no such file")
    return array_record_module.ArrayRecordReader(str(path), _READER_OPTIONS)


def _first_line(error: Exception) -> str:
    return str(error).split(";")[0].splitlines()[0] if str(error) else "?"


def write_shard(path: Path, sequences: np.ndarray) -> dict[str, Any]:
    """Writes a shard; returns its entry in the manifest.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    stored = sequences.dtype.newbyteorder("<")
    little_endian = sequences.astype(stored, copy=False)
    try:
        writer = array_record_module.ArrayRecordWriter(
            str(partial), _WRITER_OPTIONS
        )
        for row in little_endian:
            writer.write(row.tobytes())
        writer.close()
        flush(partial)
        os.replace(partial, path)
    except (RuntimeError, OSError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or _first_line(error)
        raise OSError(
            f"The shard {path} could not be written: {reason}. Make room or "
            "fix the folder, and run the same command again."
        ) from error
    return {
        "file": path.name,
        "sequences": len(sequences),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
    }


def shard_name(part: str, number: int, count: int) -> str:
    """The file name of shard `number` of `count`."""
    return f"{part}-{number:05d}-of-{count:05d}.array_record"


def token_counts(part: Part, sequences: np.ndarray) -> np.ndarray:
    """How often a training part's sequences have each token.

    Returns:
        int64, of the first few tokens of the vocabulary; none if the part is
        held out.
    """
    counts = np.zeros(0, np.int64)
    if part.held_out or not len(sequences):
        return counts
    size = int(sequences.max()) + 1
    counts = np.zeros(size, np.int64)
    # NumPy counts a copy in 64 bits.
    for start in range(0, len(sequences), _ROWS_COUNTED):
        rows = sequences[start : start + _ROWS_COUNTED]
        counts += np.bincount(rows.reshape(-1), minlength=size)
    return counts


def total_counts(
    counts: Iterable[np.ndarray], vocabulary_size: int, special: SpecialTokens
) -> np.ndarray:
    """Adds the counts of tokens of all shards, leaving out their frames.

    Args:
        counts: integers, each of the first few tokens of the vocabulary.
        vocabulary_size: int.
        special: the ids of the special tokens.

    Returns:
        int64, (vocabulary,).
    """
    total = np.zeros(vocabulary_size, np.int64)
    for counted in counts:
        total[: len(counted)] += counted
    total[[special.cls_id, special.sep_id, special.pad_id]] = 0
    return total


def no_text(report: CorpusReport) -> str:
    """The message for a corpus without text to train on."""
    return (
        f"The corpus has no usable training paragraph ({report}). Check the "
        "sources and `held_out_fraction`."
    )


def manifest_of(
    settings: dict[str, Any],
    parts: dict[str, dict[str, Any]],
    token_counts: np.ndarray,
    report: CorpusReport,
    described: list[dict[str, Any]],
) -> dict[str, Any]:
    """The manifest of a corpus.

    Args:
        settings: what the shards depend on besides the text.
        parts: by name, "length" and "shards", a list of entries.
        token_counts: integers, (vocabulary,).
        report: what was read and skipped.
        described: the sources.
    """
    body = {
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "parts": parts,
        "token_counts": token_counts.tolist(),
        "report": {**vars(report), "skipped": dict(report.skipped)},
        "sources": described,
    }
    content = {key: body[key] for key in ("settings", "parts", "token_counts")}
    body["fingerprint"] = sha256(canonical(content))
    return {**body, "sha256": sha256(canonical(body))}


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Writes a manifest; with it, a corpus is complete."""
    path.write_text(json.dumps(manifest, ensure_ascii=False), "utf-8")
    flush(path)


def open_corpus(
    folder: str | os.PathLike,
    *,
    expected: dict[str, Any] | None = None,
    verify: bool = False,
) -> PreparedCorpus:
    """Opens a prepared corpus.

    The sizes of all shards are compared with the manifest. What lies inside
    is checked as it is read, by the hashes of the ArrayRecord format;
    `verify` reads everything at once.

    Args:
        folder: holds the manifest and the shards.
        expected: settings that the corpus must have been made with.
        verify: whether to compare the sha256 of every shard, too.

    Returns:
        A `PreparedCorpus`.

    Raises:
        CorpusError: if the corpus is incomplete, damaged, of a later version
            or made with other settings.
    """
    folder = Path(folder).expanduser()
    manifest = _read_manifest(folder)
    _check_settings(folder, manifest.settings, expected or {})
    dtype = np.dtype(manifest.settings["dtype"])
    parts = {
        name: _open_part(folder, part, dtype, verify=verify)
        for name, part in manifest.parts.items()
    }
    held_out = parts.pop("held_out")
    return PreparedCorpus(
        parts.get("train", list(parts.values())),
        held_out,
        np.array(manifest.token_counts, np.int64),
        manifest.fingerprint,
        CorpusReport(
            **{
                **manifest.report.model_dump(),
                "skipped": Counter(manifest.report.skipped),
            }
        ),
        folder,
    )


_Count: TypeAlias = Annotated[int, pydantic.Field(ge=0, lt=2**53)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")


class _Shard(_Section):
    # A plain name: shards lie in the corpus's own folder.
    file: Annotated[str, pydantic.Field(pattern=r"^\w[\w.-]*$")]
    sequences: Annotated[_Count, pydantic.Field(ge=1)]
    bytes: _Count
    sha256: str


class _Part(_Section):
    length: Annotated[int, pydantic.Field(ge=3, lt=2**20)]
    shards: list[_Shard]


class _Report(_Section):
    files: _Count
    paragraphs: _Count
    characters: _Count
    held_out_paragraphs: _Count
    train_tokens: _Count
    held_out_tokens: _Count
    skipped: dict[str, _Count]


class _Manifest(_Section):
    format_version: int
    settings: dict[str, Any]
    parts: dict[str, _Part]
    token_counts: list[_Count]
    report: _Report
    sources: list[dict[str, Any]]
    fingerprint: str
    sha256: str

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "_Manifest":
        if not {"held_out"} < set(self.parts):
            raise ValueError("`parts` lacks held_out or training parts")
        if self.settings.get("dtype") not in ("uint16", "int32"):
            raise ValueError("`settings.dtype` is neither uint16 nor int32")
        return self


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(
            f"{folder} holds no prepared corpus: {MANIFEST} is missing. "
            "Give the folder that `keras-distil prepare` wrote."
        ) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON") from error
    if not isinstance(manifest, dict):
        raise _damaged(path, "it is no JSON object")
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CorpusError(
            f"The corpus in {folder} has format version {version}; this "
            f"keras_distil reads up to {FORMAT_VERSION}. Update keras_distil."
        )
    if version != FORMAT_VERSION:
        raise CorpusError(
            f"The corpus in {folder} has format version {version!r}; this "
            f"keras_distil reads {FORMAT_VERSION}. Prepare it again."
        )
    body = {key: manifest[key] for key in manifest if key != "sha256"}
    if manifest.get("sha256") != sha256(canonical(body)):
        raise _damaged(path, "its checksum differs")
    try:
        return _Manifest.model_validate(manifest)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{place}: {first['msg']}") from error


def _check_settings(
    folder: Path, settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    for key, value in expected.items():
        found = settings.get(key)
        if found == value:
            continue
        if key in ("tokenizer", "vocabulary"):
            raise CorpusError(
                f"The corpus in {folder} was made for another tokenizer "
                f"(its {key} has hash {str(found)[:12]}, the teacher's "
                f"{value[:12]}). Prepare the text with this teacher's."
            )
        raise CorpusError(
            f"The corpus in {folder} was made with {key}={found!r}, "
            f"but {value!r} is asked for. Change one of them."
        )


def _open_part(
    folder: Path, part: _Part, dtype: np.dtype, *, verify: bool
) -> ShardedSequences:
    for shard in part.shards:
        _check_shard(folder / shard.file, shard, verify=verify)
    return ShardedSequences(
        [folder / shard.file for shard in part.shards],
        [shard.sequences for shard in part.shards],
        length=part.length,
        dtype=dtype,
    )


def _check_shard(path: Path, shard: _Shard, *, verify: bool) -> None:
    if not path.is_file():
        raise CorpusError(f"The shard {path} is missing. {_REMEDY}")
    size = path.stat().st_size
    if size != shard.bytes:
        raise CorpusError(
            f"The shard {path} has {size:,} bytes, but its manifest says "
            f"{shard.bytes:,}: it is truncated or altered. {_REMEDY}"
        )
    if verify and file_sha256(path) != shard.sha256:
        raise CorpusError(
            f"The checksum of the shard {path} differs. {_REMEDY}"
        )


def _damaged(path: Path, reason: str) -> CorpusError:
    return CorpusError(f"{path} is damaged ({reason}). {_REMEDY}")


def flush(path: Path) -> None:
    """Waits until a file is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def canonical(content: Any) -> bytes:
    """JSON data as bytes, the same for the same data."""
    return json.dumps(content, sort_keys=True).encode()


def sha256(content: bytes) -> str:
    """The sha256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
