"""The rows of a file of one's own: all counted, some looked at."""

import dataclasses
from pathlib import Path
from typing import Any

from keras_distil.data.tasks.columns import as_read
from keras_distil.data.tasks.span_rows import SPAN_SUFFIXES
from keras_distil.data.tasks.tables import (
    TABLE_SUFFIXES,
    Table,
    open_table,
    suffix_of,
)
from keras_distil.data.tasks.word_rows import CONLL_SUFFIXES

# Rows that are looked at: from this number to twice as many, evenly spread.
SAMPLE = 2_000

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Where the advice for a recipe begins in the message of a wrong byte.
_ADVICE = " Name the file's own encoding"


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some rows of a table.

    Attributes:
        table: the table.
        rows: number of all its rows.
        values: by column, its values in the rows that are looked at.
    """

    table: Table
    rows: int
    values: dict[str, list[Any]]


def check_suffix(path: Path) -> str:
    """Returns a file's ending without `.gz`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder or has an unknown ending.
    """
    known = (*TABLE_SUFFIXES, *CONLL_SUFFIXES, *SPAN_SUFFIXES)
    if not path.exists():
        raise FileNotFoundError(f"There is no file '{path}'.")
    suffix = suffix_of(path)
    if not path.is_file() or suffix not in known:
        raise ValueError(
            f"`FILE` must be a file that ends in {', '.join(known)}, each also "
            f"with .gz. Received: '{path}'."
        )
    return suffix


def find_encoding(path: Path) -> str:
    """Returns the encoding that the first bytes of a file tell."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in _UTF_16 else "utf-8"


def read_sample(path: Path, encoding: str) -> Sample:
    """Counts the rows of a table and keeps some of them.

    Args:
        path: the file.
        encoding: name of its encoding.

    Raises:
        ValueError: if the file has no rows, or has a single column, a row of
            another length, or another encoding.
    """
    table = open_table(path, encoding)
    names = table.columns
    if len(set(names)) < max(2, len(names)):
        raise ValueError(
            f"{table.name}: a file of rows must have two columns or more, each "
            f"with its own name: the texts and their labels. {as_read(table)}"
        )
    count, kept = _sample(table)
    columns = [list(column) for column in zip(*kept, strict=True)]
    return Sample(table, count, dict(zip(names, columns, strict=True)))


def _sample(table: Table) -> tuple[int, list[Any]]:
    """Keeps every row, then every second one, every fourth, and so on."""
    count, step = 0, 1
    kept: list[Any] = []
    for _, row in table.rows():
        if count % step == 0:
            kept.append(row)
            if len(kept) == 2 * SAMPLE:
                kept, step = kept[::2], 2 * step
        count += 1
    return count, kept


def without_advice(error: ValueError) -> str:
    """Returns the message of a reader for someone without a recipe yet."""
    said, found, _ = str(error).partition(_ADVICE)
    return f"{said} Save the file as UTF-8." if found else said
