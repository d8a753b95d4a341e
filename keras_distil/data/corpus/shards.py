"""Shards of records, such as token ids, written whole and read by number."""

import atexit
import errno
import functools
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python import array_record_module

from keras_distil.data.corpus.tokenized import Part
from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.utils import disk

# One sequence per record, each in its own chunk: records are read in any
# order, and Riegeli checks the hash of a chunk as it reads it.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_READER_OPTIONS = "readahead_buffer_size:0"
_OPEN_FILES = 256
_ROWS_COUNTED = 4096


class _Reading:
    """Allows one read at a time, and none once the interpreter exits.

    A thread of tf.data that waits for the interpreter's lock during exit is
    stopped in its tracks: the process would abort or wait for it forever. So
    just before that, reads start to fail at once, until the buffers of
    tf.data are full and it asks for no more.
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
            raise RuntimeError("the process is exiting")

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


reading = _Reading()


class CorpusError(ValueError):
    """A prepared corpus or a teacher's cache is damaged or does not fit."""


class ShardedRecords:
    """Records in ArrayRecord files, read by their numbers.

    Only the handles of open files are held in memory.

    Args:
        paths: the shards, in order.
        counts: int, the number of records in each shard.
        remedy: how to fix a damaged shard, for error messages.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        counts: Sequence[int],
        *,
        remedy: str | None = None,
    ) -> None:
        self._remedy = remedy or REMEDY
        self._paths = list(paths)
        self._ends = np.cumsum([0, *counts])
        self._reader = functools.lru_cache(_OPEN_FILES)(_open)

    def __len__(self) -> int:
        """Number of records."""
        return int(self._ends[-1])

    def read_records(self, rows: np.ndarray, sizes: np.ndarray) -> list[bytes]:
        """Reads records by number.

        Args:
            rows: integers >= 0, (n,).
            sizes: integers, (n,), the bytes that each record must have.

        Raises:
            CorpusError: if a shard has vanished or is damaged; it is named.
        """
        found = [b""] * len(rows)
        shards = np.searchsorted(self._ends, rows, side="right") - 1
        for shard in np.unique(shards):
            positions = np.flatnonzero(shards == shard)
            numbers = rows[positions] - self._ends[shard]
            records = self._read_shard(
                int(shard), numbers.tolist(), sizes[positions].tolist()
            )
            for position, record in zip(positions, records, strict=True):
                found[position] = record
        return found

    def _read_shard(
        self, shard: int, numbers: list[int], sizes: list[int]
    ) -> list[bytes]:
        path = self._paths[shard]
        try:
            with reading:
                records = self._reader(path).read(numbers)
            for record, size in zip(records, sizes, strict=True):
                if len(record) != size:
                    raise ValueError(
                        f"a record has {len(record)} bytes instead of {size}"
                    )
            return records
        except (RuntimeError, IndexError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NOT_DAMAGE:
                raise
            raise CorpusError(
                f"The shard {path} cannot be read: it has vanished or is "
                f"damaged ({_first_line(error)}). {self._remedy}"
            ) from error


class ShardedSequences(ShardedRecords):
    """Sequences of one length in ArrayRecord files, read row by row.

    Rows are read as from an array: by a number, a slice or an array of
    numbers.

    Args:
        paths: the shards, in order.
        counts: int, the number of sequences in each shard.
        length: int, tokens per sequence.
        dtype: data type of the token ids.
        remedy: how to fix a damaged shard, for error messages.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        counts: Sequence[int],
        *,
        length: int,
        dtype: np.dtype,
        remedy: str | None = None,
    ) -> None:
        super().__init__(paths, counts, remedy=remedy)
        self.dtype = np.dtype(dtype)
        self.shape = (len(self), length)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads rows, as by indexing an array."""
        if isinstance(rows, slice):
            return self.read(np.arange(len(self))[rows])
        numbers = np.arange(len(self))[rows]
        return self.read(numbers.reshape(-1)).reshape(
            *numbers.shape, self.shape[1]
        )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Reads rows by number.

        Args:
            rows: integers >= 0, (n,).

        Returns:
            Token ids, (n, length), of `dtype`.

        Raises:
            CorpusError: if a shard has vanished or is damaged; it is named.
        """
        size = self.shape[1] * self.dtype.itemsize
        records = self.read_records(rows, np.full(len(rows), size))
        stored = np.frombuffer(b"".join(records), self.dtype.newbyteorder("<"))
        return stored.reshape(len(rows), self.shape[1]).astype(self.dtype)


# Errors of the process: too many open files, no permission, no memory.
_NOT_DAMAGE = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.ENOMEM)
REMEDY = (
    "Copy it again, or remove the folder and prepare it again with "
    "`keras-distil prepare`."
)


def _open(path: Path) -> Any:
    # ArrayRecord reports a missing file only when it is read.
    if not path.is_file():
        raise FileNotFoundError("no such file")
    return array_record_module.ArrayRecordReader(str(path), _READER_OPTIONS)


def _first_line(error: Exception) -> str:
    return str(error).split(";")[0].splitlines()[0] if str(error) else "?"


def write_shard(path: Path, sequences: np.ndarray) -> dict[str, Any]:
    """Writes a shard of sequences; see `write_records`."""
    stored = sequences.dtype.newbyteorder("<")
    little_endian = sequences.astype(stored, copy=False)
    return write_records(path, (row.tobytes() for row in little_endian))


def write_records(path: Path, records: Iterable[bytes]) -> dict[str, Any]:
    """Writes a shard; returns its entry in the manifest.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    count = 0
    with disk.replacing(path, partial):
        try:
            writer = array_record_module.ArrayRecordWriter(
                str(partial), _WRITER_OPTIONS
            )
            for record in records:
                writer.write(record)
                count += 1
            writer.close()
        except RuntimeError as error:
            if not disk.is_of_disk(error):
                raise
            raise disk.unwritten(path, _first_line(error)) from error
        disk.flush(partial)
    return {
        "file": path.name,
        "sequences": count,
        "bytes": path.stat().st_size,
        "sha256": disk.file_sha256(path),
    }


def shard_name(part: str, number: int, count: int) -> str:
    """Returns the file name of shard `number` of `count`."""
    return f"{part}-{number:05d}-of-{count:05d}.array_record"


def token_counts(part: Part, sequences: np.ndarray) -> np.ndarray:
    """Counts the tokens in a training part's sequences.

    Returns:
        int64, for the first tokens of the vocabulary, up to the largest id
        that occurs; empty if the part is held out.
    """
    counts = np.zeros(0, np.int64)
    if part.held_out or not len(sequences):
        return counts
    size = int(sequences.max()) + 1
    counts = np.zeros(size, np.int64)
    # NumPy would count a 64-bit copy.
    for start in range(0, len(sequences), _ROWS_COUNTED):
        rows = sequences[start : start + _ROWS_COUNTED]
        counts += np.bincount(rows.reshape(-1), minlength=size)
    return counts


def total_counts(
    counts: Iterable[np.ndarray], vocabulary_size: int, special: SpecialTokens
) -> np.ndarray:
    """Adds up the token counts of all shards, without special tokens.

    Args:
        counts: integers, one array per shard, as from `token_counts`.
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
