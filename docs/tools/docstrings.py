"""Docstrings as the site shows them: formulas as code, arguments as a list."""

import re
from functools import partial
from typing import Any

import griffe

# A section that Google's style does not have, or not for a class, and its
# indented lines.
_SECTION = re.compile(
    r"^(Formula|Call arguments|Returns):\n((?:[ ]{4}.*\n|[ ]*\n)*)",
    re.MULTILINE,
)


class OwnSections(griffe.Extension):
    """Writes the sections that Google's style does not have as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Replaces the text of an object's docstring."""
        if obj.docstring is None:
            return
        text = f"{obj.docstring.value}\n"
        text = _SECTION.sub(partial(_as_markdown, obj.is_class), text)
        # By its plural, the style knows a section of Python code.
        obj.docstring.value = re.sub(
            r"^Example:$", "Examples:", text, flags=re.MULTILINE
        )


def _as_markdown(of_class: bool, section: re.Match[str]) -> str:
    title, text = section.groups()
    if title == "Returns" and not of_class:
        return section[0]
    lines = [line.removeprefix("    ") for line in text.rstrip().split("\n")]
    if title == "Returns":
        body = lines
    elif title == "Formula":
        body = ["```text", *lines, "```"]
    else:
        body = [
            re.sub(r"^(\w+): ", r"- `\1`: ", line)
            if not line.startswith(" ")
            else f"  {line.strip()}"
            for line in lines
        ]
    return "\n".join([f"**{title}:**", "", *body, "", ""])
