"""The file beside a training set whose rows are its development set."""

from pathlib import Path

from keras_distil.data.tasks.tables import (
    TABLE_SUFFIXES,
    open_table,
    suffix_of,
)

_TRAIN = "train"
_DEV = ("dev", "validation", "valid", "val")


def find_dev_file(path: Path, encoding: str) -> Path | None:
    """Finds the development set that belongs to a training set.

    It stands in the same folder and has the same name, with "dev",
    "validation", "valid" or "val" in place of "train". A table with other
    columns is not meant.

    Args:
        path: the file of the training set.
        encoding: name of its encoding.

    Returns:
        The file; None if there is none.

    Raises:
        ValueError: if it is no table where the training set is one.
    """
    before, found, after = path.name.rpartition(_TRAIN)
    if not found:
        return None
    for name in _DEV:
        other = path.with_name(f"{before}{name}{after}")
        if other.is_file() and _is_alike(path, other, encoding):
            return other
    return None


def _is_alike(path: Path, other: Path, encoding: str) -> bool:
    """Whether two files hold the same columns, if they are tables."""
    if suffix_of(path) not in TABLE_SUFFIXES:
        return True
    tables = [open_table(each, encoding) for each in (path, other)]
    return sorted(tables[0].columns) == sorted(tables[1].columns)
