"""Paragraphs of text from files, streamed."""

import dataclasses
import glob
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

MAX_LINE_CHARACTERS = 1_000_000
_MAX_LINE_BYTES = 4 * MAX_LINE_CHARACTERS  # UTF-8 takes up to 4 a character
_EXTENSIONS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")
# Where a file is cut is part of a corpus: repeats count once, in order.
UNIT_BYTES = 4 * 2**20

# Of a record: line number, problem, keys found.
_Failure: TypeAlias = tuple[int, str, list[str]]


@dataclasses.dataclass
class CorpusReport:
    """What was read and what was left out, and why.

    Attributes:
        files: files opened.
        paragraphs: distinct paragraphs kept.
        characters: characters in them.
        held_out_paragraphs: those of `paragraphs` that were held out.
        train_tokens: tokens of the training paragraphs, none special.
        held_out_tokens: the same of the held-out paragraphs.
        skipped: how often something was left out, by reason.
    """

    files: int = 0
    paragraphs: int = 0
    characters: int = 0
    held_out_paragraphs: int = 0
    train_tokens: int = 0
    held_out_tokens: int = 0
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)

    def __str__(self) -> str:
        """Sums the counts up in one line."""
        skipped = ", ".join(
            f"{reason}: {count:,}"
            for reason, count in sorted(self.skipped.items())
        )
        return (
            f"{self.paragraphs:,} paragraphs, {self.characters:,} characters "
            f"from {self.files:,} files; skipped: {skipped or 'nothing'}"
        )


class Unit(Protocol):
    """A part of a source that is read by itself, also in another process."""

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields paragraphs and adds files and skips to `report`."""
        ...


class Source(Protocol):
    """Where paragraphs come from."""

    def describe(self) -> dict[str, Any]:
        """Returns JSON data that changes whenever the content may have."""
        ...

    def units(self) -> Sequence[Unit]:
        """Returns the parts, in order: the same whoever reads them."""
        ...


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Text files with one paragraph a line.

    Read as UTF-8, line by line. Lines that are empty, not UTF-8 or longer
    than 1,000,000 characters are skipped and counted, as are JSON lines that
    are invalid or lack the field.

    Attributes:
        pattern: a path or glob pattern; `**` crosses folders. Supported are
            .txt and .jsonl (one JSON object a line), also with .gz.
        root: folder that a relative pattern starts from. Defaults to the
            working folder.
        field: the key that holds the text in .jsonl records.

    Example:
        >>> TextFiles("articles/**/*.jsonl.gz", root="corpus", field="text")
        TextFiles(pattern='articles/**/*.jsonl.gz', root='corpus', field='text')
    """

    pattern: str
    root: str | os.PathLike | None = None
    field: str | None = None

    def files(self) -> list[Path]:
        """Returns the files that the pattern matches, sorted.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if one has an unknown extension, or is .jsonl while
                no field is given.
        """
        root = Path(self.root or ".").expanduser()
        pattern = os.path.expanduser(self.pattern)
        found = glob.glob(pattern, root_dir=root, recursive=True)
        files = [root / name for name in sorted(found)]
        files = [path for path in files if path.is_file()]
        if not files:
            raise FileNotFoundError(
                f"No file matches pattern '{self.pattern}' under root "
                f"'{root}'. Check both; '**/' in a pattern crosses folders."
            )
        for path in files:
            self._check(path)
        return files

    def _check(self, path: Path) -> None:
        if not path.name.endswith(_EXTENSIONS):
            raise ValueError(
                f"'{path}' has an unsupported extension. Supported: "
                f"{', '.join(_EXTENSIONS)}."
            )
        if _is_jsonl(path) and self.field is None:
            raise ValueError(
                f"'{path}' holds JSON records: `field` must name the key of "
                "their text, for example field='text'. Received: field=None."
            )

    def describe(self) -> dict[str, Any]:
        """Returns the files with their sizes and times of modification."""
        root = Path(self.root or ".").expanduser()
        files = []
        for path in self.files():
            status = path.stat()
            name = os.path.relpath(path, root)
            files.append([name, status.st_size, status.st_mtime_ns])
        return {"type": "text_files", "field": self.field, "files": files}

    def units(self) -> list["FileRange"]:
        """Returns pieces of the files, in the order of their names.

        Compressed files are whole, others are cut about every 4 MB.

        Raises:
            FileNotFoundError: if no file matches.
            ValueError: if a file is of no supported kind.
        """
        units = []
        for path in self.files():
            size = path.stat().st_size
            if path.name.endswith(".gz"):
                starts = [0]
            else:
                starts = list(range(0, max(size, 1), UNIT_BYTES))
            for start, end in zip(starts, [*starts[1:], None], strict=True):
                units.append(FileRange(str(path), start, end, self.field))
        return units

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields the paragraphs of all files, in the order of their names.

        Args:
            report: files and skips are added to it.

        Raises:
            FileNotFoundError: if no file matches.
            ValueError: if a file is of no supported kind, is a damaged .gz,
                or is a .jsonl file whose first 4 MB have no usable record.
        """
        for unit in self.units():
            yield from unit.paragraphs(report)


@dataclasses.dataclass(frozen=True)
class FileRange:
    """The lines of a text file that begin in a range of its bytes.

    Attributes:
        path: the file.
        start: int, the first byte.
        end: int, the byte behind the last; None for the end of the file.
        field: the key that holds the text in .jsonl records.
    """

    path: str
    start: int
    end: int | None
    field: str | None

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields the paragraphs; the first range of a file counts the file.

        Raises:
            ValueError: if the file is a damaged .gz, or a .jsonl file whose
                first range has no usable record.
        """
        path = Path(self.path)
        if self.start == 0:
            report.files += 1
            if path.stat().st_size == 0:
                report.skipped["empty file"] += 1
                return
        lines = _lines(path, self.start, self.end, report)
        if not _is_jsonl(path):
            for _, line in lines:
                yield line
            return
        failure = yield from _records(lines, self.field, report)
        if failure and self.start == 0:
            number, problem, found = failure
            raise ValueError(
                f"'{path}' has no usable record. First, line {number}: "
                f"{problem} (field='{self.field}'). Keys found: "
                f"{found or 'none'}. Correct `field` or the file."
            )


