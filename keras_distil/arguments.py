"""Checks of what functions are given."""

import codecs


def check_number(name: str, value: float) -> float:
    """A finite number as a float.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"`{name}` must be a number. Received: {name}={value!r}."
        )
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value}.")
    return float(value)


def check_encoding(encoding: str) -> None:
    """Checks that files in an encoding can be read line by line.

    Raises:
        ValueError: if it is unknown, or does not write the end of a line as
            UTF-8 does.
    """
    try:
        name = codecs.lookup(encoding).name
        # A byte order mark is dropped when the file is read.
        ends = "\n".encode("utf-8" if name == "utf-8-sig" else name)
    # Unknown names, those with a null character, and codecs of bytes.
    except (LookupError, ValueError):
        raise ValueError(
            "`encoding` must be the name of a text encoding that Python "
            "knows, such as utf-8, latin-1 or cp1252. Received: "
            f"encoding={encoding!r}."
        ) from None
    if ends != b"\n":
        raise ValueError(
            f"Files in {encoding} cannot be read line by line. Convert them "
            f"first: iconv -f {encoding} -t UTF-8 FILE > FILE.txt. Received: "
            f"encoding={encoding!r}."
        )
