"""Divergences of two softmaxes, with their gradients written out."""

from typing import Any

from keras import ops

Tensor = Any

# Below this log ratio, `exp(-r) - 1 + r` is computed from its series, because
# the subtraction would leave only rounding noise. The ninth power is below
# float32's resolution.
_SMALL_LOG_RATIO = 0.5
_SERIES = (1 / 2, -1 / 6, 1 / 24, -1 / 120, 1 / 720, -1 / 5040, 1 / 40320)


def softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last axis and its log normaliser, from a single exp.

    Args:
        logits: float32, (..., outputs).

    Returns:
        Both float32: (..., outputs) and (..., 1).
    """
    # `initial` only allows a batch without tokens.
    largest = ops.max(logits, axis=-1, keepdims=True, initial=float("-inf"))
    powers = ops.exp(logits - largest)
    total = ops.sum(powers, axis=-1, keepdims=True)
    return powers / total, largest + ops.log(total)


def divergence_of_softmaxes(p: Tensor, q: Tensor, ratio: Tensor) -> Tensor:
    """Sum over the last axis of `p * ratio`, with `ratio = log p - log q`.

    It is taken over `p * (ratio - 1) + q`, which is equal because `p` and `q`
    both sum to one.

    Args:
        p: float32, (..., outputs), probabilities.
        q: float32, the same shape.
        ratio: float32, the same shape; finite where `p` is 0.

    Returns:
        float32, (...,), in nats.
    """
    terms = ops.where(
        ops.abs(ratio) < _SMALL_LOG_RATIO,
        p * _exp_remainder(ratio),
        p * (ratio - 1.0) + q,
    )
    return ops.sum(terms, axis=-1)


def _exp_remainder(ratio: Tensor) -> Tensor:
    """`exp(-ratio) - 1 + ratio` for small ratios, by its series."""
    series = 0.0 * ratio
    for coefficient in reversed(_SERIES):
        series = series * ratio + coefficient
    return series * ratio * ratio
