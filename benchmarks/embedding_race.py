"""Distilling sentence embeddings, beside sentence-transformers' method.

Its method, written afresh from its description (Reimers and Gurevych 2020,
arXiv:2004.09813, and the documentation's "layer reduction"), in PyTorch on
Hugging Face's models: the student keeps every second layer of the teacher and
learns the teacher's vectors by their mean squared difference, with AdamW, a
warm-up and a linear decay. The teacher's vectors are computed once. Ours has
the same layers, vectors, loss, batches in the same order, and number of
updates. Both train in turns in processes of their own, so that a machine whose
speed drifts is equally fast for both; then both students are scored.

    python benchmarks/embedding_race.py --texts FOLDER --output FOLDER \
        --sts STS-B/dev.tsv --squad SQUAD

Needs PyTorch and transformers. FOLDER of texts holds *.txt, a paragraph a
line. SQUAD holds train.json and dev.json: a question of the latter is to find
its paragraph among those of both.
"""

import argparse
import itertools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = [0, 2, 4]
LEARNING_RATE = 1e-4  # sentence-transformers' example
WEIGHT_DECAY = 0.01
# PyTorch divides the second moment by its bias correction before it adds
# epsilon, Keras afterwards, which makes an equal one larger, thirty times in
# the first update. The gradients of this loss are as small as that.
EPSILON = 1e-6
KERAS_EPSILON = 1e-8
MAX_NORM = 1.0
_DATA, _VECTORS = "texts.npz", "vectors.npy"


# === The data ===


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the texts' token ids and the teacher's vectors of them."""
    from keras_distil import data, models

    folder: Path = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _VECTORS).exists():
        return
    teacher = models.load_embedding_model("embedded")
    lines = itertools.chain.from_iterable(
        path.read_text(encoding="utf-8").splitlines()
        for path in sorted(Path(arguments.texts).glob("*.txt"))
    )
    texts = sorted({line for line in lines if len(line) > 20})
    order = np.random.default_rng(0).permutation(len(texts))
    count = arguments.batch_size * arguments.updates
    texts = [texts[place] for place in np.resize(order, count)]
    encoded = data.encode_examples(
        teacher.preprocessor.tokenizer, texts, max_length=arguments.max_length
    )
    vectors = teacher.encode_tokens(encoded, batch_size=64, verbose=1)
    np.savez(folder / _DATA, ids=encoded.token_ids, starts=encoded.starts)
    np.save(folder / _VECTORS, vectors)


def read_batches(
    arguments: argparse.Namespace,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields token ids, (batch, length), their mask, and vectors."""
    stored = np.load(arguments.output / _DATA)
    ids, starts = stored["ids"], stored["starts"]
    vectors = np.load(arguments.output / _VECTORS, mmap_mode="r")
    for begin in range(0, len(vectors), arguments.batch_size):
        rows = slice(begin, begin + arguments.batch_size)
        lengths = np.diff(starts[begin : rows.stop + 1])
        mask = np.arange(lengths.max()) < lengths[:, np.newaxis]
        token_ids = np.zeros(mask.shape, np.int32)
        token_ids[mask] = ids[starts[begin] : starts[begin + len(lengths)]]
        yield token_ids, mask.astype(np.int32), np.array(vectors[rows])


# === The contestants ===


class Blocks:
    """Lets updates run in blocks, each after a line on standard input."""

    def __init__(self, size: int) -> None:
        self._size, self._count, self._begun = size, 0, 0.0

    def before_update(self) -> None:
        """Returns when the next update may begin."""
        if self._count % self._size == 0:
            self._wait()
        self._count += 1

    def end(self) -> None:
        """Tells the time of the last block."""
        print(time.perf_counter() - self._begun, flush=True)

    def _wait(self) -> None:
        if self._count:
            self.end()
        if not sys.stdin.readline():
            raise SystemExit
        self._begun = time.perf_counter()


def train_ours(arguments: argparse.Namespace, blocks: Blocks) -> Path:
    """Trains with keras_distil; returns the student's file."""
    import keras
    import tensorflow as tf

    from keras_distil import Distiller, losses, models, schedules

    keras.config.set_dtype_policy(arguments.precision)
    teacher = models.load_embedding_model("embedded")
    student = models.initialize_student(
        teacher, len(LAYERS), layers=LAYERS, dropout=0.0
    )
    distiller = Distiller(teacher, student, [losses.VectorMeanSquaredError()])
    warmup = arguments.updates // 10
    decay = schedules.Linear(LEARNING_RATE, 0.0, arguments.updates - warmup)
    distiller.compile(
        keras.optimizers.AdamW(
            schedules.Warmup(decay, warmup),
            weight_decay=WEIGHT_DECAY,
            epsilon=KERAS_EPSILON,
        ),
        clip_norm=MAX_NORM,
    )

    def batches() -> Iterator[Any]:
        for token_ids, mask, vectors in read_batches(arguments):
            yield {"token_ids": token_ids, "padding_mask": mask}, vectors

    ids = tf.TensorSpec([None, None], tf.int32)
    width = np.load(arguments.output / _VECTORS, mmap_mode="r").shape[1]
    dataset = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            {"token_ids": ids, "padding_mask": ids},
            tf.TensorSpec([None, width], tf.float32),
        ),
    )
    turns = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_, **__: blocks.before_update()
    )
    distiller.fit(
        dataset.prefetch(2),
        steps_per_epoch=arguments.updates,
        verbose=0,
        callbacks=[turns],
    )
    blocks.end()
    path = arguments.output / "keras_distil.keras"
    student.save(path)
    return path


