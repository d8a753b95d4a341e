"""The lines of a text file in any encoding, plain or compressed."""

import codecs
import gzip
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_CHUNK_BYTES = 2**20
# A longer line is a file of another kind, or a quote that is never closed.
LONGEST_LINE = 2**24


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Yields the lines of a file, each with its line feed, a piece at a time.

    A byte order mark is left out. Lines end at line feeds alone, and a carriage
    return before one is kept.

    Args:
        path: the file; one that ends in `.gz` is decompressed.
        encoding: name of its encoding.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a byte has no meaning in the encoding, a line is longer
            than 16 million characters, or a compressed file is damaged.
    """
    number, rest = 0, ""
    for text in _decoded(path, encoding):
        parts = (rest + text).split("\n")
        rest = parts.pop()
        for part in parts:
            yield part + "\n"
        number += len(parts)
        if len(rest) > LONGEST_LINE:
            raise ValueError(
                f"'{path}', line {number + 1}: a line must have at most "
                f"{LONGEST_LINE:,} characters. Received: a longer one. Give a "
                "text file with one row per line."
            )
    if rest:
        yield rest


def _decoded(path: Path, encoding: str) -> Iterator[str]:
    """Yields the text of a file in pieces."""
    decoder = codecs.getincrementaldecoder(encoding)()
    read, lines, is_first = 0, 0, True
    for chunk in itertools.chain(_chunks(path), [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            # The decoder has kept the beginning of a character.
            begin = read + len(chunk) - len(error.object)
            lines += error.object[: error.start].count(b"\n")
            raise ValueError(
                f"'{path}', line {lines + 1}: the text must be {encoding}. "
                f"Received: byte {error.object[error.start]:#04x} at offset "
                f"{begin + error.start:,} of the file. Name the file's own "
                "encoding in the task's `encoding`, such as latin-1, cp1252 or "
                "utf-16."
            ) from error
        except UnicodeError as error:
            # Python says no place for a missing byte order mark.
            raise ValueError(
                f"'{path}': the text must be {encoding}. Received: bytes that "
                f"are not ({error}). Name the file's own encoding in the "
                "task's `encoding`, such as utf-8, utf-16-le or latin-1."
            ) from error
        read += len(chunk)
        lines += text.count("\n")
        if is_first and text:
            is_first, text = False, text.removeprefix("\ufeff")
        yield text


def _chunks(path: Path) -> Iterator[bytes]:
    """Yields the bytes of a file in pieces, decompressed."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file '{path}'.")
    is_compressed = path.suffix == ".gz"
    file: BinaryIO | gzip.GzipFile
    with gzip.open(path) if is_compressed else path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"'{path}' is not a whole file of gzip ({error}). Compress it "
                "again, or give it a name without .gz."
            ) from error


def read_objects(
    path: Path, encoding: str = "utf-8"
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the objects of a JSONL file, each with the number of its line.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not a JSON object, or as for `read_lines`.
    """
    for place, line in enumerate(read_lines(path, encoding), 1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"'{path}', line {place}: must be JSON ({error}). Received: "
                f"{line.strip()!r:.80}. Write one object per line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"'{path}', line {place}: must be a JSON object. Received: "
                f"{line.strip()!r:.80}. Write one object per line."
            )
        yield place, row


def read_text(path: Path, encoding: str = "utf-8", *, most: int) -> str:
    """Reads a whole file.

    Args:
        path: the file; one that ends in `.gz` is decompressed.
        encoding: name of its encoding.
        most: limit on its characters.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as for `read_lines`, or if it is larger than `most`.
    """
    parts, total = [], 0
    for part in _decoded(path, encoding):
        parts.append(part)
        total += len(part)
        if total > most:
            raise ValueError(
                f"'{path}' must have at most {most:,} characters. Received: "
                "more. Split it into several files."
            )
    return "".join(parts)
