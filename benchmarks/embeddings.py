"""Speed of sentence embedders, tokenisation included, and their scores.

The teacher in Keras; its student in Keras, LiteRT and ONNX; and a static table
by NumPy and `tokenizers`. Each runs in a process of its own with one thread,
and they take turns, so that a machine whose speed drifts is equally fast for
all. Texts are the sentences of a file of pairs, in its order, in batches of 64
and one at a time; if it has scores, the correlations of cosines with them are
measured as well.

    python benchmarks/embeddings.py STS-B/dev.tsv
    python benchmarks/embeddings.py STS-B/dev.tsv --student student.keras \
        --static static.keras --json embeddings.json

Without `--student` and `--static`, they are made of the teacher and not
trained, which changes no speed. Hardware: 2 cores. Duration: three minutes.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
# One turn of a contestant, per batch size.
SECONDS = 0.5
LENGTHS = [16, 32, 64, 128]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
Embed = Callable[[Sequence[str]], np.ndarray]


# === Contestants, each in a process of its own ===


def open_keras(path: str) -> Embed:
    """Opens an embedding model in TensorFlow."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from keras_distil import models

    model = models.load_embedding_model(path, dtype="float32")
    return lambda texts: model.encode_text(list(texts), batch_size=BATCH)


def open_litert(path: str) -> Embed:
    """Opens a LiteRT folder."""
    from keras_distil import edge

    return edge.Student(path).embed


def open_onnx(path: str) -> Embed:
    """Opens an ONNX folder; texts are padded to the longest of a batch."""
    import onnxruntime
    import tokenizers

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(Path(path) / "model.onnx"),
        options,
        providers=["CPUExecutionProvider"],
    )
    names = [each.name for each in session.get_inputs()]
    tokenizer = tokenizers.Tokenizer.from_file(
        str(Path(path) / "tokenizer.json")
    )
    tokenizer.enable_truncation(LENGTHS[-1])
    tokenizer.enable_padding()

    def embed(texts: Sequence[str]) -> np.ndarray:
        encoded = tokenizer.encode_batch_fast(list(texts))
        fed = {
            "token_ids": [each.ids for each in encoded],
            "padding_mask": [each.attention_mask for each in encoded],
            "segment_ids": [each.type_ids for each in encoded],
        }
        fed = {name: np.array(fed[name], np.int32) for name in names}
        return session.run(None, fed)[0]

    return embed


def open_static(path: str) -> Embed:
    """Opens a static table."""
    from keras_distil import edge

    return edge.StaticStudent(path).embed


OPENERS = {
    "keras": open_keras,
    "litert": open_litert,
    "onnx": open_onnx,
    "static": open_static,
}


def serve(runtime: str, path: str, texts_path: str) -> None:
    """Answers each line of standard input with a line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    texts = json.loads(Path(texts_path).read_text("utf-8"))
    embed = OPENERS[runtime](path)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "batch" in request:
            answer: Any = take_turn(embed, texts, **request)
        else:
            half = len(texts) // 2
            vectors = np.concatenate(
                [embed(texts[i : i + BATCH]) for i in range(0, 2 * half, BATCH)]
            )
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            answer = (vectors[:half] * vectors[half:]).sum(axis=1).tolist()
        print(json.dumps(answer), file=answers, flush=True)


def take_turn(
    embed: Embed, texts: list[str], batch: int, seconds: float
) -> dict[str, Any]:
    """Embeds batches for some time; returns texts, seconds and medians."""
    starts = itertools.cycle(range(0, len(texts) - batch + 1, batch))
    times, cpu = [], time.process_time()
    while sum(times) < seconds:
        start = next(starts)
        began = time.perf_counter()
        embed(texts[start : start + batch])
        times.append(time.perf_counter() - began)
    return {
        "texts": batch * len(times),
        "seconds": sum(times),
        "cpu_seconds": time.process_time() - cpu,
        "median": statistics.median(times),
    }


class Contestant:
    """A process that works only when it is asked."""

    def __init__(self, name: str, runtime: str, path: Path, texts: Path):
        self.name, self.path = name, path
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", runtime, path, texts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        self._answer()

    def ask(self, **request: Any) -> Any:
        """Sends a request; returns the answer."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended.")
        return json.loads(line)


