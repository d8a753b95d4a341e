"""Tokens per second and peak memory of a distillation step.

Each measurement runs in a process of its own, so that its peak memory is its
own, after the peak rate of matrix products has been measured in this one.

Run: python benchmarks/train_step.py [--steps 10] [--json figures.json]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# name: (layers, student layers, width, feed-forward width, heads)
MODELS = {
    "bert_base": (12, 6, 768, 3072, 12),
    "minilm": (6, 3, 384, 1536, 12),
}
VOCABULARY = 30522
PRECISIONS = ("float32", "mixed_bfloat16")


def matrix_peak(dtype: str) -> float:
    """FLOP/s of the fastest of a few large matrix products."""
    import tensorflow as tf

    a = tf.cast(tf.random.normal((2048, 2048)), dtype)
    product = tf.function(tf.matmul)
    product(a, a)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        for _ in range(4):
            product(a, a)
        best = max(best, 4 * 2 * 2048**3 / (time.perf_counter() - started))
    return best


def flops_per_token(model: str, length: int) -> float:
    """Useful FLOPs: teacher forward, student forward and backward, heads."""
    layers, student_layers, width, wide, _ = MODELS[model]
    layer = 2 * (4 * width**2 + 2 * width * wide) + 4 * length * width
    head = 2 * (width**2 + width * VOCABULARY)
    return (layers + 3 * student_layers) * layer + (1 + 3) * head


def measure(
    model: str,
    batch: int,
    length: int,
    precision: str,
    steps: int,
    jit_compile: bool,
) -> dict:
    """Times `steps` updates on random tokens without padding."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_distil import Distiller, losses, models

    layers, student_layers, width, wide, heads = MODELS[model]
    keras.utils.set_random_seed(0)
    teacher = models.ExactBertMaskedLM(
        models.ExactBertBackbone(
            vocabulary_size=VOCABULARY,
            num_layers=layers,
            num_heads=heads,
            hidden_dim=width,
            intermediate_dim=wide,
            dtype=precision,
        )
    )
    student = models.initialize_student(
        teacher, student_layers, dropout=0.0, dtype=precision
    )
    distiller = Distiller(teacher, student, losses.triple_loss(2.0, 5.0, 1.0))
    distiller.compile(
        keras.optimizers.AdamW(5e-4), clip_norm=5.0, jit_compile=jit_compile
    )
    generator = np.random.default_rng(0)
    token_ids = generator.integers(1000, VOCABULARY, (batch, length), "int32")
    masked = generator.random((batch, length)) < 0.15
    x = {
        "token_ids": np.where(masked, 103, token_ids).astype("int32"),
        "padding_mask": np.ones((batch, length), "int32"),
    }
    example = (x, token_ids, masked.astype("float32"))
    data = tf.data.Dataset.from_tensors(example).repeat()
    seconds = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, step, logs=None):
            self.started = time.perf_counter()

        def on_train_batch_end(self, step, logs=None):
            seconds.append(time.perf_counter() - self.started)

    distiller.fit(
        data, steps_per_epoch=steps + 2, verbose=0, callbacks=[Clock()]
    )
    middle = statistics.median(seconds[2:])
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "model": model,
        "batch": batch,
        "length": length,
        "precision": precision,
        "step_s": middle,
        "tokens_per_second": batch * length / middle,
        "useful_flops_per_second": flops_per_token(model, length)
        * batch
        * length
        / middle,
        "peak_memory_gb": peak_kb * 1024 / 1e9,
    }


def main() -> None:
    """Measures, prints a table and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["bert_base"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument(
        "--no-xla",
        action="store_true",
        help="leave jit_compile of the Distiller off",
    )
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(measure(*json.loads(arguments.worker))))
        return
    peaks = {
        "float32": matrix_peak("float32"),
        "mixed_bfloat16": matrix_peak("bfloat16"),
    }
    rows = []
    for model in arguments.models:
        for precision in PRECISIONS:
            job = [model, arguments.batch, arguments.length]
            done = subprocess.run(
                [
                    sys.executable,
                    __file__,
                    "--worker",
                    json.dumps(
                        [*job, precision, arguments.steps, not arguments.no_xla]
                    ),
                ],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            row = json.loads(done.stdout.splitlines()[-1])
            row["matrix_peak"] = peaks[precision]
            row["peak_fraction"] = (
                row["useful_flops_per_second"] / peaks[precision]
            )
            rows.append(row)
    print("| model | batch | precision | tokens/s | of peak | GB |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for row in rows:
        print(
            f"| {row['model']} | {row['batch']} x {row['length']} "
            f"| {row['precision']} | {row['tokens_per_second']:.0f} "
            f"| {100 * row['peak_fraction']:.0f}% "
            f"| {row['peak_memory_gb']:.1f} |"
        )
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
