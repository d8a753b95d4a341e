"""Paragraphs of text from files, streamed."""

import codecs
import dataclasses
import gzip
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeAlias

from keras_distil.data.corpus import lost_text
from keras_distil.data.corpus.find_files import find_files
from keras_distil.data.corpus.lost_text import LostText, Place
from keras_distil.data.corpus.unknown import (
    USUAL,
    describe_share,
    unknown_warnings,
)
from keras_distil.utils.checks import check_encoding

MAX_LINE_CHARACTERS = 1_000_000
_MAX_LINE_BYTES = 4 * MAX_LINE_CHARACTERS  # up to 4 bytes per UTF-8 character
_EXTENSIONS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")
# The size affects the corpus: of repeats, the first in order counts.
UNIT_BYTES = 4 * 2**20
# How much of a file a dry run reads.
_BEGINNING_BYTES = 2**18

_EMPTY = "empty line"
_TOO_LONG = "line too long"

# Line number, problem and keys of a record that could not be used.
_Failure: TypeAlias = tuple[int, str, list[str]]


@dataclasses.dataclass
class CorpusReport:
    """Counts of what was read and what was left out, and why.

    Attributes:
        files: files opened.
        paragraphs: distinct paragraphs kept.
        characters: characters in those paragraphs.
        held_out_paragraphs: how many of `paragraphs` are held out.
        train_tokens: tokens of the training paragraphs, without special ones.
        held_out_tokens: the same for the held-out paragraphs.
        unknown_tokens: how many of both are unknown.
        skipped: how often something was left out, by reason.
        lost: how much of the text could not be read.
        unknown_token: the tokenizer's unknown token; None if it has none.
    """

    files: int = 0
    paragraphs: int = 0
    characters: int = 0
    held_out_paragraphs: int = 0
    train_tokens: int = 0
    held_out_tokens: int = 0
    unknown_tokens: int = 0
    skipped: Counter[str] = dataclasses.field(default_factory=Counter)
    lost: LostText = dataclasses.field(default_factory=LostText)
    unknown_token: str | None = USUAL

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON data."""
        values = {
            **vars(self),
            "skipped": dict(self.skipped),
            "lost": dataclasses.asdict(self.lost),
        }
        if self.unknown_token == USUAL:
            # So that corpora of BERT's tokenizers stay as they were.
            del values["unknown_token"]
        return values

    def __str__(self) -> str:
        """Returns the counts in one line."""
        skipped = ", ".join(
            f"{reason}: {count:,}"
            for reason, count in sorted(self.skipped.items())
        )
        unknown = describe_share(
            self.unknown_tokens, self.tokens, self.unknown_token
        )
        unknown = f"{unknown}; " if unknown else ""
        return (
            f"{self.paragraphs:,} paragraphs, {self.characters:,} characters "
            f"from {self.files:,} files; {unknown}"
            f"skipped: {skipped or 'nothing'}"
        )

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown, from 0 to 1."""
        return self.unknown_tokens / max(self.tokens, 1)

    @property
    def tokens(self) -> int:
        """Number of tokens in all paragraphs that were kept."""
        return self.train_tokens + self.held_out_tokens

    def warnings(self) -> list[str]:
        """Returns one line for each oddity of the text."""
        return [
            *self.lost.warnings(),
            *unknown_warnings(
                self.unknown_tokens,
                self.tokens,
                "the corpus",
                token=self.unknown_token,
            ),
        ]


