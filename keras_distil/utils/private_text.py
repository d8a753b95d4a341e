"""Removal of private text: secrets and home directories."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MASK = "***"
# The last word in the name of an option or a key.
_SECRET = re.compile(
    r"(^|[._-])(token|secret|key|password|passwd)s?$", re.IGNORECASE
)
# A secret within a text, as in the query of a URL, and a URL's password.
_SECRET_WITHIN = re.compile(
    r"((?:^|[?&;\s])[\w.-]*(?:token|secret|key|password|passwd)s?=)[^&;\s]+"
    r"|(://[^/:@\s]+:)[^/@\s]+(?=@)",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Checks whether an option or a key is named like a secret.

    Example:
        >>> is_secret("--api-key"), is_secret("rare_token_exponent")
        (True, False)
    """
    return _SECRET.search(name) is not None


def without_home(text: str) -> str:
    """Replaces the home directory by `~` in a text."""
    home = str(Path.home())
    if home == "/":
        return text
    return re.sub(rf"{re.escape(home)}(?=/|$)", "~", text)


def shown_text(text: str) -> str:
    """Masks secrets in a text and shortens home directories.

    Example:
        >>> shown_text("https://me:abc@x.org/?api_key=abc&page=2")
        'https://me:***@x.org/?api_key=***&page=2'
    """
    masked = _SECRET_WITHIN.sub(
        lambda found: (found[1] or found[2]) + MASK, text
    )
    return without_home(masked)


def shown_command(words: Sequence[str]) -> list[str]:
    """Returns the words of a command in a form that may be stored and shown.

    The values of options that are named like secrets are masked, including
    those of `--set KEY=VALUE`, and home directories are shortened.

    Args:
        words: as in `sys.argv`.
    """
    shown = []
    masked_next = False
    for word in words:
        if masked_next:
            shown.append(MASK)
            masked_next = False
            continue
        name, equals, _ = word.partition("=")
        if equals and is_secret(name):
            word = f"{name}={MASK}"
        elif word.startswith("-") and is_secret(word):
            masked_next = True
        shown.append(shown_text(word))
    return shown


def shown_values(values: Any) -> Any:
    """Returns nested values of a recipe that may be stored and shown.

    Args:
        values: dicts, lists and JSON values.
    """
    if isinstance(values, dict):
        return {
            key: MASK
            if is_secret(str(key)) and isinstance(value, str)
            else shown_values(value)
            for key, value in values.items()
        }
    if isinstance(values, list):
        return [shown_values(value) for value in values]
    return shown_text(values) if isinstance(values, str) else values
