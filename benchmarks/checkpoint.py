"""The cost of training states, for BERT-base to 6 layers with AdamW.

python benchmarks/checkpoint.py
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_distil import Distiller, callbacks, losses, models

LENGTH = 128
BATCH = 8


class Clock(keras.callbacks.Callback):
    """Measures the seconds of each update, including a state before it."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts."""
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Records the time since the last update."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def main() -> None:
    """Prints one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    backbone = models.ExactBertBackbone(
        vocabulary_size=30522,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
    )
    teacher = models.ExactBertMaskedLM(backbone)
    student = models.initialize_student(teacher, 6)
    distiller = Distiller(teacher, student, losses.triple_loss())
    distiller.compile(keras.optimizers.AdamW(1e-4), clip_norm=1.0)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        # Every second update is followed by a state.
        state = callbacks.TrainingState(folder, every_steps=2)
        distiller.fit(
            batches(),
            steps_per_epoch=arguments.steps,
            callbacks=[state, clock],
            verbose=0,
        )
        size = sum(
            path.stat().st_size
            for path in max(Path(folder).iterdir()).iterdir()
        )
    # A state is written after the clock was read, so it counts with the next
    # update. The first two updates compile.
    plain = statistics.median(clock.seconds[3::2])
    saving = statistics.median(clock.seconds[2::2]) - plain
    print(f"update: {plain:.2f} s")
    print(f"training state: {saving:.2f} s, {size / 1e6:.0f} MB")
    # The defaults of `TrainingState` and of a recipe.
    for every in (200, 500):
        share = saving / (every * plain)
        print(f"every {every} updates: {100 * share:.2f}% of the time")


def batches() -> tf.data.Dataset:
    """Makes endless random batches whose iterator can be saved."""
    generator = np.random.default_rng(0)
    token_ids = generator.integers(1000, 30522, (BATCH, LENGTH), "int32")
    x = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    masked = (generator.random(token_ids.shape) < 0.15).astype("float32")
    return tf.data.Dataset.from_tensors((x, token_ids, masked)).repeat()


if __name__ == "__main__":
    main()
