"""Distance between two sets of outputs, absolute and relative to spread."""

import math

import numpy as np

# Smallest spread counted, as a share of the outputs' size.
_LEAST_SPREAD = 1e-5


class Distance:
    """Differences between two sets of rows, added up batch by batch.

    Attributes:
        largest: float, the largest absolute difference.
        total: float, the sum of absolute differences.
        values: int, the number of values compared.
        lowest_cosine: float, the lowest cosine between a row and its
            counterpart; 0 if one of them is all zeros, 1 if both are.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.total = 0.0
        self.values = 0
        self.lowest_cosine = 1.0
        self._rows = 0
        self._errors = 0.0
        self._squares = 0.0
        # Column sums are taken relative to the first row, to keep precision.
        self._shift: np.ndarray | None = None
        self._sums = np.zeros(1)
        self._shifted_squares = np.zeros(1)

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Adds matching rows.

        Args:
            ours: float, (rows, columns), the reference.
            theirs: the same shape.
        """
        if not ours.size:
            return
        difference = np.abs(theirs - ours)
        # Python's `max` would drop NaN.
        self.largest = float(np.maximum(self.largest, difference.max()))
        self.total += float(difference.sum(dtype=np.float64))
        self.values += difference.size
        self._errors += _sum_of_squares(difference)
        self._squares += _sum_of_squares(ours)
        if self._shift is None:
            self._shift = ours[0].copy()
        shifted = ours - self._shift
        self._rows += len(ours)
        self._sums = self._sums + shifted.sum(axis=0, dtype=np.float64)
        self._shifted_squares = self._shifted_squares + np.square(shifted).sum(
            axis=0, dtype=np.float64
        )
        lowest = np.min(_cosines(ours, theirs))
        self.lowest_cosine = float(np.minimum(self.lowest_cosine, lowest))

    @property
    def spread_share(self) -> float:
        """The differences as a share of the spread of the reference.

        Formula:
            sqrt(sum (theirs - ours)**2 / sum (ours - mean of the column)**2)

        It is 1 for the best constant and more for any other, about 1.4 for
        rows in random order, 2 or more for the negative. A single row has no
        spread, so its size is used instead. Outputs that hardly vary are
        given a spread above the rounding of float32.
        """
        if self._errors == 0:
            return 0.0
        spread = self._squares
        if self._rows > 1:
            means = np.square(self._sums) / self._rows
            spread = float((self._shifted_squares - means).sum())
        spread = max(spread, _LEAST_SPREAD**2 * self._squares)
        return math.sqrt(self._errors / spread) if spread else math.inf


def _sum_of_squares(values: np.ndarray) -> float:
    return float(np.square(values).sum(dtype=np.float64))


def _cosines(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    products = (ours * theirs).sum(axis=1, dtype=np.float64)
    our_length, their_length = (
        np.linalg.norm(rows, axis=1) for rows in (ours, theirs)
    )
    lengths = our_length * their_length
    # Both are zero for a text without a known token.
    alike = our_length == their_length
    return np.where(
        lengths == 0, alike, products / np.where(lengths == 0, 1, lengths)
    )
