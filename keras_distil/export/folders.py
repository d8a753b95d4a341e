"""A folder that appears under its name only once it is complete."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from keras_distil.utils import disk


@contextlib.contextmanager
def replacing_folder(
    folder: Path, *, overwrite: bool, mark: str
) -> Iterator[Path]:
    """Yields a scratch folder that replaces `folder` at the end.

    The previous content stays until then, and for good if the block fails.
    An empty folder counts as absent.

    Args:
        folder: the final name.
        overwrite: whether an earlier export may be replaced.
        mark: a file that every export of this format holds. A folder without
            it is never replaced.

    Yields:
        The scratch folder, empty, beside the final one.

    Raises:
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if the disk is full or not writable.
        RuntimeError: if TensorFlow fails for any other reason.
    """
    # Resolved, so that "." and the like have a parent for the scratch folder.
    folder = Path(os.path.abspath(folder))
    scratch = folder.with_name(f".{folder.name}.partial")
    aside = folder.with_name(f".{folder.name}.old")
    with disk.writing(folder):
        _restore(folder, aside, mark)
    _check_replaceable(folder, overwrite, mark)
    with disk.writing(folder):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    try:
        with _writing(folder):
            yield scratch
            for path in [*scratch.rglob("*"), scratch]:
                disk.flush(path)
            _swap(scratch, folder, aside)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _check_replaceable(folder: Path, overwrite: bool, mark: str) -> None:
    # `lexists`, because a dangling link counts as existing.
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file. Give another folder.")
    if not any(folder.iterdir()):
        return
    if not (folder / mark).is_file():
        raise FileExistsError(
            f"{folder} holds files but no earlier export: {mark} is missing. "
            "Give another folder."
        )
    if not overwrite:
        raise FileExistsError(
            f"{folder} exists. Give another folder, or replace it with "
            "overwrite=True (--overwrite)."
        )


def _restore(folder: Path, aside: Path, mark: str) -> None:
    """Undoes the first half of a `_swap` that died before the second."""
    if not (aside / mark).is_file():
        return
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)


def _swap(scratch: Path, folder: Path, aside: Path) -> None:
    if folder.is_symlink():
        folder = folder.resolve()
    existed = folder.exists()
    if existed:
        folder.rename(aside)
    try:
        scratch.rename(folder)
    except OSError:
        if existed:
            aside.rename(folder)
        raise
    disk.flush(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Adds the folder's name to write errors, whichever library raises them."""
    try:
        with disk.writing(folder):
            yield
    except tf.errors.OpError as error:
        if disk.is_of_disk(error):
            raise disk.unwritten(folder, _system_words(error)) from error
        raise RuntimeError(
            f"The export to {folder} failed in TensorFlow: "
            f"{_first_cause(error)}. It is not kept; what was there before is."
        ) from error


def _system_words(error: tf.errors.OpError) -> str:
    """The system's message, from the end of TensorFlow's first line."""
    line = error.message.strip().splitlines()[0]
    line = line.partition(" [Op:")[0]
    return line.rpartition("; ")[2][:200]


def _first_cause(error: tf.errors.OpError) -> str:
    """The error and its operation, without TensorFlow's frame."""
    text = error.message or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # Graph errors give the cause on the line before the first node.
    nodes = [i for i, line in enumerate(lines) if line.startswith("[[{{")]
    cause = lines[max(nodes[0] - 1, 0)] if nodes else (lines or [""])[0]
    cause = re.sub(r"^\{\{.*?\}\} |\s*\[Op:.*$", "", cause)
    place = re.search(
        r"\[\[\{\{node ([^}]*)\}\}|Detected at node (\S+)|\[Op:(\w+)", text
    )
    where = next(filter(None, place.groups()), "") if place else ""
    cause = cause[:300].rstrip(".") or type(error).__name__
    return f"{cause} (in {where})" if where else cause
