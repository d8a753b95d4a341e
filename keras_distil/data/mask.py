"""Dynamic masking: which tokens to predict, as a pure function of a seed."""

import numpy as np
import tensorflow as tf

from keras_distil.data.random_bits import below, random_bits
from keras_distil.data.special_tokens import SpecialTokens


def _uniform(bits: tf.Tensor) -> tf.Tensor:
    """Turns uint64 into float32 strictly between 0 and 1."""
    top = tf.bitwise.right_shift(bits, tf.constant(41, tf.uint64))
    # 23 bits and half a step: exact in float32, never 0 or 1.
    return (tf.cast(top, tf.float32) + 0.5) * 2.0**-23


def rare_token_weights(
    token_counts: np.ndarray, *, exponent: float = 0.7
) -> np.ndarray:
    """Returns weights that make rare tokens more likely to be masked.

    Formula:
        weight = max(count, 1)**-exponent

    Args:
        token_counts: integers, (vocabulary,), occurrences in the corpus.
        exponent: float >= 0. 0 treats all tokens alike. Defaults to 0.7.

    Returns:
        float32, (vocabulary,), for `token_weights` of `mask_tokens`.

    Raises:
        ValueError: if `exponent` is negative.

    Reference:
        Lample & Conneau 2019, arXiv:1901.07291, section 3, subsampling of
        frequent outputs; Differs: 0.7 instead of a square root, as in the
        code of the DistilBERT authors.
    """
    if not exponent >= 0:
        raise ValueError(
            "`exponent` must not be negative; 0.7 is usual. "
            f"Received: exponent={exponent}."
        )
    counts = np.maximum(np.asarray(token_counts, np.float64), 1.0)
    return (counts**-exponent).astype(np.float32)


def mask_tokens(
    token_ids: tf.Tensor,
    seed: tf.Tensor,
    *,
    special: SpecialTokens,
    vocabulary_size: int,
    rate: float = 0.15,
    token_weights: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses tokens for masked language modelling and hides them.

    Of `n` non-special tokens, `floor(rate * n + u)` are chosen without
    replacement, with `u` uniform in (0, 1), and at least one: the expected
    share is exactly `rate` wherever `rate * n >= 1`. Chosen tokens become
    [MASK] (80%), stay (10%), or become a random non-special token (10%).

    Args:
        token_ids: integers, (..., length).
        seed: integers, (..., parts), at least one part: everything that the
            result depends on besides the tokens, row by row.
        special: the ids that are never chosen, including [MASK].
        vocabulary_size: int, exclusive upper limit of random tokens.
        rate: float in (0, 1], share of tokens to choose. Defaults to 0.15.
        token_weights: float, (vocabulary,), positive: the relative chances of
            tokens, see `rare_token_weights`. Equal if None. The number of
            chosen tokens does not depend on it.

    Returns:
        A pair: int32 (..., length), the ids that the model sees; float32
        (..., length), 1 at chosen positions, else 0.

    Raises:
        ValueError: if `rate` is outside (0, 1], or the vocabulary holds
            only special tokens.

    Reference:
        Devlin et al. 2018, arXiv:1810.04805, section 3.1.
        Differs: the number of chosen tokens varies by at most one among
        sequences of equal length.
    """
    _check(special, vocabulary_size, rate)
    token_ids = tf.cast(token_ids, tf.int32)
    length = tf.shape(token_ids)[-1]
    bits = random_bits(seed, 3 * length + 1)  # (..., 3 * length + 1)
    maskable = tf.ones_like(token_ids, tf.bool)
    for special_id in special.ids:
        maskable &= token_ids != special_id
    times = -tf.math.log(_uniform(bits[..., :length]))
    if token_weights is not None:
        times /= tf.gather(tf.cast(token_weights, tf.float32), token_ids)
    counts = _count_chosen(maskable, _uniform(bits[..., -1]), rate)
    selected = _select_first(times, maskable, counts)

    action = _uniform(bits[..., length : 2 * length])
    replacement = _draw_ordinary_tokens(
        bits[..., 2 * length : 3 * length], special, vocabulary_size
    )
    hidden = tf.where(action < 0.8, special.mask_id, token_ids)
    hidden = tf.where(action >= 0.9, replacement, hidden)
    masked_ids = tf.where(selected, hidden, token_ids)
    return masked_ids, tf.cast(selected, tf.float32)


def _check(special: SpecialTokens, vocabulary_size: int, rate: float) -> None:
    if not 0.0 < rate <= 1.0:
        raise ValueError(
            "`rate` must be above 0 and at most 1; 0.15 is usual. "
            f"Received: rate={rate}."
        )
    if vocabulary_size <= len(special.ids) or (
        vocabulary_size <= special.ids[-1]
    ):
        raise ValueError(
            "`vocabulary_size` must exceed every special token's id and "
            "leave room for ordinary tokens. Received: "
            f"vocabulary_size={vocabulary_size}, special ids {special.ids}."
        )


def _count_chosen(maskable: tf.Tensor, u: tf.Tensor, rate: float) -> tf.Tensor:
    """Returns the number of positions to choose, int32 (...,)."""
    available = tf.reduce_sum(tf.cast(maskable, tf.int32), axis=-1)
    count = tf.floor(rate * tf.cast(available, tf.float32) + u)
    count = tf.maximum(tf.cast(count, tf.int32), 1)
    return tf.minimum(count, available)


def _select_first(
    times: tf.Tensor, maskable: tf.Tensor, wanted: tf.Tensor
) -> tf.Tensor:
    """Marks the `wanted` smallest times among maskable positions.

    With independent exponential times of rates `w`, the order of arrival is
    a draw without replacement with weights `w`.
    """
    length = tf.shape(times)[-1]
    never = tf.constant(np.inf, tf.float32)
    times = tf.where(maskable, times, never)
    # Positive floats sort like their bits. The position breaks ties, so the
    # number of chosen positions is exact.
    order = tf.cast(tf.bitcast(times, tf.int32), tf.int64) * 2**32
    order = -(order + tf.cast(tf.range(length), tf.int64))
    most = tf.minimum(tf.maximum(tf.reduce_max(wanted), 1), length)
    earliest = tf.math.top_k(order, most).values  # (..., most)
    last = tf.gather(
        earliest,
        tf.maximum(wanted - 1, 0)[..., tf.newaxis],
        batch_dims=wanted.shape.rank,
    )
    return maskable & (order >= last)


def _draw_ordinary_tokens(
    bits: tf.Tensor, special: SpecialTokens, vocabulary_size: int
) -> tf.Tensor:
    """Draws uniform token ids below `vocabulary_size`, without special ids."""
    ordinary = vocabulary_size - len(special.ids)
    token = tf.cast(below(ordinary, bits), tf.int32)
    for special_id in special.ids:  # ascending
        token += tf.cast(token >= special_id, tf.int32)
    return token
