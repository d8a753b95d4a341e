"""Random orders whose places can be computed one by one."""

import math

import tensorflow as tf

from keras_distil.data.random_bits import below, mix, random_bits

# Increase it when the same seed would give another order: training states
# record it, and are not continued in another order.
ORDER_VERSION = 2
# Pairs of rounds. Two give orders without visible correlation from 1,000 items
# on; with six, all orders of 5 items are equally frequent.
_PAIRS = 6


# Autograph would take long and find nothing to convert.
@tf.autograph.experimental.do_not_convert
def shuffled(
    places: tf.Tensor, seed: int, epochs: tf.Tensor, count: int, order: int
) -> tf.Tensor:
    """Returns the items at some places of each epoch's order.

    Each (seed, epoch, order) has a permutation of 0 ... count - 1. Nothing is
    stored, so any place of any epoch costs the same. A place is written as
    two digits, and each round shifts one digit by a random function of the
    other and of a key (a Feistel network). Results of `count` or above go
    through all rounds again until they are below ("cycle walking"); with
    digits of a base near sqrt(count) they are few, about one in sqrt(count).

    The keys come from a hash of all parts of the seed, because neighbouring
    seeds and epochs must have unrelated orders.
    (`tf.raw_ops.RandomIndexShuffle` has four rounds by default, and below
    65,536 items it uses only 8 bits of each part of its seed: its epochs 0
    and 256 are the same.)

    Args:
        places: int64, (n,), from 0 to count - 1.
        seed: int.
        epochs: int64, (n,), the epoch of each place.
        count: int, from 1 to 2**62, the number of items.
        order: int, distinguishes several orders of one seed.

    Returns:
        int64, (n,).

    Reference:
        Black & Rogaway 2002, "Ciphers with arbitrary finite domains".
        Differs: a fast hash is the round function; it need not be secret.
    """
    # The square root, rounded up to an even number: if both bases were odd,
    # every order would be an even permutation.
    columns = 2 * (math.isqrt((count - 1) // 4) + 1)
    rows = -(-count // columns)
    same = tf.ones_like(places)
    parts = [seed * same, epochs, order * same, count * same]
    keys = random_bits(tf.stack(parts, axis=-1), 2 * _PAIRS)

    def two_rounds(
        done: tf.Tensor, place: tf.Tensor, walking: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        row, column = place // columns, place % columns
        key = 2 * (done % _PAIRS)
        row = (row + _draw(rows, column, keys[:, key])) % rows
        column = (column + _draw(columns, row, keys[:, key + 1])) % columns
        place = tf.where(walking, row * columns + column, place)
        done += 1
        return done, place, walking & ((done % _PAIRS > 0) | (place >= count))

    # A loop, because a graph of all rounds takes long to trace.
    return tf.while_loop(
        lambda done, place, walking: tf.reduce_any(walking),
        two_rounds,
        [tf.constant(0), places, tf.ones_like(places, tf.bool)],
    )[1]


def _draw(limit: int, digit: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    return below(limit, mix(tf.bitcast(digit, tf.uint64) ^ key))
