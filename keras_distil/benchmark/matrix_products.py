"""The rate of large matrix products on this device, by precision.

`python -m keras_distil.benchmark.matrix_products PRECISION ROWS` prints that of
one precision.
"""

import os
import subprocess
import sys
from typing import Any

from keras_distil.utils.timing import fastest_seconds

PRECISIONS = ("float32", "mixed_bfloat16")
# With one of these, TensorFlow may choose a bfloat16 kernel that oneDNN then
# lacks, which ends the process.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def matrix_product_flops(rows: int) -> dict[str, float]:
    """Times the product of two square matrices in each precision.

    Both are timed because no list of a processor's instructions tells which is
    faster: some emulate bfloat16, and environment variables can switch
    instructions off.

    Args:
        rows: int >= 1, rows and columns of the matrices.

    Returns:
        FLOP per second by the name of a precision, the best of some rounds. A
        precision in which this device cannot multiply is left out.
    """
    if not any(os.environ.get(name) for name in _LIMITS):
        return _measure(PRECISIONS, rows)
    rates = _measure(PRECISIONS[:1], rows)
    limited = _measure_elsewhere(PRECISIONS[1], rows)
    return rates if limited is None else {**rates, PRECISIONS[1]: limited}


def _measure_elsewhere(precision: str, rows: int) -> float | None:
    """Measures one precision in another process; None if that process ends."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, precision, str(rows)],
        capture_output=True,
        text=True,
    )
    return None if done.returncode else float(done.stdout)


def _measure(precisions: tuple[str, ...], rows: int) -> dict[str, float]:
    import tensorflow as tf

    @tf.function
    def product(matrix: Any) -> Any:
        return tf.matmul(matrix, matrix)[0, 0]

    dtypes = {"float32": tf.float32, "mixed_bfloat16": tf.bfloat16}
    matrices = {x: tf.fill((rows, rows), 0.01) for x in precisions}
    matrices = {x: tf.cast(each, dtypes[x]) for x, each in matrices.items()}
    products = {
        x: (lambda m=m: product(m).numpy()) for x, m in matrices.items()
    }
    fastest = fastest_seconds(products)
    return {name: 2.0 * rows**3 / each for name, each in fastest.items()}


if __name__ == "__main__":
    (asked,) = _measure((sys.argv[1],), int(sys.argv[2])).values()
    print(asked)
