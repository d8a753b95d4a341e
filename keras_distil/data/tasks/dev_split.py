"""The development part of a training set, chosen by the content of its rows."""

import hashlib
from collections.abc import Sequence

import numpy as np

# Share of the development rows whose texts may also be training rows.
MOST_SHARED = 0.05


def text_digests(
    first: Sequence[str], second: Sequence[str] | None = None
) -> np.ndarray:
    """Returns a hash of each text, or of each pair, blind to letter case.

    White space at the ends does not count either.

    Args:
        first: the texts.
        second: the other text of each pair, or None.

    Returns:
        uint64, (texts,).

    Raises:
        UnicodeEncodeError: if a text holds half a character.

    Example:
        >>> one, other = text_digests(["A text", " a text "])
        >>> bool(one == other)
        True
    """
    texts = [text.strip().casefold() for text in first]
    if second is not None:
        pairs = zip(texts, second, strict=True)
        texts = [f"{one}\0{other.strip().casefold()}" for one, other in pairs]
    return digests_of(texts)


def digests_of(texts: Sequence[str]) -> np.ndarray:
    """Returns a hash of each text as it is, uint64, (texts,)."""
    blake2b = hashlib.blake2b
    digests = [blake2b(x.encode(), digest_size=8).digest() for x in texts]
    return np.frombuffer(b"".join(digests), "<u8")


def choose_dev(
    digests: np.ndarray, fraction: float, strata: np.ndarray | None = None
) -> np.ndarray:
    """Chooses the rows to hold out: of each class the smallest hashes.

    The choice depends on the rows alone, not on their order or on a seed. Rows
    with equal texts stay together; they belong to the first of their classes.
    Of each class one text at least is chosen and one is left, if it has two.

    Args:
        digests: uint64, (rows,), as from `text_digests`.
        fraction: float in (0, 1), share of the rows of each class.
        strata: int, (rows,), classes; None for a single one.

    Returns:
        bool, (rows,), True for the rows to hold out.
    """
    # Sorted by hash.
    groups, group_of, counts = np.unique(
        digests, return_inverse=True, return_counts=True
    )
    classes = np.zeros(len(groups), np.int64)
    if strata is not None:
        classes[:] = np.iinfo(np.int64).max
        np.minimum.at(classes, group_of, strata.astype(np.int64))
    chosen = np.zeros(len(groups), bool)
    order = np.argsort(classes, kind="stable")
    ends = np.flatnonzero(np.diff(classes[order])) + 1
    for places in np.split(order, ends):
        if len(places) < 2:
            continue
        before = np.cumsum(counts[places]) - counts[places]
        wanted = max(1, round(fraction * int(counts[places].sum())))
        chosen[places] = before < wanted
        chosen[places[-1]] = False
    return chosen[group_of]


def check_shared(
    train: np.ndarray, dev: np.ndarray, names: tuple[str, str]
) -> list[str]:
    """Counts the texts that two parts of a data set share.

    Args:
        train: uint64, hashes of the training rows.
        dev: uint64, hashes of the other part's rows.
        names: the two parts, for messages.

    Returns:
        A line that says how many there are; none if there are none.

    Raises:
        ValueError: if more than 5% of the other part's rows are shared.
    """
    shared = int(np.isin(dev, train).sum())
    if not shared:
        return []
    said = (
        f"{shared:,} of the {len(dev):,} rows of {names[1]} have the text of a "
        f"row of {names[0]}"
    )
    if shared > MOST_SHARED * len(dev):
        raise ValueError(
            f"{said}: a score on them would be one of memory. At most "
            f"{MOST_SHARED:.0%} may be shared; remove them from one of the "
            "files."
        )
    return [f"{said}."]
