"""A teacher's largest logits, which stand in for all of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from keras import ops

Tensor = Any

# Number of temperatures for a range. The tests bound the interpolation error.
_NODES = 6


class TopLogits(NamedTuple):
    """The largest logits of each row, and the total weight of all others.

    The row's largest logit is subtracted, which does not change any softmax.

    Attributes:
        token_ids: int32, (rows, k), tokens of the largest logits, in
            descending order.
        logits: float32, (rows, k).
        tails: float32, (rows, temperatures): for each temperature, the log of
            the sum of `exp(logit / temperature)` over the other tokens.
            (rows, 0) if there are no others.
        temperatures: float32, (temperatures,), ascending.
    """

    token_ids: Tensor
    logits: Tensor
    tails: Tensor
    temperatures: Tensor

    def of_rows(self, choose: Callable[[Tensor], Tensor]) -> "TopLogits":
        """Returns these logits with `choose` applied to all parts with rows."""
        return TopLogits(
            choose(self.token_ids),
            choose(self.logits),
            choose(self.tails),
            self.temperatures,
        )

    def tail_at(self, temperature: Tensor) -> Tensor | None:
        """Returns the tails at a temperature within the range.

        The log of a sum of exponentials is smooth in the inverse temperature,
        and is interpolated in it by a polynomial, which is exact at the given
        temperatures.

        Args:
            temperature: scalar > 0.

        Returns:
            float32, (rows,); None if there are no other tokens.
        """
        count = self.tails.shape[-1]
        if count == 0:
            return None
        inverse = 1.0 / ops.cast(temperature, "float32")
        nodes = 1.0 / self.temperatures
        tail = ops.zeros_like(self.tails[:, 0])
        for here in range(count):
            factor = 1.0
            for other in range(count):
                if other != here:
                    factor *= (inverse - nodes[other]) / (
                        nodes[here] - nodes[other]
                    )
            tail += factor * self.tails[:, here]
        return tail


def tail_temperatures(lowest: float, highest: float) -> np.ndarray:
    """Returns the temperatures at which a range needs tails.

    Args:
        lowest: float > 0.
        highest: float, at least `lowest`.

    Returns:
        float32, ascending: the single temperature, or the ends of the range
        and Chebyshev points of the inverse temperature between them.
    """
    if lowest == highest:
        return np.array([lowest], "float32")
    angles = np.pi * np.arange(_NODES) / (_NODES - 1)
    middle = (1 / lowest + 1 / highest) / 2
    half = (1 / lowest - 1 / highest) / 2
    made = 1 / (middle + half * np.cos(angles))
    # Keeps the ends from being rounded beyond the range.
    made[[0, -1]] = lowest, highest
    return made.astype("float32")
