"""Numbered folders of tensors, written atomically."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from keras_distil.utils import disk

FORMAT_VERSION = 1
_TENSORS = "tensors.safetensors"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{9,})")
_SCRATCH = ".partial-"


class Snapshot(NamedTuple):
    """A folder whose checksums were verified.

    Attributes:
        path: the folder.
        step: int, its number.
        tensors: arrays, by name.
        values: JSON data written with them.
    """

    path: Path
    step: int
    tensors: dict[str, np.ndarray]
    values: dict[str, Any]


class DamagedError(Exception):
    """A snapshot has changed since it was written."""


def write_snapshot(
    directory: Path,
    step: int,
    tensors: dict[str, np.ndarray],
    values: dict[str, Any],
    *,
    keep: int,
    write_more: Callable[[Path], None] | None = None,
) -> Path:
    """Writes a snapshot and removes all but the newest `keep`.

    Everything is written to a scratch folder and flushed to disk before the
    folder is renamed, so a crash at any moment leaves only whole snapshots.

    Args:
        directory: folder of the snapshots; created if missing.
        step: int >= 0, the snapshot's number.
        tensors: arrays, by name.
        values: JSON data.
        keep: int >= 1, number of snapshots to keep.
        write_more: function that writes further files into a given folder.

    Returns:
        The snapshot's folder.

    Raises:
        OSError: if the disk is full or not writable. Existing snapshots are
            untouched.
    """
    scratch = directory / f"{_SCRATCH}{step}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _remove_scratch(directory)
        scratch.mkdir()
        save_file(tensors, scratch / _TENSORS)
        if write_more is not None:
            write_more(scratch)
        _write_manifest(scratch, values)
        for path in [*scratch.iterdir(), scratch]:
            disk.flush(path)
        final = directory / f"step-{step:09d}"
        if final.exists():
            _remove(final)
        os.replace(scratch, final)
        disk.flush(directory)
    # Includes TensorFlow's errors, since it writes the iterators' positions.
    except Exception as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if not disk.is_of_disk(error):
            raise
        raise OSError(
            f"The training state of step {step} could not be written to "
            f"{directory}: {disk.reason(error)}. Earlier states there are "
            "intact; free some space or fix the folder, and run the same "
            "command again."
        ) from error
    keep_newest(directory, keep)
    return final


def keep_newest(directory: Path, keep: int) -> None:
    """Removes all but the newest `keep` snapshots."""
    for _, old in list(_folders(directory))[keep:]:
        _remove(old)


def newest_snapshot(
    directory: Path, say: Callable[[str], None]
) -> Snapshot | None:
    """Returns the newest intact snapshot.

    Args:
        directory: folder of the snapshots; need not exist.
        say: called with one line for each damaged snapshot that is skipped.

    Returns:
        The snapshot, or None if there is none.

    Raises:
        ValueError: if the newest snapshot was written by a later version, or
            all are damaged.
    """
    damaged = []
    for step, folder in _folders(directory):
        try:
            return _read(step, folder)
        except DamagedError as error:
            damaged.append(folder)
            say(
                f"The training state in {folder} is damaged ({error}); "
                "going back to the one before."
            )
    if damaged:
        raise ValueError(
            f"Every training state in {directory} is damaged. Remove the "
            "folder, or start again with --fresh."
        )
    return None


def _folders(directory: Path) -> Iterator[tuple[int, Path]]:
    """Yields the number and folder of each snapshot, newest first."""
    if not directory.is_dir():
        return
    folders = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir():
            folders.append((int(match[1]), path))
    yield from sorted(folders, reverse=True)


def _read(step: int, folder: Path) -> Snapshot:
    try:
        manifest = json.loads(
            disk.read_bounded(folder / _MANIFEST, disk.DATA_JSON_BYTES)
        )
        version = manifest["format_version"]
        later = isinstance(version, int) and version > FORMAT_VERSION
        if not later:
            return _read_body(step, folder, manifest)
    except (FileNotFoundError, IsADirectoryError) as error:
        name = Path(error.filename or _TENSORS).name
        raise DamagedError(f"{name} is missing") from error
    # ValueError means not JSON, not UTF-8, or a tensor of unknown type.
    except (
        ValueError,
        RecursionError,
        SafetensorError,
        AttributeError,
        LookupError,
        TypeError,
    ) as error:
        raise DamagedError(f"{_MANIFEST} cannot be read") from error
    raise ValueError(
        f"The training state in {folder} has format version {version}; this "
        f"keras_distil reads up to {FORMAT_VERSION}. Update keras_distil."
    )


def _read_body(step: int, folder: Path, manifest: dict[str, Any]) -> Snapshot:
    body = {key: manifest[key] for key in manifest if key != "sha256"}
    if manifest["sha256"] != disk.sha256(disk.canonical(body)):
        raise DamagedError(f"the checksum of {_MANIFEST} differs")
    for name, digest in manifest["files"].items():
        if Path(name).name != name or name in ("", ".."):
            raise DamagedError(f"{name[:40]!r} is not a file name")
        if disk.file_sha256(folder / name) != digest:
            raise DamagedError(f"the checksum of {name} differs")
    if _TENSORS not in manifest["files"]:
        raise DamagedError(f"{_TENSORS} has no checksum")
    values = manifest["values"]
    if not isinstance(values, dict):
        raise DamagedError(f"{_MANIFEST} holds no values")
    return Snapshot(folder, step, load_file(folder / _TENSORS), values)


def _write_manifest(folder: Path, values: dict[str, Any]) -> None:
    body = {
        "format_version": FORMAT_VERSION,
        "values": values,
        "files": {
            path.name: disk.file_sha256(path)
            for path in sorted(folder.iterdir())
        },
    }
    manifest = {**body, "sha256": disk.sha256(disk.canonical(body))}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")


def _remove(folder: Path) -> None:
    """Removes a snapshot, never leaving half of it under its name."""
    scratch = folder.with_name(f"{_SCRATCH}{folder.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    os.replace(folder, scratch)
    shutil.rmtree(scratch, ignore_errors=True)


def _remove_scratch(directory: Path) -> None:
    for path in directory.glob(f"{_SCRATCH}*"):
        shutil.rmtree(path, ignore_errors=True)
