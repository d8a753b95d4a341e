"""Paragraphs of text from files, streamed."""

import dataclasses
import glob
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from keras_distil.data.split import content_digest

MAX_LINE_CHARACTERS = 1_000_000
_MAX_LINE_BYTES = 4 * MAX_LINE_CHARACTERS  # UTF-8 takes up to 4 a character
_EXTENSIONS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")


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


class Source(Protocol):
    """Where paragraphs come from."""

    def describe(self) -> dict[str, Any]:
        """Returns JSON data that changes whenever the content may have."""
        ...

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields paragraphs and adds files and skips to `report`."""
        ...


def unique_paragraphs(
    sources: Iterable[Source], report: CorpusReport
) -> Iterator[tuple[int, str]]:
    """Yields each paragraph of several sources once, with its digest.

    Repeats are recognised by `content_digest`, hence across case and
    spacing, and by 8 bytes each, so that a large corpus stays affordable.

    Args:
        sources: read one after another.
        report: counts what is kept and what is skipped.
    """
    seen: set[int] = set()
    for source in sources:
        for text in source.paragraphs(report):
            digest = content_digest(text)
            if digest in seen:
                report.skipped["repeated paragraph"] += 1
                continue
            seen.add(digest)
            report.paragraphs += 1
            report.characters += len(text)
            yield digest, text


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

    def paragraphs(self, report: CorpusReport) -> Iterator[str]:
        """Yields the paragraphs of all files, in the order of their names.

        Args:
            report: files and skips are added to it.

        Raises:
            FileNotFoundError: if no file matches.
            ValueError: if a file is of no supported kind, is a damaged .gz,
                or is a .jsonl file without a single usable record.
        """
        for path in self.files():
            report.files += 1
            if path.stat().st_size == 0:
                report.skipped["empty file"] += 1
                continue
            lines = _lines(path, report)
            if _is_jsonl(path):
                yield from _records(lines, path, self.field, report)
            else:
                for _, line in lines:
                    yield line


def _is_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".jsonl")


def _lines(path: Path, report: CorpusReport) -> Iterator[tuple[int, str]]:
    """Yields (line number, stripped line) of the usable lines of a file."""
    opener = gzip.open if path.name.endswith(".gz") else open
    with opener(path, "rb") as file:
        try:
            for number, raw in enumerate(_bounded_lines(file), 1):
                line = _decode(raw, report)
                if line is not None:
                    yield number, line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"'{path}' is truncated or damaged ({error}). Copy it again."
            ) from error


def _bounded_lines(
    file: IO[bytes] | gzip.GzipFile,
) -> Iterator[bytes | None]:
    """Yields lines, None for those too long, holding one bounded piece."""
    while piece := file.readline(_MAX_LINE_BYTES + 1):
        if len(piece) <= _MAX_LINE_BYTES:
            yield piece
            continue
        while piece and not piece.endswith(b"\n"):
            piece = file.readline(_MAX_LINE_BYTES)
        yield None


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
    lines: Iterator[tuple[int, str]],
    path: Path,
    field: str | None,
    report: CorpusReport,
) -> Iterator[str]:
    """Yields one field of JSON records; an error if no record is usable."""
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
    if failure and not usable:
        number, problem, found = failure
        raise ValueError(
            f"'{path}' has no usable record. First, line {number}: {problem} "
            f"(field='{field}'). Keys found: {found or 'none'}. "
            "Correct `field` or the file."
        )


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
