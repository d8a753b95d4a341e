"""What the errors of other libraries say, in one line."""

import re

_STYLE = re.compile(r"\x1b\[\d*m")
# Keras puts this line before the reason.
_FRAME = "Exception encountered when"


def first_line(error: Exception) -> str:
    """Returns the first line of an error that says what is wrong.

    It ends in a full stop and has at most some 300 characters.
    """
    text = _STYLE.sub("", str(error)).strip()
    if text[:1] == text[-1:] and text[:1] in ("'", '"'):
        # A KeyError is the representation of its key.
        text = text[1:-1]
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.startswith(_FRAME)
    ]
    line = (lines or [""])[0].rstrip(".:") or type(error).__name__
    return f"{line[:300]}."
