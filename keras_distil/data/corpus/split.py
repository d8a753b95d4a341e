"""The split into training and held-out text, by content alone."""

import hashlib
import unicodedata


def content_digest(text: str) -> int:
    """Returns a 64-bit hash of a text, blind to case, width and spacing.

    Texts that differ only in letter case, in runs of white space or in
    compatibility forms (such as full-width letters) share a digest.

    Args:
        text: a paragraph.

    Returns:
        An integer from 0 to 2**64 - 1.

    Example:
        >>> content_digest("A  plain text") == content_digest("a Plain text")
        True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # A lone surrogate (possible in JSON) has no UTF-8 form.
    normalised = " ".join(folded.split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(
        hashlib.blake2b(normalised, digest_size=8).digest(), "big"
    )


def is_held_out(text: str, fraction: float) -> bool:
    """Checks whether a paragraph belongs to the held-out part.

    The answer depends only on the text and the fraction: not on a seed, the
    reading order, the other paragraphs or a library's version. A larger
    fraction holds out a superset.

    Args:
        text: a paragraph.
        fraction: float in [0, 1), the expected share of held-out paragraphs.

    Returns:
        True for held-out paragraphs, False for training ones.

    Raises:
        ValueError: if `fraction` is outside [0, 1).

    Example:
        >>> is_held_out("Any text at all.", 0.0)
        False
    """
    check_fraction(fraction)
    return digest_is_held_out(content_digest(text), fraction)


def digest_is_held_out(digest: int, fraction: float) -> bool:
    """Applies the rule of `is_held_out` to a known digest."""
    return digest < fraction * 2.0**64


def check_fraction(fraction: float) -> None:
    """Raises ValueError unless 0 <= `fraction` < 1."""
    if not 0.0 <= fraction < 1.0:
        raise ValueError(
            "`held_out_fraction` must be at least 0 and below 1. "
            f"Received: held_out_fraction={fraction}. "
            "A usual value is 0.05."
        )