def _is_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".jsonl")


def _lines(
    path: Path, start: int, end: int | None, report: CorpusReport
) -> Iterator[tuple[int, str]]:
    """Yields (line number, stripped line) of the usable lines of a range.

    Lines are numbered from its beginning.
    """
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "rb") as file:
        try:
            if start:
                # The line that the byte before belongs to is not of this
                # range; it may be one that ends right there.
                file.seek(start - 1)
                start += _skip_line(file) - 1
            for number, (at, raw) in enumerate(_bounded_lines(file), 1):
                if end is not None and start + at >= end:
                    break
                line = _decode(raw, report)
                if line is not None:
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"'{path}' is truncated or damaged ({error}). Copy it again."
            ) from error


def _skip_line(file: IO[bytes] | gzip.GzipFile) -> int:
    """Reads to the end of a line in bounded pieces; returns its bytes."""
    size = 0
    while piece := file.readline(_MAX_LINE_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _bounded_lines(
    file: IO[bytes] | gzip.GzipFile,
) -> Iterator[tuple[int, bytes | None]]:
    """Yields (offset, line), holding one bounded piece.

    The line is None if it is too long.
    """
    at = 0
    while piece := file.readline(_MAX_LINE_BYTES + 1):
        size = len(piece)
        too_long = size > _MAX_LINE_BYTES
        if too_long and not piece.endswith(b"\n"):
            size += _skip_line(file)
        yield at, None if too_long else piece
        at += size


def _decode(raw: bytes | None, report: CorpusReport) -> str | None:
    """Decodes and strips a line; None, counted, if it cannot be used."""
    if raw is None:
        report.skipped["line too long"] += 1
        return None
    try:
        line = raw.decode("utf-8").lstrip("\ufeff").strip()
    except UnicodeDecodeError:
        report.skipped["line not UTF-8"] += 1
        return None
    if not line:
        report.skipped["empty line"] += 1
    elif len(line) > MAX_LINE_CHARACTERS:
        report.skipped["line too long"] += 1
    else:
        return line
    return None


def _records(
    lines: Iterator[tuple[int, str]], field: str | None, report: CorpusReport
) -> Generator[str, None, _Failure | None]:
    """Yields one field of JSON records; returns why if none is usable."""
    usable, failure = False, None
    for number, line in lines:
        text, problem, found = _field_of(line, field)
        if text is not None:
            usable = True
            if stripped := text.strip():
                yield stripped
            else:
                report.skipped["empty line"] += 1
            continue
        report.skipped[problem] += 1
        failure = failure or (number, problem, found)
    return None if usable else failure


def _field_of(
    line: str, field: str | None
) -> tuple[str | None, str, list[str]]:
    """Returns (text or None, problem, keys found) of one JSON line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None, "invalid JSON", []
    if not isinstance(record, dict):
        return None, "JSON record is no object", []
    text = record.get(field)
    if not isinstance(text, str):
        return None, "JSON record lacks the text field", sorted(record)
    return text, "", []
