"""Rows of CSV, TSV and JSONL files and of TensorFlow Datasets, streamed."""

import csv
import dataclasses
import itertools
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from keras_distil.data.corpus.tfds_text import prepared_builder
from keras_distil.data.tasks.text_lines import (
    LONGEST_LINE,
    read_lines,
    read_objects,
)

# Number of a row's line (or of a data set's example), and its values.
Row: TypeAlias = tuple[int, Sequence[Any]]

# Few enough that Python's garbage collector does not go through them.
_BATCH_ROWS = 256
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_OBJECTS = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*_DELIMITERS, *_OBJECTS)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table that is read from the beginning each time it is asked for rows.

    Attributes:
        name: the file or the data set, for messages.
        columns: names of its columns, as read.
        unit: what a row is counted by: "line" or "example".
        rows: function that begins a reading of all rows.
    """

    name: str
    columns: tuple[str, ...]
    unit: str
    rows: Callable[[], Iterator[Row]]

    def where(self, place: int) -> str:
        """Names a row in a message."""
        return f"{self.name}, {self.unit} {place}"

    def places(self, numbers: Sequence[int]) -> "Places":
        """Names rows in messages, each only when it is asked for."""
        return Places(self, numbers)

    def first_row(self) -> list[Any]:
        """Returns the first row; empty if there is none."""
        return list(next(self.rows(), (0, ()))[1])

    def batches(
        self, columns: Sequence[str]
    ) -> Iterator[tuple[list[int], list[list[Any]]]]:
        """Yields some thousand rows at a time.

        Args:
            columns: names of columns of this table.

        Yields:
            The places of the rows, and for each of `columns` its values.
        """
        indices = [self.columns.index(name) for name in columns]
        rows = self.rows()
        while batch := list(itertools.islice(rows, _BATCH_ROWS)):
            places, values = zip(*batch, strict=True)
            by_column = list(zip(*values, strict=True))
            yield list(places), [list(by_column[i]) for i in indices]


class Places(Sequence[str]):
    """The names of some rows of a table, made when they are needed.

    Args:
        table: the table.
        numbers: the numbers of the rows.
    """

    def __init__(self, table: Table, numbers: Sequence[int]) -> None:
        self._table = table
        self._numbers = numbers

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        """Names a row."""
        return self._table.where(self._numbers[index])


def suffix_of(path: Path) -> str:
    """Returns the ending that tells a file's format, without `.gz`."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def open_table(path: Path, encoding: str = "utf-8") -> Table:
    """Opens a file of rows.

    CSV and TSV begin with a line of names. They are read as Python's `csv`
    module reads them, and pandas, too: fields may be quoted, a quote within one
    is doubled, and a quoted field may hold line ends. Of JSONL, every line is
    an object, whose keys are the columns.

    Args:
        path: a file that ends in `.csv`, `.tsv`, `.jsonl` or `.ndjson`, each
            also with `.gz`.
        encoding: name of its encoding.

    Returns:
        The table, of which one row has been read.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has another ending or no rows. Reading the rows, if
            one has another number of fields, or is not an object.
    """
    suffix = suffix_of(path)
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(
            f"A file of rows must end in {', '.join(TABLE_SUFFIXES)}, each "
            f"also with .gz. Received: '{path}'."
        )
    if suffix in _OBJECTS:
        columns = next(
            (tuple(row) for _, row in read_objects(path, encoding)), ()
        )

        def rows() -> Iterator[Row]:
            for place, row in read_objects(path, encoding):
                yield place, [row.get(name) for name in columns]

    else:
        delimiter = _DELIMITERS[suffix]
        header = next(_records(path, encoding, delimiter), (0, ()))
        columns = tuple(header[1])

        def rows() -> Iterator[Row]:
            return itertools.islice(
                _records(path, encoding, delimiter), 1, None
            )

    if next(rows(), None) is None:
        raise ValueError(f"'{path}' has no rows. Give a file with some.")
    return Table(f"'{path}'", columns, "line", rows)


def open_tfds(name: str, split: str) -> Table:
    """Opens a split of a TensorFlow Datasets data set, downloaded if needed.

    Bytes become text, and the numbers of classes their names.

    Args:
        name: in TFDS's form, `name[/config][:version]`.
        split: a split, or a part of one such as `train[:1%]`.

    Raises:
        ValueError: if the data set or the split is unknown or has no rows.
        ImportError: if TFDS, or a package that it needs, is not installed.
        ConnectionError: if the data set cannot be downloaded.
    """
    builder = prepared_builder(name, split)
    features = builder.info.features
    columns = tuple(features) if hasattr(features, "keys") else ()

    def rows() -> Iterator[Row]:
        # Imported late because it imports TensorFlow.
        import tensorflow_datasets as tfds

        stored = builder.as_dataset(
            split=split,
            shuffle_files=False,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        for place, example in enumerate(tfds.as_numpy(stored), 1):
            yield place, [_plain(example[x], features[x]) for x in columns]

    if not columns or next(rows(), None) is None:
        raise ValueError(f"Split '{split}' of '{name}' has no rows.")
    return Table(f"'{name}', split '{split}'", columns, "example", rows)


def _plain(value: Any, feature: Any) -> Any:
    """Returns a value of TFDS as Python's own types."""
    if isinstance(value, dict):
        inner = getattr(feature, "feature", feature)
        return {key: _plain(x, inner[key]) for key, x in value.items()}
    if isinstance(value, np.ndarray):
        inner = getattr(feature, "feature", feature)
        return [_plain(each, inner) for each in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    number = value.item() if isinstance(value, np.generic) else value
    names = getattr(feature, "names", None)
    if names and isinstance(number, int):
        # TFDS stores -1 for labels that are kept secret.
        return names[number] if number >= 0 else None
    return number


def _records(path: Path, encoding: str, delimiter: str) -> Iterator[Row]:
    """Yields the rows that are not blank, all as long as the first."""
    csv.field_size_limit(LONGEST_LINE)
    ended: list[bool] = []
    lines = _marked(read_lines(path, encoding), ended)
    reader = csv.reader(lines, delimiter=delimiter)
    before, width = 0, 0
    try:
        for row in reader:
            place, before = before + 1, reader.line_num
            if len(row) != width or ended:
                if ended:
                    # It asked for another line in the middle of a row.
                    raise ValueError(_unclosed(path, place))
                if not row:
                    continue
                if width:
                    raise ValueError(_uneven(path, place, row, width))
                width = len(row)
            yield place, row
    except csv.Error as error:
        if "field limit" in str(error):
            raise ValueError(_unclosed(path, before + 1)) from error
        raise ValueError(
            f"'{path}', line {before + 1}: the row cannot be read ({error}). "
            "End lines with line feeds."
        ) from error


def _uneven(path: Path, place: int, row: list[str], width: int) -> str:
    what = "tab" if _DELIMITERS[suffix_of(path)] == "\t" else "comma"
    advice = f"A field with a {what} must be in double quotes"
    if len(row) < width:
        advice = (
            "A field that begins with a double quote goes on to the next one: "
            "put it into quotes, and double those inside"
        )
    return (
        f"'{path}', line {place}: a row must have {width} fields, as the first "
        f"line has. Received: {len(row)} fields, {reprlib.repr(row)}. {advice}."
    )


def _marked(lines: Iterable[str], ended: list[bool]) -> Iterator[str]:
    yield from lines
    ended.append(True)


def _unclosed(path: Path, place: int) -> str:
    return (
        f"'{path}', line {place}: a quoted field must end. Received: a double "
        "quote that is never closed. Double the quotes inside of fields."
    )
