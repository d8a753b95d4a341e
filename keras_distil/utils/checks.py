"""Checks of arguments."""

import codecs
import operator
import re

# A name, perhaps a configuration, perhaps a version; no namespace.
_TFDS_NAME = re.compile(
    r"[a-z]\w*(/[\w+.-]+)?(:(\d+|\*)(\.(\d+|\*)){2})?",
    re.ASCII | re.IGNORECASE,
)


def check_number(name: str, value: float) -> float:
    """Checks that a number is finite, and returns it as a float.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"`{name}` must be a number. Received: {name}={value!r}."
        )
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value}.")
    return float(value)


def check_count(name: str, value: int, least: int = 1) -> int:
    """Checks a whole number of things; NumPy's integers are taken, too.

    Args:
        name: of the argument.
        value: what it was given.
        least: the smallest number that is allowed.

    Returns:
        The number as an int.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(
            f"`{name}` must be an integer. Received: {name}={value!r}."
        )
    if number < least:
        raise ValueError(
            f"`{name}` must be at least {least}. Received: {name}={value}."
        )
    return number


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
    # Unknown names, names with a null character, and codecs of bytes.
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


def check_tfds_name(name: str) -> None:
    """Checks that a data set's name cannot make TFDS run foreign code.

    A name with a namespace (`huggingface:`, `kubric:` and others) makes TFDS
    download and import code.

    Raises:
        ValueError: if it is not `name[/config][:version]`.
    """
    if not _TFDS_NAME.fullmatch(name):
        raise ValueError(
            "`name` must be the name of a TFDS data set, "
            "`name[/config][:version]` with a version such as 1.0.0. "
            "Namespaces are refused: TFDS would download and run code. "
            f"Received: name={name!r}."
        )
