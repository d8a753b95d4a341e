"""Foreign text inside Markdown: shown literally, never as markup."""

import html
import re
import unicodedata

# An underscore can begin or end emphasis only next to a space.
_SPECIAL = re.compile(r"[\\`*\[\]|~#!$]|(?<!\w)_|_(?!\w)")
_BACKTICKS = re.compile("`+")


def escape(text: str) -> str:
    r"""Returns text of one line that Markdown and HTML show literally.

    Args:
        text: any text; see `visible`.

    Example:
        >>> escape("<b>5*</b>")
        '&lt;b&gt;5\\*&lt;/b&gt;'
    """
    marked = _SPECIAL.sub(lambda match: "\\" + match[0], visible(text))
    return html.escape(marked, quote=False)


def code(text: str) -> str:
    """Returns text of one line in the style of code.

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
    """Returns text of one line, with invisible characters made visible.

    Control characters and lone surrogates become replacement characters, and
    runs of white space become a space.
    """
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character).startswith("C")
        else character
        for character in re.sub(r"\s+", " ", text)
    )


def _longest_run(text: str) -> int:
    return max(map(len, _BACKTICKS.findall(text)), default=0)
