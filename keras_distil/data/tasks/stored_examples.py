"""Encoded examples on disk, written shard by shard, read by memory map."""

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Self, TypeAlias

import numpy as np
import pydantic

from keras_distil.data.corpus import manifests
from keras_distil.data.corpus.manifests import FileCount, Section
from keras_distil.data.corpus.shards import CorpusError
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.utils import disk

# Increase it when an earlier keras_distil could not read what is written.
FORMAT_VERSION = 1
_MANIFEST = "examples.json"
_REMEDY = "Remove the folder, and the same command makes it again."
_BLOCK = 2**20
_REQUIRED = {"token_ids", "starts", "first_lengths"}
_OPTIONAL = {"labels", "owners"}

_Dtype: TypeAlias = Annotated[str, pydantic.Field(pattern=r"^<[uif][248]$")]


class _Shard(Section):
    """A shard: its examples, and its part of the file of each array."""

    examples: FileCount
    bytes: dict[str, FileCount]
    sha256: dict[str, str]
    # Earlier files count neither texts that lost their ends nor words without
    # pieces.
    cut: FileCount = 0
    without_pieces: FileCount = 0


class _Manifest(Section):
    """What is on disk: what it depends on, its form and its shards."""

    format_version: int
    settings: dict[str, Any]
    dtypes: dict[str, _Dtype]
    label_shape: list[FileCount]
    pad_id: int
    max_length: int
    shards: list[_Shard]
    sha256: str

    @pydantic.model_validator(mode="after")
    def _has_all_arrays(self) -> Self:
        parts = [part for x in self.shards for part in (x.bytes, x.sha256)]
        names = set(self.dtypes)
        if not _REQUIRED <= names <= _REQUIRED | _OPTIONAL or any(
            set(part) != names for part in parts
        ):
            raise ValueError("an array is missing")
        return self


