"""Lists figures of the docs that are older than the code that they are of.

    python docs/tools/old_figures.py

A figure, or a table of them, is followed by a line such as

    *Measured at `1bec25c`, of `keras_distil/losses`, `recipes/glue.yaml`.*

with the commit whose code was measured and the files and folders that decide
the figure. Listed is every such line with later commits to these files. Whether
they changed the figure, only another measurement tells.
"""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MARK = re.compile(r"\*Measured at `(\w+)`, of\s+([^*]+)\.\*")


@dataclasses.dataclass(frozen=True)
class Mark:
    """The origin of a figure.

    Attributes:
        place: "page:line".
        commit: the commit that was measured.
        paths: what decides the figure, from the repository's root.
    """

    place: str
    commit: str
    paths: tuple[str, ...]


def read_marks(page: Path, root: Path = ROOT) -> list[Mark]:
    """The marks of a page, in order."""
    text = page.read_text("utf-8")
    return [
        Mark(
            f"{page.relative_to(root)}:{text[: x.start()].count(chr(10)) + 1}",
            x[1],
            tuple(re.findall(r"`([^`]+)`", x[2])),
        )
        for x in _MARK.finditer(text)
    ]


def later_commits(mark: Mark, root: Path = ROOT) -> list[str]:
    """One line for each commit to a figure's code after its measurement.

    Raises:
        ValueError: if the commit is not in the history.
    """
    command = ["git", "-C", str(root), "log", "--no-merges"]
    command += ["--format=%h %s", f"{mark.commit}..HEAD", "--", *mark.paths]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise ValueError(
            f"{mark.place}: the commit must be in the history of this "
            f"checkout. Received: {mark.commit}."
        )
    return found.stdout.splitlines()


def main(root: Path = ROOT) -> int:
    """Prints what is old; returns 1 if a commit is unknown."""
    status = 0
    for page in sorted((root / "docs").rglob("*.md")):
        for mark in read_marks(page, root):
            try:
                later = later_commits(mark, root)
            except ValueError as error:
                print(error, file=sys.stderr)
                status = 1
                continue
            if later:
                print(
                    f"{mark.place}: measured at {mark.commit}; since then "
                    f"{len(later)} commits, the latest {later[0]}"
                )
    return status


if __name__ == "__main__":
    sys.exit(main())
