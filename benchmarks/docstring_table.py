"""Writes docstrings as a table of texts with a class: the package of each.

Usage: python benchmarks/docstring_table.py FILE [--rows N] [PACKAGE ...]

A task of one's own for everyone who has the packages, without a download. The
rows are as many paragraphs of each package, evenly spread over its files.
"""

import argparse
import csv
from pathlib import Path

from keras_distil import data
from keras_distil.data.corpus.text_files import CorpusReport

PACKAGES = ("keras", "numpy", "scipy", "sklearn")
# Shorter paragraphs say little of where they are from.
_LEAST = 60


def paragraphs(package: str, count: int) -> list[str]:
    """Returns paragraphs of a package, different and evenly spread.

    Args:
        package: its name.
        count: how many, at most.
    """
    source = data.InstalledDocumentation((package,))
    found = {
        text: None
        for text in source.paragraphs(CorpusReport())
        if len(text) >= _LEAST
    }
    texts = list(found)
    step = max(1, len(texts) // count)
    return texts[::step][:count]


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument("--rows", type=int, default=2000)
    given = parser.parse_args()
    each = given.rows // len(given.packages)
    with given.file.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for package in given.packages:
            for text in paragraphs(package, each):
                writer.writerow([text, package])
    print(f"{given.file}: {each} paragraphs of each package")


if __name__ == "__main__":
    main()
