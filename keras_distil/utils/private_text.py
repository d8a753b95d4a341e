"""What should not be read over a shoulder: secrets, and where one lives."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MASK = "***"
# The last word of an option's or a key's name.
_SECRET = re.compile(
    r"(^|[._-])(token|secret|key|password|passwd)s?$", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Whether an option or a key is named like something to keep secret.

    Example:
        >>> is_secret("--api-key"), is_secret("rare_token_exponent")
        (True, False)
    """
    return _SECRET.search(name) is not None


def without_home(text: str) -> str:
    """Text in which `~` stands for the home directory."""
    home = str(Path.home())
    if home == "/":
        return text
    return re.sub(rf"{re.escape(home)}(?=/|$)", "~", text)


def shown_command(words: Sequence[str]) -> list[str]:
    """The words of a command, as they may be kept and shown.

    The values of options that are named like secrets are masked, also behind
    `--set KEY=VALUE`, and home directories are shortened.

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
        shown.append(without_home(word))
    return shown


def shown_values(values: Any) -> Any:
    """Nested values of a recipe, as they may be kept and shown.

    Args:
        values: dicts, lists and what JSON has.
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
    return without_home(values) if isinstance(values, str) else values
