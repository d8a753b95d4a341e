"""How many examples of each batch come from each of several sets.

All numbers are whole and follow from the number of a batch alone, so a stream
of mixed batches can be entered anywhere.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

# Products of two numbers below it fit 64 bits.
_MOST = 2**31 - 1


def find_shares(
    counts: Sequence[int], given: Sequence[float | None]
) -> list[Fraction]:
    """Returns the share of each set in every batch.

    Sets without a given share divide what is left in proportion to their
    numbers of examples.

    Args:
        counts: int >= 1, numbers of examples.
        given: float in (0, 1), the share of each set; None if it is not given,
            as is the first.

    Returns:
        Exact shares, in the order of the sets, with a sum of 1.

    Raises:
        ValueError: if the given shares leave nothing for the first set.

    Example:
        >>> [str(share) for share in find_shares([20, 40], [None, None])]
        ['1/3', '2/3']
        >>> [str(share) for share in find_shares([20, 40], [None, 0.1])]
        ['9/10', '1/10']
    """
    # As decimals, because 0.1 means a tenth.
    exact = [None if x is None else Fraction(str(x)) for x in given]
    left = Fraction(1)
    left -= sum(share for share in exact if share is not None)
    if left <= 0:
        raise ValueError(
            "Shares of a batch must leave something for the labelled "
            f"examples: their sum must be below 1. Received: {list(given)}."
        )
    open_count = sum(
        count
        for count, share in zip(counts, exact, strict=True)
        if share is None
    )
    return [
        left * count / open_count if share is None else share
        for count, share in zip(counts, exact, strict=True)
    ]


def split_examples(examples: Any, shares: Sequence[Fraction]) -> list[Any]:
    """Splits the first examples of a stream among the sets.

    Each set gets its share, rounded down, of what the sets before it leave,
    and the last gets the rest. So no number ever falls from one batch to the
    next, and all are within 2 of the exact share, however long the stream is.

    Args:
        examples: int >= 0, or an int64 tensor, the number of examples from the
            beginning of the stream.
        shares: as from `find_shares`.

    Returns:
        How many of them belong to each set, with a sum of `examples`.

    Example:
        >>> thirds = find_shares([1, 1, 1], [None] * 3)
        >>> [split_examples(4 * batch, thirds) for batch in (0, 1, 2, 3)]
        [[0, 0, 0], [1, 1, 2], [2, 3, 3], [4, 4, 4]]
    """
    numbers = []
    left = Fraction(1)
    for share in shares[:-1]:
        numbers.append(_round_down(examples, share / left))
        examples = examples - numbers[-1]
        left -= share
    return [*numbers, examples]


def count_steps(
    counts: Sequence[int], given: Sequence[float | None], batch_size: int
) -> int:
    """Returns the number of batches that hold the first set once.

    Args:
        counts: as for `find_shares`.
        given: as for `find_shares`.
        batch_size: int >= 1, examples per batch.
    """
    share = find_shares(counts, given)[0] * batch_size
    return -(-counts[0] * share.denominator // share.numerator)


def _round_down(count: Any, ratio: Fraction) -> Any:
    """Returns a part of a number, without a product that overflows."""
    ratio = ratio.limit_denominator(_MOST)
    whole, rest = count // ratio.denominator, count % ratio.denominator
    return whole * ratio.numerator + (
        rest * ratio.numerator // ratio.denominator
    )
