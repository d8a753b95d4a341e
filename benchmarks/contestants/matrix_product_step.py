"""The rate of large matrix products, to which steps are compared."""

import time

import tensorflow as tf

from contestants.shapes import Shape
from contestants.turns import Turns

SIZE = 2048
PRODUCTS, REPEATS = 4, 4


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Answers every turn with FLOP/s by precision."""
    del shape, precision
    product = tf.function(tf.matmul)
    factors = tf.random.normal((SIZE, SIZE))
    by_precision = {
        "float32": factors,
        "mixed_bfloat16": tf.cast(factors, tf.bfloat16),
    }
    while True:
        turns.next_command()
        turns.answer(
            {
                name: max(rate(product, x) for _ in range(REPEATS))
                for name, x in by_precision.items()
            }
        )


def rate(product: tf.types.experimental.PolymorphicFunction, x: tf.Tensor):
    """Returns the FLOP/s of a few products."""
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        product(x, x)
    return PRODUCTS * 2 * SIZE**3 / (time.perf_counter() - started)
