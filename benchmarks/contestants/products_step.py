"""Rates of matrix products by one library, to which steps are compared."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from contestants.shapes import Shape
from contestants.turns import Turns

# A product's factors are (rows, inner) and (inner, columns).
SQUARE = (2048, 2048, 2048)
_VOCABULARY_ROWS = 256
# Per product and turn. The best counts, as a busy moment says nothing of what
# the processor could do.
_REPEATS, _SECONDS = 3, 0.08
Product = Callable[[Any, Any], Any]


def product_sizes(shape: Shape) -> dict[str, tuple[int, int, int]]:
    """Returns the products that are measured, by name.

    Besides a square one these are what a step spends most on: the wide layer
    of an encoder on all of a batch, and one chunk of the logits.
    """
    sizes = shape.sizes
    tokens = shape.batch * shape.length
    rows = min(_VOCABULARY_ROWS, tokens)
    return {
        "square": SQUARE,
        "wide layer": (tokens, sizes.width, sizes.wide),
        "vocabulary": (rows, sizes.width, sizes.vocabulary),
    }


# === Libraries: their factors by precision, their product, their kernels ===


def numpy_products() -> tuple[dict[str, Callable], Product, str]:
    """NumPy's BLAS, in float32 alone."""
    import threadpoolctl

    used = ", ".join(
        f"{found['internal_api']} for {found.get('architecture', '?')}"
        for found in threadpoolctl.threadpool_info()
        if found["user_api"] == "blas"
    )
    return {"float32": np.float32}, np.matmul, used


def tensorflow_products() -> tuple[dict[str, Callable], Product, str]:
    """TensorFlow's own product."""
    return *_tensorflow(jit_compile=False), "oneDNN or Eigen"


def xla_products() -> tuple[dict[str, Callable], Product, str]:
    """TensorFlow's product, compiled by XLA."""
    return *_tensorflow(jit_compile=True), "XLA's"


def _tensorflow(*, jit_compile: bool) -> tuple[dict[str, Callable], Product]:
    import tensorflow as tf

    product = tf.function(tf.matmul, jit_compile=jit_compile)
    casts: dict[str, Callable] = {"float32": tf.constant}
    # Limited to AVX2, oneDNN has no such kernel, which ends the process.
    if not os.environ.get("ONEDNN_MAX_CPU_ISA"):
        casts["mixed_bfloat16"] = lambda x: tf.cast(x, tf.bfloat16)
    return casts, lambda one, other: product(one, other)[:1, :1].numpy()


def pytorch_products() -> tuple[dict[str, Callable], Product, str]:
    """PyTorch's product, in inference."""
    import torch

    torch.set_grad_enabled(False)
    casts: dict[str, Callable] = {"float32": torch.from_numpy}
    # Limited to AVX2, it takes minutes.
    if not os.environ.get("ONEDNN_MAX_CPU_ISA"):
        casts["mixed_bfloat16"] = lambda x: torch.from_numpy(x).bfloat16()
    return casts, torch.matmul, torch.backends.cpu.get_cpu_capability()


LIBRARIES = {
    "numpy": numpy_products,
    "tensorflow": tensorflow_products,
    "xla": xla_products,
    "pytorch": pytorch_products,
}


# === Measuring ===


def run(shape: Shape, precision: str, turns: Turns) -> None:
    """Answers every turn with FLOP/s by precision and product.

    Args:
        shape: whose products are measured besides the square one.
        precision: the name of a library, as it measures both precisions.
        turns: the turns of this process.
    """
    casts, product, kernels = LIBRARIES[precision]()
    generator = np.random.default_rng(0)
    sizes = product_sizes(shape)
    factors = {
        name: (
            generator.standard_normal((rows, inner), np.float32),
            generator.standard_normal((inner, columns), np.float32),
        )
        for name, (rows, inner, columns) in sizes.items()
    }
    prepared = {
        (chosen, name): tuple(map(cast, pair))
        for chosen, cast in casts.items()
        for name, pair in factors.items()
    }
    while True:
        turns.next_command()
        rates: dict[str, dict[str, float]] = {}
        for (chosen, name), pair in prepared.items():
            rows, inner, columns = sizes[name]
            seconds = min(_seconds(product, *pair) for _ in range(_REPEATS))
            found = rates.setdefault(chosen, {})
            found[name] = 2 * rows * inner * columns / seconds
        turns.answer({"rates": rates, "kernels": kernels})


def _seconds(product: Product, one: Any, other: Any) -> float:
    """Returns the mean seconds of as many products as a moment holds."""
    began, count = time.perf_counter(), 0
    while True:
        product(one, other)
        count += 1
        passed = time.perf_counter() - began
        if passed > _SECONDS:
            return passed / count
