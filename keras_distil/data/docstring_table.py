"""A table of texts with labels that everyone has: docstrings by package.

`python -m keras_distil.data.docstring_table FILE [PACKAGE ...] [--rows N]`
writes a CSV file for trying tasks of one's own, without a download. Its texts
are paragraphs, as many of each package, evenly spread over its files.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from keras_distil.data.corpus.documentation import InstalledDocumentation
from keras_distil.data.corpus.text_files import CorpusReport

PACKAGES = ("keras", "numpy", "scipy", "sklearn")
ROWS = 600
# Shorter paragraphs say little of where they are from.
_LEAST_CHARACTERS = 60


def write_docstring_table(
    path: Path, packages: Sequence[str] = PACKAGES, rows: int = ROWS
) -> int:
    """Writes a CSV file with the columns `text` and `package`.

    Args:
        path: the file to write.
        packages: names of installed packages.
        rows: int >= 1, rows of the table, at most.

    Returns:
        The number of rows.

    Raises:
        FileExistsError: if there is a file already.
        ValueError: if a package is not installed.
    """
    each = max(1, rows // len(packages))
    table = [
        (text, package)
        for package in packages
        for text in _paragraphs(package, each)
    ]
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "package"))
        writer.writerows(table)
    return len(table)


def _paragraphs(package: str, count: int) -> list[str]:
    """Returns paragraphs of a package, different and evenly spread."""
    source = InstalledDocumentation((package,))
    found = dict.fromkeys(
        text
        for text in source.paragraphs(CorpusReport())
        if len(text) >= _LEAST_CHARACTERS
    )
    texts, kept = list(found), min(count, len(found))
    return [texts[i * len(texts) // kept] for i in range(kept)]


def main(words: Sequence[str] | None = None) -> None:
    """Writes the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m keras_distil.data.docstring_table",
        description="Write docstrings as a table: texts and their packages.",
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args(words)
    try:
        count = write_docstring_table(given.file, given.packages, given.rows)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"{given.file}: {count:,} rows")


if __name__ == "__main__":
    main()
