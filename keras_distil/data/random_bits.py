"""Random bits that are a pure function of a seed of several parts."""

import tensorflow as tf

# Constants of the SplitMix64 generator (Steele et al. 2014).
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def mix(bits: tf.Tensor) -> tf.Tensor:
    """Scrambles uint64 bijectively."""
    shift = tf.bitwise.right_shift
    for amount, factor in ((30, _MIX_1), (27, _MIX_2)):
        bits ^= shift(bits, tf.constant(amount, tf.uint64))
        bits *= tf.constant(factor, tf.uint64)
    return bits ^ shift(bits, tf.constant(31, tf.uint64))


def random_bits(seed: tf.Tensor, draws: int | tf.Tensor) -> tf.Tensor:
    """Returns uint64 (..., draws) that depend on integers (..., parts).

    TensorFlow's stateless generators take one seed per call. Here every row
    of a batch has a seed, so a row's draws do not depend on the others, and a
    few vector operations draw all rows. All 64 bits of every part count, and
    neighbouring seeds give unrelated bits.
    """
    parts = tf.unstack(tf.bitcast(tf.cast(seed, tf.int64), tf.uint64), axis=-1)
    golden = tf.constant(_GOLDEN, tf.uint64)
    key = tf.zeros_like(parts[0])
    for part in parts:
        key = mix((key ^ part) + golden)
    counter = tf.cast(tf.range(draws), tf.uint64) + 1
    return mix(key[..., tf.newaxis] + counter * golden)


def below(limit: int, bits: tf.Tensor) -> tf.Tensor:
    """Turns uint64 into int64 that are uniform from 0 to `limit` - 1.

    Args:
        limit: int, from 1 to 2**32.
        bits: uint64, any shape. The upper half is used.
    """
    half = tf.constant(32, tf.uint64)
    upper = tf.bitwise.right_shift(bits, half)
    scaled = tf.bitwise.right_shift(upper * tf.constant(limit, tf.uint64), half)
    return tf.bitcast(scaled, tf.int64)
