"""The rate of large matrix products on this device, by precision."""

import time
from typing import Any

# Some products, in turns, so that a machine whose speed drifts is equally fast
# for both.
_ROUNDS = 5


def matrix_product_flops(rows: int) -> dict[str, float]:
    """Times the product of two square matrices in each precision.

    Both are timed because no list of a processor's instructions tells which is
    faster: some emulate bfloat16, and environment variables can switch
    instructions off.

    Args:
        rows: int >= 1, rows and columns of the matrices.

    Returns:
        FLOP per second by the name of a precision, the best of some rounds.
    """
    import tensorflow as tf

    @tf.function
    def product(matrix: Any) -> Any:
        return tf.matmul(matrix, matrix)[0, 0]

    square = tf.fill((rows, rows), 0.01)
    matrices = {
        "float32": square,
        "mixed_bfloat16": tf.cast(square, tf.bfloat16),
    }
    fastest = dict.fromkeys(matrices, float("inf"))
    # The first round compiles.
    for timed in [False] + [True] * _ROUNDS:
        for precision, matrix in matrices.items():
            started = time.perf_counter()
            product(matrix).numpy()
            seconds = time.perf_counter() - started
            if timed:
                fastest[precision] = min(fastest[precision], seconds)
    return {name: 2.0 * rows**3 / each for name, each in fastest.items()}
