"""Atomic file writes, checksums, and errors of failing disks."""

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

# Size limits: JSON that comes with a model, a vocabulary, and JSON of data.
MODEL_JSON_BYTES = 2**26
VOCABULARY_BYTES = 2**28
DATA_JSON_BYTES = 2**30

# The form of system errors in safetensors, and in HDF5.
_RUST = re.compile(r"^.*I/O error: (.*) \(os error \d+\)$")
_HDF5 = re.compile(r"^.*error message = '([^']*)'.*$")
_RUST_NUMBER = re.compile(r"\(os error (\d+)\)")

# The disk is full, broken or gone, or the folder must not be written.
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
    """Checks whether an error comes from a disk or folder, not from content.

    Libraries have no class for this: TensorFlow, HDF5, safetensors and
    ArrayRecord repeat the system's message or number.

    Args:
        error: the error raised while a file was written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRORS
    text = str(error)
    numbers = [int(number) for number in _RUST_NUMBER.findall(text)]
    if numbers:
        return numbers[-1] in _DISK_ERRORS
    return any(os.strerror(number) in text for number in _DISK_ERRORS)


def reason(error: BaseException) -> str:
    """Says briefly why a file could not be written."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    text = _HDF5.sub(r"\1", _RUST.sub(r"\1", text))
    return text or type(error).__name__


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Names the file and the remedy in errors of writing.

    Args:
        path: the file, or a folder of files.

    Raises:
        OSError: if the disk is full or may not be written. Other errors pass
            unchanged.
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
    """Replaces `path` by `partial`, which the block writes.

    The old file at `path` stays until then. If the block fails, no partial
    file is left to take up space.

    Args:
        path: the file to replace.
        partial: the file that the block writes, in the same folder.

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
    """Holds a lock file; logs a line if another process has it.

    The system releases the lock when the process ends in any way.

    Args:
        path: the lock file.
        doing: what the holder of the lock does, for the message.
        refusal: the message of an error, raised instead of waiting.

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
    """Returns the error for a file that could not be written."""
    return UnwrittenError(
        f"{path} could not be written: {why}. Finished work is intact; free "
        "some space or fix the folder, and run the same command again."
    )


def check_size(path: Path, most_bytes: int) -> None:
    """Raises ValueError if a file exceeds the size limit of its kind."""
    if path.stat().st_size > most_bytes:
        raise ValueError(
            f"`{path}` has more than the allowed {most_bytes:,} bytes, and is "
            "not read."
        )


def read_bounded(path: Path, most_bytes: int) -> str:
    """Reads a UTF-8 file within a size limit.

    Args:
        path: the file.
        most_bytes: int, maximum size of the file.

    Raises:
        ValueError: if it is larger, or is not UTF-8.
        OSError: if it cannot be read.
    """
    check_size(path, most_bytes)
    return path.read_text("utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file of a model.

    Raises:
        ValueError: if the file is too large, not JSON, or not an object.
    """
    check_size(path, MODEL_JSON_BYTES)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        problem = str(error)[:200].rstrip(".")
        raise ValueError(f"`{path}` is not valid JSON: {problem}.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"`{path}` must hold a JSON object. "
            f"Received: {type(content).__name__}."
        )
    return content


def choose_folder(
    cache_dir: str | os.PathLike | None,
    output: str | os.PathLike | None,
    key: str,
) -> Path:
    """Returns the output folder, or the one in a cache that a key names.

    Raises:
        ValueError: unless exactly one of `cache_dir` and `output` is given.
    """
    if output is not None and cache_dir is None:
        return named(Path(output).expanduser())
    if cache_dir is not None and output is None:
        return Path(cache_dir).expanduser() / key[:32]
    raise ValueError(
        "Give exactly one of `cache_dir` and `output`, such as "
        "cache_dir='cache'. Received: "
        f"cache_dir={cache_dir}, output={output}."
    )


def named(path: Path) -> Path:
    """Returns a path that ends in a name: `.` and `..` become absolute."""
    if path.name in ("", ".."):
        return Path(os.path.abspath(path))
    return path


def flush(path: Path) -> None:
    """Waits until a file, or a folder's directory entry, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def canonical(content: Any) -> bytes:
    """Encodes JSON data as bytes, always in the same way."""
    return json.dumps(content, sort_keys=True).encode()


def sha256(content: bytes) -> str:
    """Returns the sha256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replaces a file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with replacing(path, partial):
        partial.write_text(text, "utf-8")


def file_size_mb(path: Path) -> float:
    """Size of a file, or of all files in a folder, in 1e6 bytes."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file()) / 1e6
