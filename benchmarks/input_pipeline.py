"""Prints how fast masked batches are made, in tokens per second.

Run with `python benchmarks/input_pipeline.py`; it takes some seconds.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from keras_distil.data import (
    ShardedSequences,
    SpecialTokens,
    masked_lm_dataset,
    rare_token_weights,
)
from keras_distil.data.corpus.shards import write_shard

VOCABULARY_SIZE = 30_522
SPECIAL = SpecialTokens(
    pad_id=0, unknown_id=100, cls_id=101, sep_id=102, mask_id=103
)
TOKENS = 10_000_000  # per measurement


def sharded(rows: np.ndarray, folder: str) -> ShardedSequences:
    """Writes the rows to eight files."""
    pieces = np.array_split(rows, 8)
    paths = [Path(folder) / f"{number}" for number in range(len(pieces))]
    for path, piece in zip(paths, pieces, strict=True):
        write_shard(path, piece)
    return ShardedSequences(
        paths, list(map(len, pieces)), length=rows.shape[1], dtype=rows.dtype
    )


def measure(
    length: int, batch_size: int, weights: np.ndarray | None, where: str
) -> None:
    """Prints the rates of one setting."""
    random = np.random.default_rng(0)
    rows = random.integers(1000, VOCABULARY_SIZE, (20_000, length))
    rows = rows.astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        sequences = sharded(rows, folder) if where == "shards" else rows
        _measure(sequences, length, batch_size, weights, where)


def _measure(sequences, length, batch_size, weights, where) -> None:
    dataset = masked_lm_dataset(
        sequences,
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
        f"{where:6}, length {length:4}, batch {batch_size:4}, "
        f"{'rare tokens favoured' if weights is not None else 'even':20}: "
        f"{tokens / wall / 1e6:5.2f} million tokens/s, "
        f"{tokens / core / 1e6:5.2f} per core"
    )


def main() -> None:
    """Measures usual settings."""
    weights = rare_token_weights(np.arange(VOCABULARY_SIZE))
    for length, batch_size in ((128, 8), (128, 64), (512, 32)):
        for where in ("memory", "shards"):
            measure(length, batch_size, None, where)
            measure(length, batch_size, weights, where)


if __name__ == "__main__":
    main()
