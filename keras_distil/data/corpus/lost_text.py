"""Counts of text that could not be read, and the limit on them."""

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# Shares of the lines or of the bytes, whichever is larger.
WARNED_SHARE = 0.01
MAX_SKIPPED_FRACTION = 0.2

NO_RECORD = "JSON record is not an object"
NO_FIELD = "JSON record lacks the text field"
NO_JSON = "invalid JSON"

# A file is judged by its first lines, if it has at least the fewest.
TABLE_LINES = 50
_FEWEST_LINES = 5
_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "'|'"}


@dataclasses.dataclass(frozen=True, order=True)
class Place:
    """A piece of a text and the problem with it.

    Attributes:
        source: the file, or the part of a data set.
        start: the byte of the file at which counting begins.
        kind: "line", "example" or "file".
        number: the number of the piece, counted from 1 at `start`.
        problem: what is wrong with it.
    """

    source: str
    start: int
    kind: str
    number: int
    problem: str

    def __str__(self) -> str:
        """Returns the piece's position, counted over the whole file."""
        if self.kind == "file":
            return f"'{self.source}'"
        number = self.number + _count_lines_before(self.source, self.start)
        return f"{self.kind} {number:,} of '{self.source}'"


@dataclasses.dataclass
class LostText:
    """Counts of text read and lost; sums are exact in any order.

    Attributes:
        lines: non-empty lines, records or examples, lost or not.
        bytes: bytes in `lines`.
        lost_lines: those of `lines` that could not be read.
        lost_bytes: bytes in `lost_lines`.
        first: the first lost piece; None if nothing was lost.
        tables: number of files that look like tables.
        first_table: the first of these files; None if there are none.
    """

    lines: int = 0
    bytes: int = 0
    lost_lines: int = 0
    lost_bytes: int = 0
    first: Place | None = None
    tables: int = 0
    first_table: Place | None = None

    def read(self, size: int) -> None:
        """Counts a piece of `size` bytes, whether it is later lost or not."""
        self.lines += 1
        self.bytes += size

    def lose(self, size: int, place: Place) -> None:
        """Counts a piece that `read` has counted as lost."""
        self.lost_lines += 1
        self.lost_bytes += size
        self.first = min(self.first or place, place)

    def note_table(self, place: Place) -> None:
        """Counts a file that looks like a table."""
        self.tables += 1
        self.first_table = min(self.first_table or place, place)

    def add(self, other: "LostText") -> None:
        """Adds the counts of another part of the text."""
        for name in ("lines", "bytes", "lost_lines", "lost_bytes", "tables"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first = _first(self.first, other.first)
        self.first_table = _first(self.first_table, other.first_table)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "LostText":
        """Rebuilds the counts from `dataclasses.asdict` data read from JSON."""
        places = {
            name: None if values[name] is None else Place(**values[name])
            for name in ("first", "first_table")
        }
        return cls(**{**values, **places})

    @property
    def share(self) -> float:
        """The share lost, of lines or of bytes, whichever is larger; 0 to 1."""
        if not self.lines:
            return 0.0
        of_bytes = self.lost_bytes / max(self.bytes, 1)
        return max(self.lost_lines / self.lines, of_bytes)

    def warnings(self) -> list[str]:
        """One line for each thing that the user should know."""
        lines = []
        if self.share >= WARNED_SHARE:
            lines.append(self.explanation())
        if self.first_table is not None:
            more = f" and {self.tables - 1:,} more" if self.tables > 1 else ""
            lines.append(
                f"{self.first_table}{more} looks like "
                f"{self.first_table.problem}; every line of it is used whole, "
                "as text. Keep only the text, one paragraph per line, or "
                "write JSON records (.jsonl) and name the text's key with "
                "`field`."
            )
        return lines

    def check(self, max_fraction: float) -> None:
        """Raises ValueError if too much was lost.

        Args:
            max_fraction: float, 0 to 1; a share of this or more is too much.
        """
        if self.lost_lines and self.share >= max_fraction:
            raise ValueError(
                f"{self.explanation()} Or raise `max_skipped_fraction`, now "
                f"{max_fraction:g}."
            )

    def explanation(self) -> str:
        """Says how much was lost, where and what to do; "" if nothing was."""
        if self.first is None:
            return ""
        return (
            f"{100 * self.share:.1f}% of the text was skipped "
            f"({self.lost_lines:,} of {self.lines:,} lines, "
            f"{self.lost_bytes:,} of {self.bytes:,} bytes). First, "
            f"{self.first}: {self.first.problem}. "
            f"{_find_remedy(self.first.problem)}"
        )


def check_max_fraction(max_fraction: float) -> None:
    """Raises ValueError unless 0 <= `max_fraction` <= 1."""
    if not 0.0 <= max_fraction <= 1.0:
        raise ValueError(
            "`max_skipped_fraction` must be between 0 and 1. Received: "
            f"max_skipped_fraction={max_fraction}."
        )


def describe_form(lines: Sequence[str]) -> str | None:
    """Describes the first lines of a text file if they are not prose.

    Args:
        lines: some lines, none of them empty.

    Returns:
        A phrase such as "a table of 3 columns", or None for prose.
    """
    if len(lines) < _FEWEST_LINES:
        return None
    if all(_is_json(line) for line in lines):
        return "JSON records"
    for delimiter, name in _DELIMITERS.items():
        count = _count_columns(lines, delimiter)
        if count > 1:
            return f"a table of {count} columns, separated by {name}"
    return None


def _count_columns(lines: Sequence[str], delimiter: str) -> int:
    """Returns the column count that nearly all lines share, or 1."""
    try:
        counts = Counter(
            len(row) for row in csv.reader(lines, delimiter=delimiter)
        )
    except csv.Error:
        return 1
    count, rows = counts.most_common(1)[0]
    return count if rows >= 0.9 * sum(counts.values()) else 1


def _is_json(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _find_remedy(problem: str) -> str:
    if problem.startswith((NO_FIELD, NO_RECORD)):
        return "Name the key that holds the text with `field`."
    if problem.startswith("not "):
        return (
            "Name the file's encoding with `encoding` of its source, such as "
            "latin-1 or cp1252."
        )
    return "Correct the file."


def _first(one: Place | None, other: Place | None) -> Place | None:
    places: Iterable[Place] = [x for x in (one, other) if x is not None]
    return min(places, default=None)


def _count_lines_before(path: str, start: int) -> int:
    """Counts the lines that begin before the first one at or after `start`."""
    if not start:
        return 0
    lines, left = 1, start - 1
    with Path(path).open("rb") as file:
        while left and (block := file.read(min(left, 2**20))):
            lines += block.count(b"\n")
            left -= len(block)
    return lines