# === What is measured ===


def read_pairs(path: Path) -> tuple[list[str], list[float]]:
    """Returns the first sentences, then the second ones, and the scores."""
    from keras_distil import evaluation

    pairs = evaluation.STSEvaluator(path)
    return [*pairs.first, *pairs.second], pairs.scores.tolist()


def make_contestants(
    arguments: argparse.Namespace, texts: list[str], folder: Path
) -> Iterator[tuple[str, str, Path]]:
    """Writes all models; yields names, runtimes and paths."""
    from keras_distil import export, models

    teacher = models.load_embedding_model(arguments.teacher)
    student = (
        models.initialize_student(teacher, 3)
        if arguments.student is None
        else models.load_embedding_model(arguments.student)
    )
    static = (
        models.static_embedding_model(teacher, texts, 256)
        if arguments.static is None
        else models.load_embedding_model(arguments.static)
    )
    for name, model in (("teacher", teacher), ("student", student)):
        path = folder / f"{name}.keras"
        model.save(path)
        yield f"{name}, Keras float32", "keras", path
    anything = export.Tolerance(1e9, 1e9, 0.0, 1.0, 1e9, -1.0)
    for precision in ("float32", "dynamic_int8"):
        path = folder / precision
        fitted = texts[:128] if precision == "dynamic_int8" else None
        export.export_litert(
            student,
            path,
            precision=precision,
            lengths=LENGTHS,
            representative=fitted,
            tolerance=anything,
        )
        yield f"student, LiteRT {precision}", "litert", path
    export.export_onnx(student, folder / "onnx")
    yield "student, ONNX float32", "onnx", folder / "onnx"
    export.export_static_table(static, folder / "static")
    yield "static table, int8", "static", folder / "static"


def size_mb(path: Path) -> float:
    """Returns the size of a model's file, in 1e6 bytes."""
    for name in ("student.tflite", "model.onnx", "vectors.bin", "."):
        if (path / name).is_file():
            return (path / name).stat().st_size / 1e6
    return path.stat().st_size / 1e6


def measure(
    contestants: list[Contestant], rounds: int
) -> dict[str, dict[str, float]]:
    """Lets the contestants take turns; returns medians over the rounds."""
    kept: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for each in contestants:
            many = each.ask(batch=BATCH, seconds=SECONDS)
            one = each.ask(batch=1, seconds=SECONDS)
            # The first round traces, and fills caches.
            if not number:
                continue
            found = kept.setdefault(each.name, {})
            for name, value in (
                ("texts_per_second", many["texts"] / many["seconds"]),
                ("texts_per_cpu_second", many["texts"] / many["cpu_seconds"]),
                ("latency_ms", 1e3 * one["median"]),
            ):
                found.setdefault(name, []).append(value)
    return {
        name: {key: statistics.median(values) for key, values in found.items()}
        for name, found in kept.items()
    }


def main() -> None:
    """Parses the options, measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--teacher", default="embedded")
    parser.add_argument("--student")
    parser.add_argument("--static")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    from scipy.stats import spearmanr

    texts, scores = read_pairs(arguments.pairs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        stored = folder / "texts.json"
        stored.write_text(json.dumps(texts), "utf-8")
        contestants = [
            Contestant(name, runtime, path, stored)
            for name, runtime, path in make_contestants(
                arguments, texts, folder
            )
        ]
        rows = measure(contestants, arguments.rounds)
        for each in contestants:
            rows[each.name]["size_mb"] = size_mb(each.path)
            cosines = each.ask()
            rows[each.name]["spearman"] = 100 * spearmanr(cosines, scores)[0]
            each.close()
    slowest = rows[contestants[0].name]["texts_per_cpu_second"]
    print("| model | MB | texts/s | x | ms, one text | Spearman |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        print(
            f"| {name} | {row['size_mb']:.1f} | {row['texts_per_second']:,.0f} "
            f"| {row['texts_per_cpu_second'] / slowest:.1f} "
            f"| {row['latency_ms']:.2f} | {row['spearman']:.2f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