def train_pytorch(arguments: argparse.Namespace, blocks: Blocks) -> Path:
    """Trains by sentence-transformers' method; returns the student's folder."""
    import torch
    import transformers

    from keras_distil.models.embedded import embedded_directory

    torch.manual_seed(0)
    source = embedded_directory()
    student = transformers.BertModel.from_pretrained(
        source,
        add_pooling_layer=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    ).train()
    student.encoder.layer = torch.nn.ModuleList(
        [student.encoder.layer[place] for place in LAYERS]
    )
    student.config.num_hidden_layers = len(LAYERS)
    decayed = [x for x in student.parameters() if x.ndim > 1]
    others = [x for x in student.parameters() if x.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        eps=EPSILON,
    )
    rate = transformers.get_linear_schedule_with_warmup(
        optimizer, arguments.updates // 10, arguments.updates
    )
    is_bfloat16 = arguments.precision == "mixed_bfloat16"
    for token_ids, mask, vectors in read_batches(arguments):
        blocks.before_update()
        real = torch.from_numpy(mask)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            states = student(
                input_ids=torch.from_numpy(token_ids).long(),
                attention_mask=real,
            ).last_hidden_state
        summed = (states.float() * real[..., None]).sum(1)
        means = summed / real.sum(1, keepdim=True)
        found = torch.nn.functional.normalize(means, dim=1)
        loss = torch.nn.functional.mse_loss(found, torch.from_numpy(vectors))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), MAX_NORM)
        optimizer.step()
        rate.step()
    blocks.end()
    folder = arguments.output / "pytorch"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    student.save_pretrained(folder)
    return folder


TRAIN = {"keras_distil": train_ours, "pytorch": train_pytorch}


# === The race ===


def race(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Lets the contestants train in turns.

    Returns:
        Seconds of each block of updates, by contestant. The first blocks
        compile.
    """
    processes = {
        name: subprocess.Popen(
            [sys.executable, *sys.argv, "--contestant", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in TRAIN
    }
    seconds: dict[str, list[float]] = {name: [] for name in TRAIN}
    blocks = arguments.updates // arguments.block
    for number in range(blocks):
        for name, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            seconds[name].append(float(process.stdout.readline()))
        shown = ", ".join(
            f"{name} {x[-1]:.1f} s" for name, x in seconds.items()
        )
        print(f"block {number + 1} of {blocks}: {shown}", flush=True)
    for process in processes.values():
        process.communicate()
    return seconds


def score(source: Path, arguments: argparse.Namespace) -> list[float]:
    """Returns the scores of a student, 0 to 100."""
    from keras_distil import evaluation, models

    model = models.load_embedding_model(source, dtype="float32")
    found = []
    if arguments.sts:
        similarity = evaluation.STSEvaluator(arguments.sts)
        found.append(100.0 * similarity.evaluate(model)["spearman"])
    if arguments.squad:
        retrieval = evaluation.RetrievalEvaluator.from_squad(
            arguments.squad / "dev.json", [arguments.squad / "train.json"]
        )
        found.append(100.0 * retrieval.evaluate(model)["ndcg@10"])
    return found


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", required=True, help="folder of *.txt")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sts", type=Path, help="a TSV of STS-B")
    parser.add_argument("--squad", type=Path, help="folder of SQuAD's files")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--block", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--contestant", choices=list(TRAIN))
    return parser.parse_args()


def main() -> None:
    """Runs the command line."""
    arguments = parse()
    if arguments.contestant:
        train = TRAIN[arguments.contestant]
        train(arguments, Blocks(arguments.block))
        return
    prepare(arguments)
    seconds = race(arguments)
    columns = ["seconds per update"]
    columns += ["STS-B Spearman"] * bool(arguments.sts)
    columns += ["nDCG@10"] * bool(arguments.squad)
    print(f"| | {' | '.join(columns)} |")
    print("| --- |" + " ---: |" * len(columns))
    students = {
        "keras_distil": arguments.output / "keras_distil.keras",
        "pytorch": arguments.output / "pytorch",
    }
    for name, path in students.items():
        cells = [statistics.median(seconds[name]) / arguments.block]
        cells += score(path, arguments)
        print(f"| {name} | {' | '.join(f'{x:.3f}' for x in cells)} |")
    pairs = zip(seconds["pytorch"], seconds["keras_distil"], strict=True)
    ratios = [theirs / ours for theirs, ours in list(pairs)[1:]]
    print(f"{statistics.median(ratios):.2f} times as fast per update")


if __name__ == "__main__":
    main()
