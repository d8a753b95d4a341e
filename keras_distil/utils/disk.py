"""Files that are whole or not there, their checksums, and failing disks."""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from safetensors import SafetensorError

_log = logging.getLogger(__name__)

# What JSON that comes with a model may have, a vocabulary, and JSON of data.
MODEL_JSON_BYTES = 2**26
VOCABULARY_BYTES = 2**28
DATA_JSON_BYTES = 2**30

# How safetensors words an error of the system; and HDF5, among numbers.
_RUST = re.compile(r"^.*I/O error: (.*) \(os error \d+\)$")
_HDF5 = re.compile(r"^.*error message = '([^']*)'.*$")
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")

# A disk that is full, broken or gone, or a folder that is not ours to write.
_DISK_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ESTALE,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }
)


class UnwrittenError(OSError):
    """A file could not be written; the message says why and what to do."""


def is_of_disk(error: BaseException) -> bool:
    """Whether a disk or a folder made something fail, and not its content.

    Libraries have no class for it: TensorFlow, HDF5, safetensors and
    ArrayRecord repeat the system's words or number.

    Args:
        error: what was raised while a file was written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRORS
    text = str(error)
    numbers = [int(number) for number in _RUST_NUMBER.findall(text)]
    if numbers:
        return numbers[-1] in _DISK_ERRORS
    return any(os.strerror(number) in text for number in _DISK_ERRORS)


def reason(error: BaseException) -> str:
    """Why a file could not be written, in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    text = _HDF5.sub(r"\1", _RUST.sub(r"\1", text))
    return text or type(error).__name__


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names the file, and what to do, if it cannot be written.

    Args:
        path: the file, or a folder of files.

    Raises:
        OSError: if the disk is full or may not be written. Other errors pass
            as they are.
    """
    try:
        yield
    except UnwrittenError:
        raise
    except (OSError, SafetensorError) as error:
        if not is_of_disk(error):
            raise
        raise unwritten(path, reason(error)) from error


@contextlib.contextmanager
def replacing(path: Path, partial: Path) -> Iterator[None]:
    """Puts `partial`, which the block writes, in the place of `path`.

    What was at `path` stays until then. If the block fails, no half-written
    file is left to take up room.

    Args:
        path: the file to replace.
        partial: where the block writes, in the same folder.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path, doing: str, *, refusal: str = "") -> Iterator[None]:
    """Holds a lock file, and says so if another process has it.

    The system takes it away from a process that ends, however that was.

    Args:
        path: the lock file.
        doing: what whoever holds it does, for the message.
        refusal: the message of an error in place of waiting.

    Raises:
        RuntimeError: with `refusal`, if another process has the lock.
    """
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if refusal:
            raise RuntimeError(refusal) from None
        _log.warning("Waiting for another process that %s.", doing)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def unwritten(path: Path, why: str) -> UnwrittenError:
    """The error of a file that could not be written."""
    return UnwrittenError(
        f"{path} could not be written: {why}. What was finished is intact; "
        "make room or fix the folder, and run the same command again."
    )


def check_size(path: Path, most_bytes: int) -> None:
    """Raises ValueError if a file is larger than its kind may be."""
    if path.stat().st_size > most_bytes:
        raise ValueError(
            f"`{path}` has more than the {most_bytes:,} bytes that it may "
            "have, and is not read."
        )


def read_bounded(path: Path, most_bytes: int) -> str:
    """The text of a file of UTF-8 that is not larger than it may be.

    Args:
        path: the file.
        most_bytes: int, bytes that it may have.

    Raises:
        ValueError: if it is larger, or is not UTF-8.
        OSError: if it cannot be read.
    """
    check_size(path, most_bytes)
    return path.read_text("utf-8")


def named(path: Path) -> Path:
    """A path that ends with a name: `.` and `..` become absolute."""
    if path.name in ("", ".."):
        return Path(os.path.abspath(path))
    return path


def flush(path: Path) -> None:
    """Waits until a file, or a folder's list of files, is on the disk."""
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


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    partial = path.with_name(f".{path.name}.partial")
    with replacing(path, partial):
        partial.write_text(text, "utf-8")
