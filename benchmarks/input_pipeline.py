"""Prints how fast masked batches are made, in tokens a second.

Run with `python benchmarks/input_pipeline.py`; takes some seconds.
"""

import time

import numpy as np

from keras_distil.data import (
    SpecialTokens,
    masked_lm_dataset,
    rare_token_weights,
)

VOCABULARY_SIZE = 30_522
SPECIAL = SpecialTokens(
    pad_id=0, unknown_id=100, cls_id=101, sep_id=102, mask_id=103
)
TOKENS = 10_000_000  # a measurement


def measure(length: int, batch_size: int, weights: np.ndarray | None) -> None:
    """Prints the rates of one setting."""
    random = np.random.default_rng(0)
    rows = random.integers(1000, VOCABULARY_SIZE, (20_000, length))
    dataset = masked_lm_dataset(
        rows.astype(np.uint16),
        special=SPECIAL,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=batch_size,
        seed=0,
        token_weights=weights,
    )
    batches = iter(dataset)
    next(batches)
    wall, core = time.perf_counter(), time.process_time()
    steps = TOKENS // (length * batch_size)
    for _ in range(steps):
        next(batches)
    tokens = steps * length * batch_size
    wall = time.perf_counter() - wall
    core = time.process_time() - core
    print(
        f"length {length:4}, batch {batch_size:4}, "
        f"{'rare tokens favoured' if weights is not None else 'even':20}: "
        f"{tokens / wall / 1e6:5.2f} million tokens/s, "
        f"{tokens / core / 1e6:5.2f} a core"
    )


def main() -> None:
    """Measures usual settings."""
    weights = rare_token_weights(np.arange(VOCABULARY_SIZE))
    for length, batch_size in ((128, 8), (128, 64), (512, 32)):
        measure(length, batch_size, None)
        measure(length, batch_size, weights)


if __name__ == "__main__":
    main()