class ExampleWriter:
    """Writes examples into a folder, one shard after the other.

    Each array is a file, to which every shard appends its part. The manifest
    lists the complete shards with their hashes. Whatever comes after them in a
    file belongs to a shard that was interrupted, and is cut off: the bytes are
    those of a writer that was never interrupted.

    Args:
        folder: the folder to write to; what complete shards of the same
            settings it holds are kept.
        settings: JSON data on which the examples depend.
        like: examples whose padding, maximum length, and labels' data type and
            shape apply to what is written; without labels or owners, if these
            have none.
        token_dtype: data type of the token ids.

    Raises:
        OSError: if the disk may not be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        *,
        like: EncodedExamples,
        token_dtype: np.dtype,
    ) -> None:
        self._folder = folder
        dtypes = {
            "token_ids": np.dtype(token_dtype),
            "starts": np.dtype(np.int64),
            "first_lengths": np.dtype(np.int32),
        }
        label_shape: list[int] = []
        if like.labels is not None:
            labels = np.asarray(like.labels)
            dtypes["labels"] = labels.dtype
            label_shape = list(labels.shape[1:])
        if like.owners is not None:
            dtypes["owners"] = np.dtype(np.int32)
        self._manifest = _Manifest(
            format_version=FORMAT_VERSION,
            settings=dict(settings),
            dtypes={
                name: dtype.newbyteorder("<").str
                for name, dtype in dtypes.items()
            },
            label_shape=label_shape,
            pad_id=like.pad_id,
            max_length=like.max_length,
            shards=[],
            sha256="",
        )
        with disk.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._shards = self._find_complete()
            self._cut()

    @property
    def shards(self) -> int:
        """Number of complete shards."""
        return len(self._shards)

    @property
    def bytes(self) -> int:
        """Bytes of the complete shards."""
        return sum(sum(shard.bytes.values()) for shard in self._shards)

    def most_bytes(self, examples: EncodedExamples, copies: int) -> int:
        """Returns the bytes of copies that are as long as the originals."""
        counts = dict.fromkeys(self._manifest.dtypes, len(examples))
        counts["token_ids"] = len(examples.token_ids)
        if "labels" in counts:
            counts["labels"] *= math.prod(self._manifest.label_shape)
        each = sum(self._itemsize(name) * x for name, x in counts.items())
        return copies * each + self._itemsize("starts")

    def write(self, pieces: Iterable[EncodedExamples]) -> None:
        """Appends a shard.

        Args:
            pieces: its examples; one piece at a time is in memory.

        Raises:
            OSError: if the disk is full or may not be written.
        """
        examples = sum(shard.examples for shard in self._shards)
        sizes = _totals(self._shards, self._manifest)
        tokens = sizes["token_ids"] // self._itemsize("token_ids")
        with contextlib.ExitStack() as stack:
            stack.enter_context(disk.writing(self._folder))
            files = {
                name: _Appending(
                    stack.enter_context(self._path(name).open("ab"))
                )
                for name in self._manifest.dtypes
            }
            before, cut, without_pieces = examples, 0, 0
            for piece in pieces:
                # The first example begins at 0, and all end where the next
                # one begins.
                starts = tokens + piece.starts[1 if examples else 0 :]
                arrays: dict[str, Any] = {
                    "token_ids": piece.token_ids,
                    "starts": starts,
                    "first_lengths": piece.first_lengths,
                    "labels": piece.labels,
                    "owners": piece.owners,
                }
                for name, dtype in self._manifest.dtypes.items():
                    array = np.asarray(arrays[name], dtype)
                    files[name].append(array.tobytes())
                examples += len(piece)
                cut += piece.cut
                without_pieces += piece.without_pieces
                tokens += len(piece.token_ids)
            for file in files.values():
                file.flush()
        self._shards.append(
            _Shard(
                examples=examples - before,
                bytes={name: file.size for name, file in files.items()},
                sha256={name: file.sha256 for name, file in files.items()},
                cut=cut,
                without_pieces=without_pieces,
            )
        )
        self._write_manifest()

    def finish(self, folder: Path) -> None:
        """Moves the folder to its final place.

        Raises:
            OSError: if the folder may not be written.
        """
        with disk.writing(folder):
            os.replace(self._folder, folder)
            disk.flush(folder.parent)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.bin"

    def _itemsize(self, name: str) -> int:
        return np.dtype(self._manifest.dtypes[name]).itemsize

    def _find_complete(self) -> list[_Shard]:
        """Returns the leading shards that are intact and of these settings."""
        try:
            found = _read_manifest(self._folder)
        except ValueError:
            return []
        mine = self._manifest.model_copy(
            update={"shards": found.shards, "sha256": found.sha256}
        )
        if found != mine:
            return []
        return found.shards[: _count_whole(self._folder, found)]

    def _cut(self) -> None:
        """Cuts off what is not of complete shards."""
        if not self._shards:
            shutil.rmtree(self._folder)
            self._folder.mkdir()
        for name, size in _totals(self._shards, self._manifest).items():
            with self._path(name).open("ab"):
                os.truncate(self._path(name), size)

    def _write_manifest(self) -> None:
        body = self._manifest.model_copy(update={"shards": self._shards})
        content = body.model_dump(exclude={"sha256"})
        content["sha256"] = disk.sha256(disk.canonical(content))
        path = self._folder / _MANIFEST
        partial = path.with_name(f".{_MANIFEST}.partial")
        with disk.replacing(path, partial):
            partial.write_text(json.dumps(content), "utf-8")
            disk.flush(partial)


class _Appending:
    """A file to which a shard's part is appended."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.size += len(content)

    def flush(self) -> None:
        """Waits until everything is on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())


def open_examples(folder: Path, settings: Mapping[str, Any]) -> EncodedExamples:
    """Opens examples that an `ExampleWriter` has finished.

    Args:
        folder: the folder.
        settings: what the examples must depend on.

    Returns:
        The examples. Their arrays are read from disk when they are used.

    Raises:
        CorpusError: if they are missing, damaged or of other settings.
    """
    manifest = _read_manifest(folder)
    if manifest.settings != dict(settings):
        raise CorpusError(
            f"{folder} holds other examples: of {manifest.settings}, not "
            f"{dict(settings)}. {_REMEDY}"
        )
    if _count_whole(folder, manifest) < len(manifest.shards):
        raise CorpusError(
            f"The examples in {folder} are damaged: their checksums differ. "
            f"{_REMEDY}"
        )
    sizes = _totals(manifest.shards, manifest)
    arrays: dict[str, Any] = {
        name: np.memmap(
            folder / f"{name}.bin",
            dtype,
            mode="r",
            shape=(sizes[name] // np.dtype(dtype).itemsize,),
        )
        for name, dtype in manifest.dtypes.items()
    }
    labels = arrays.pop("labels", None)
    if labels is not None:
        labels = labels.reshape(-1, *manifest.label_shape)
    return EncodedExamples(
        **arrays,
        labels=labels,
        pad_id=manifest.pad_id,
        max_length=manifest.max_length,
        cut=sum(shard.cut for shard in manifest.shards),
        without_pieces=sum(x.without_pieces for x in manifest.shards),
    )


def _read_manifest(folder: Path) -> _Manifest:
    def check(content: dict[str, Any]) -> None:
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise CorpusError(
                f"The examples in {folder} have format version {version!r}; "
                f"this keras_distil reads {FORMAT_VERSION}. {_REMEDY}"
            )

    return manifests.read_manifest(
        folder / _MANIFEST,
        _Manifest,
        missing=f"{folder} holds no examples: {_MANIFEST} is missing.",
        check=check,
        remedy=_REMEDY,
    )


def _totals(shards: Iterable[_Shard], manifest: _Manifest) -> dict[str, int]:
    """Returns the bytes of some shards in the file of each array."""
    totals = dict.fromkeys(manifest.dtypes, 0)
    for shard in shards:
        for name, size in shard.bytes.items():
            totals[name] += size
    return totals


def _count_whole(folder: Path, manifest: _Manifest) -> int:
    """Counts the leading shards whose parts have the expected hashes."""
    whole = len(manifest.shards)
    for name in manifest.dtypes:
        try:
            with (folder / f"{name}.bin").open("rb") as file:
                for number, shard in enumerate(manifest.shards[:whole]):
                    if _hash(file, shard.bytes[name]) != shard.sha256[name]:
                        whole = number
                        break
        except FileNotFoundError:
            return 0
    return whole


def _hash(file: IO[bytes], size: int) -> str:
    """Returns the sha256 of the next bytes of a file."""
    found = hashlib.sha256()
    while size and (block := file.read(min(size, _BLOCK))):
        found.update(block)
        size -= len(block)
    return found.hexdigest()
