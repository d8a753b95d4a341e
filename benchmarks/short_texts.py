"""Fine-tuning on short texts: examples and useful FLOPs per second.

A fine-tuning step on sentences is small: matrices of a few hundred rows, and
an update of all weights after each. This measures the step of the runs'
fine-tuning on texts of a file, batches of 32, for the embedded teacher alone
and for its student of 3 layers that learns from it; each precision in a process
of its own, all after one another, several rounds.

Useful FLOPs are those of the encoders' matrix products with weights, two for
each weight and token, and twice as many again for gradients.

    python benchmarks/short_texts.py FILE.tsv --column sentence

Hardware: 2 CPU cores. Duration: four minutes.
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np

from keras_distil import data, losses, models
from keras_distil.runs import trainers

BATCH, LENGTH, WARM_UP = 32, 128, 20
MODELS = ("teacher", "student")
PRECISIONS = ("float32", "mixed_bfloat16")
_CHILD = "SHORT_TEXTS_CHILD"


def read_texts(path: Path, column: str, most: int) -> list[str]:
    """Reads a column of a TSV file without quoting, as GLUE's are."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if column not in (rows.fieldnames or ()):
            raise SystemExit(
                f"{path} has no column {column!r}. Received: {rows.fieldnames}."
            )
        return [row[column] for row, _ in zip(rows, range(most), strict=False)]


def measure(model: str, precision: str, arguments: argparse.Namespace) -> None:
    """Trains; prints seconds and tokens of each update after the warm-up."""

    class Clock(keras.callbacks.Callback):
        """Notes how long each update took."""

        def __init__(self) -> None:
            super().__init__()
            self.begun, self.seconds = 0.0, []

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self.begun = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.seconds.append(time.perf_counter() - self.begun)

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    texts = read_texts(arguments.file, arguments.column, 20_000)
    tokenizer = data.load_tokenizer(models.checkpoint_directory("embedded"))
    labels = np.arange(len(texts)) % 2
    examples = data.encode_examples(
        tokenizer, texts, labels=labels, max_length=LENGTH
    )
    updates = WARM_UP + arguments.updates
    batches = data.task_dataset(examples, batch_size=BATCH, seed=0)
    teacher = models.task_model(
        models.load_teacher("embedded"), "classification", 2
    )
    optimizer = trainers.make_optimizer(
        learning_rate=1e-4, steps=updates, warmup_steps=10, weight_decay=0.01
    )
    settings = {"clip_norm": 1.0, "jit_compile": True}
    if model == "teacher":
        trainer = trainers.task_trainer(
            teacher, optimizer, [losses.LabelCrossentropy()], **settings
        )
    else:
        trainer = trainers.task_trainer(
            models.initialize_student(teacher, 3),
            optimizer,
            losses.task_loss("classification"),
            teacher=teacher,
            **settings,
        )
    clock = Clock()
    trainer.fit(
        batches,
        steps_per_epoch=updates,
        epochs=1,
        verbose=0,
        callbacks=[clock],
    )
    tokens = [
        int(x["padding_mask"].numpy().sum()) for x, *_ in batches.take(updates)
    ]
    flops = 6 * weights_of(trainer.student)
    if model == "student":
        flops += 2 * weights_of(teacher)
    seconds, tokens = clock.seconds[WARM_UP:], tokens[WARM_UP:]
    print(
        BATCH * len(seconds) / sum(seconds),
        sum(tokens) / sum(seconds),
        flops * sum(tokens) / sum(seconds) / 1e9,
        1e3 * statistics.median(seconds),
    )


def weights_of(model: keras.Model) -> int:
    """Returns how many weights multiply each token in an encoder's layers."""
    return sum(
        math.prod(weight.shape)
        for layer in model.backbone.transformer_layers
        for weight in layer.weights
        if weight.name == "kernel"
    )


def main() -> None:
    """Measures everything in turns, and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE.tsv")
    parser.add_argument("--column", default="sentence")
    parser.add_argument("--updates", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    child = os.environ.get(_CHILD)
    if child:
        measure(*child.split(), arguments)
        return
    read_texts(arguments.file, arguments.column, 1)
    kinds = [(x, y) for x in MODELS for y in PRECISIONS]
    found: dict[tuple[str, str], list[list[float]]] = {x: [] for x in kinds}
    print(f"About {len(kinds) * arguments.rounds / 3:.0f} minutes.")
    for _ in range(arguments.rounds):
        for kind in kinds:
            done = subprocess.run(
                [sys.executable, *sys.argv],
                env={
                    **os.environ,
                    "TF_CPP_MIN_LOG_LEVEL": "2",
                    _CHILD: " ".join(kind),
                },
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[kind].append([float(x) for x in done.stdout.split()])
    print("| model | precision | examples/s | tokens/s | GFLOP/s | ms |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for (model, precision), rounds in found.items():
        medians = [statistics.median(x) for x in zip(*rounds, strict=True)]
        cells = " | ".join(f"{x:,.0f}" for x in medians)
        print(f"| {model} | {precision} | {cells} |")


if __name__ == "__main__":
    main()
