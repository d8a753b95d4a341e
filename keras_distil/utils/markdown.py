"""Foreign text inside Markdown: shown as it is, never as markup."""

import html
import re
import unicodedata

# An underscore can begin or end emphasis beside a space only.
_SPECIAL = re.compile(r"[\\`*\[\]|~#!$]|(?<!\w)_|_(?!\w)")
_BACKTICKS = re.compile("`+")


def escape(text: str) -> str:
    r"""Text of one line that Markdown and HTML show as it is.

    Args:
        text: any text; see `visible`.

    Example:
        >>> escape("<b>5*</b>")
        '&lt;b&gt;5\\*&lt;/b&gt;'
    """
    marked = _SPECIAL.sub(lambda found: "\\" + found[0], visible(text))
    return html.escape(marked, quote=False)


def code(text: str) -> str:
    """Text of one line in the style of code.

    The mark is longer than any run of backticks in the text.

    Args:
        text: any text; see `visible`.

    Example:
        >>> code("a`b")
        '``a`b``'
    """
    text = visible(text).strip()
    mark = "`" * (_longest_run(text) + 1)
    if not text or text[0] == "`" or text[-1] == "`":
        text = f" {text} "
    return f"{mark}{text}{mark}"


def visible(text: str) -> str:
    """Text of one line; what cannot be seen in it is shown as such.

    Control characters and halves of pairs become replacement characters, and
    runs of white space a space.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character).startswith("C")
        else character
        for character in re.sub(r"\s+", " ", text)
    )


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
