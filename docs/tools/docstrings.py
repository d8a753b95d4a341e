"""Docstrings as the site shows them: formulas as code, arguments as a list."""

import re
from typing import Any

import griffe

# A section of the project's own, and its indented lines.
_SECTION = re.compile(
    r"^(Formula|Call arguments):\n((?:[ ]{4}.*\n|[ ]*\n)*)", re.MULTILINE
)


class OwnSections(griffe.Extension):
    """Writes the sections that Google's style does not have as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replaces the text of an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _SECTION.sub(
                _as_markdown, f"{obj.docstring.value}\n"
            )


def _as_markdown(section: re.Match[str]) -> str:
    title, text = section.groups()
    lines = [line.removeprefix("    ") for line in text.rstrip().split("\n")]
    if title == "Formula":
        body = ["```text", *lines, "```"]
    else:
        body = [
            re.sub(r"^(\w+): ", r"- `\1`: ", line)
            if not line.startswith(" ")
            else f"  {line.strip()}"
            for line in lines
        ]
    return "\n".join([f"**{title}:**", "", *body, "", ""])