class Unit(Protocol):
    """A part of a source that can be read by itself, in any process."""

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields paragraphs, and adds files and skips to `report`."""
        ...


class Source(Protocol):
    """A source of paragraphs."""

    def describe(self) -> dict[str, Any]:
        """Returns JSON data that changes whenever the content may have."""
        ...

    def units(self) -> Sequence[Unit]:
        """Returns the parts, in an order that never varies."""
        ...


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Text files with one paragraph per line.

    Lines that are empty, not in the encoding or longer than 1,000,000
    characters are skipped and counted, as are JSON lines that are invalid or
    lack the field.

    Attributes:
        pattern: a path or glob pattern; `**` crosses folders. Supported are
            .txt and .jsonl (one JSON object per line), optionally with .gz.
        root: folder that a relative pattern starts from. Defaults to the
            working directory.
        field: the key that holds the text in .jsonl records.
        encoding: encoding of the files, by its Python name, such as "latin-1".
        allow_outside_root: whether files outside of `root` may be read,
            through an absolute pattern, `..` or links.

    Raises:
        ValueError: if the encoding is unknown, or does not end a line as
            UTF-8 does (UTF-16 and UTF-32).

    Example:
        >>> TextFiles("articles/**/*.jsonl.gz", root="corpus", field="text")
        TextFiles(pattern='articles/**/*.jsonl.gz', root='corpus', \
field='text', encoding='utf-8', allow_outside_root=True)
    """

    pattern: str
    root: str | os.PathLike | None = None
    field: str | None = None
    encoding: str = "utf-8"
    allow_outside_root: bool = True

    def __post_init__(self) -> None:
        """Checks the encoding."""
        check_encoding(self.encoding)

    def files(self) -> list[Path]:
        """Returns the files that the pattern matches, sorted.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if a file has an unknown extension, is .jsonl while no
                field is given, or is outside of the root without permission.
        """
        files = find_files(
            self.pattern, self.root, allow_outside_root=self.allow_outside_root
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
        """Returns the files with their sizes and modification times."""
        root = Path(self.root or ".").expanduser()
        files = []
        for path in self.files():
            status = path.stat()
            name = os.path.relpath(path, root)
            files.append([name, status.st_size, status.st_mtime_ns])
        described = {"type": "text_files", "field": self.field, "files": files}
        if _is_utf8(self.encoding):
            return described
        return {**described, "encoding": codecs.lookup(self.encoding).name}

    def read_beginnings(self, report: CorpusReport) -> bool:
        """Reads the beginning of every file, to find problems early.

        Args:
            report: receives counts of what is read and skipped.

        Returns:
            Whether every file was read to its end.

        Raises:
            FileNotFoundError: if no file matches.
            ValueError: if a file is not supported, or has no usable record.
        """
        whole = True
        for path in self.files():
            is_small = path.stat().st_size <= _BEGINNING_BYTES
            whole &= is_small and not path.name.endswith(".gz")
            unit = FileRange(
                str(path), 0, _BEGINNING_BYTES, self.field, self.encoding
            )
            for _ in unit.paragraphs(report):
                pass
        return whole

    def units(self) -> list["FileRange"]:
        """Returns pieces of the files, in the order of their names.

        Compressed files stay whole; others are cut about every 4 MB.

        Raises:
            FileNotFoundError: if no file matches.
            ValueError: if a file's kind is not supported.
        """
        units = []
        for path in self.files():
            size = path.stat().st_size
            if path.name.endswith(".gz"):
                starts = [0]
            else:
                starts = list(range(0, max(size, 1), UNIT_BYTES))
            for start, end in zip(starts, [*starts[1:], None], strict=True):
                units.append(
                    FileRange(str(path), start, end, self.field, self.encoding)
                )
        return units

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields the paragraphs of all files, in the order of their names.

        Args:
            report: receives counts of files and skips.

        Raises:
            FileNotFoundError: if no file matches.
            ValueError: if a file's kind is not supported, or it is a damaged
                .gz or a .jsonl file whose first 4 MB have no usable record.
        """
        for unit in self.units():
            yield from unit.paragraphs(report)


@dataclasses.dataclass(frozen=True)
class FileRange:
    """The lines of a text file that begin in a byte range.

    Attributes:
        path: the file.
        start: int, the first byte.
        end: int, the byte after the last; None for the end of the file.
        field: the key that holds the text in .jsonl records.
        encoding: encoding of the file.
    """

    path: str
    start: int
    end: int | None
    field: str | None
    encoding: str = "utf-8"

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
        lines = self._read_lines(report)
        if not _is_jsonl(path):
            for line in self._note_tables(lines, report):
                yield line.text
            return
        failure = yield from self._read_records(lines, report)
        if failure and self.start == 0:
            number, problem, keys = failure
            raise ValueError(
                f"'{path}' has no usable record. First, line {number}: "
                f"{problem} (field='{self.field}'). Keys found: "
                f"{keys or 'none'}. Correct `field` or the file."
            )

    def _read_lines(self, report: CorpusReport) -> Iterator["_Line"]:
        """Yields the usable lines, numbered from the start of the range."""
        path = Path(self.path)
        opener = gzip.open if path.name.endswith(".gz") else open
        start = self.start
        with opener(path, "rb") as file:
            try:
                if start == 0:
                    _refuse_wide_characters(path, file)
                else:
                    # The line of the byte before does not belong to this
                    # range; it may be one that ends right there.
                    file.seek(start - 1)
                    start += _skip_line(file) - 1
                for number, (at, size, raw) in enumerate(
                    _read_bounded_lines(file), 1
                ):
                    if self.end is not None and start + at >= self.end:
                        break
                    text, problem = _decode(raw, self.encoding)
                    if problem == _EMPTY:
                        report.skipped[problem] += 1
                        continue
                    report.lost.read(size)
                    if text is not None:
                        yield _Line(number, size, text)
                        continue
                    report.skipped[_name_problem(problem)] += 1
                    report.lost.lose(size, self._make_place(number, problem))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"'{path}' is truncated or damaged ({error}). Copy it "
                    "again."
                ) from error

    def _note_tables(
        self, lines: Iterator["_Line"], report: CorpusReport
    ) -> Iterator["_Line"]:
        """Yields the lines; the report notes it if they look like a table."""
        if self.start:
            yield from lines
            return
        first = list(itertools.islice(lines, lost_text.TABLE_LINES))
        form = lost_text.describe_form([line.text for line in first])
        if form is not None:
            place = Place(self.path, 0, "file", 1, form)
            report.lost.note_table(place)
        yield from itertools.chain(first, lines)

    def _read_records(
        self, lines: Iterator["_Line"], report: CorpusReport
    ) -> Generator[str, None, _Failure | None]:
        """Yields a field of JSON records; returns why if none is usable."""
        usable, failure = False, None
        for line in lines:
            text, problem, keys = _read_field(line.text, self.field)
            if text is not None:
                usable = True
                if stripped := text.strip():
                    yield stripped
                else:
                    report.skipped[_EMPTY] += 1
                continue
            report.skipped[problem] += 1
            report.lost.lose(line.size, self._make_place(line.number, problem))
            failure = failure or (line.number, problem, keys)
        return None if usable else failure

    def _make_place(self, number: int, problem: str) -> Place:
        return Place(self.path, self.start, "line", number, problem)


class _Line(NamedTuple):
    """A line of text, with its number and size in bytes."""

    number: int
    size: int
    text: str


def _is_utf8(encoding: str) -> bool:
    # A byte order mark is dropped in any case.
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _refuse_wide_characters(
    path: Path, file: IO[bytes] | gzip.GzipFile
) -> None:
    """Raises ValueError if a file begins with the mark of UTF-16 or UTF-32."""
    marks = {
        codecs.BOM_UTF32_LE: "UTF-32",
        codecs.BOM_UTF32_BE: "UTF-32",
        codecs.BOM_UTF16_LE: "UTF-16",
        codecs.BOM_UTF16_BE: "UTF-16",
    }
    begin = file.read(4)
    file.seek(0)
    for mark, name in marks.items():
        if begin.startswith(mark):
            raise ValueError(
                f"'{path}' is in {name}, which cannot be read line by line. "
                f"Convert it first: iconv -f {name} -t UTF-8 FILE > FILE.txt."
            )


def _is_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".jsonl")


def _skip_line(file: IO[bytes] | gzip.GzipFile) -> int:
    """Reads to the end of a line in bounded pieces; returns the bytes read."""
    size = 0
    while piece := file.readline(_MAX_LINE_BYTES):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _read_bounded_lines(
    file: IO[bytes] | gzip.GzipFile,
) -> Iterator[tuple[int, int, bytes | None]]:
    """Yields (offset, bytes, line), one bounded piece in memory at a time.

    The line is None if it is too long.
    """
    at = 0
    while piece := file.readline(_MAX_LINE_BYTES + 1):
        size = len(piece)
        too_long = size > _MAX_LINE_BYTES
        if too_long and not piece.endswith(b"\n"):
            size += _skip_line(file)
        yield at, size, None if too_long else piece
        at += size


def _decode(raw: bytes | None, encoding: str) -> tuple[str | None, str]:
    """Decodes and strips a line; returns None and the problem if it fails."""
    if raw is None:
        return None, _TOO_LONG
    try:
        line = raw.decode(encoding).lstrip("\ufeff").strip()
    except UnicodeError as error:
        name = "UTF-8" if _is_utf8(encoding) else encoding
        if not isinstance(error, UnicodeDecodeError):
            return None, f"not {name}"
        byte = raw[error.start]
        return None, f"not {name} (byte 0x{byte:02x} at {error.start + 1})"
    if not line:
        return None, _EMPTY
    if len(line) > MAX_LINE_CHARACTERS:
        return None, _TOO_LONG
    return line, ""


def _name_problem(problem: str) -> str:
    """Returns the report's name for a problem of a line."""
    if problem == _TOO_LONG:
        return problem
    return f"line {problem.partition(' (')[0]}"


def _read_field(
    line: str, field: str | None
) -> tuple[str | None, str, list[str]]:
    """Returns (text or None, problem, keys of the record) of a JSON line."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None, lost_text.NO_JSON, []
    if not isinstance(record, dict):
        return None, lost_text.NO_RECORD, []
    text = record.get(field)
    if not isinstance(text, str):
        return None, lost_text.NO_FIELD, sorted(record)
    return text, "", []
