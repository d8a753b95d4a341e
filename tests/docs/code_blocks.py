"""The code blocks of the docs, and what the docs say about running them.

A comment on the line before a block says how it is tested:

    <!-- tested by tests/test_own_loss.py -->    that file reads the page
    <!-- not run: needs a phone -->              and why
    <!-- run with models -->                     by `test_code_blocks`, with the
                                                 names of that function of
                                                 `names.py`

At the top of a page, `<!-- python: tested by ... -->` is for all of its Python.
Without a comment, `text` is what something prints, `yaml` is a part of a
recipe, `json` has a value per line, and a block without a language has
commands. They are checked, not run.
"""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/*.md")]
)
_BLOCK = re.compile(
    r"(?:<!-- (?P<note>[^\n]*) -->\n)?"
    r"^```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_OF_PYTHON = re.compile(r"^<!-- python: (.*) -->$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        place: "page:line" of its first line.
        language: what stands behind its fence; "" for commands.
        note: the comment before it; "" without one.
        code: the text.
    """

    place: str
    language: str
    note: str
    code: str

    def __str__(self) -> str:
        return self.place


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    name = page.relative_to(ROOT)
    of_python = _OF_PYTHON.search(text)
    notes = {"python": of_python[1] if of_python else ""}
    return [
        Block(
            place=f"{name}:{text[: found.start('code')].count(chr(10)) + 1}",
            language=found["language"],
            note=found["note"] or notes.get(found["language"], ""),
            code=found["code"],
        )
        for found in _BLOCK.finditer(text)
    ]


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in read_blocks(page)]
