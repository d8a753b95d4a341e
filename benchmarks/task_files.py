"""Speed and memory of reading a task from a large CSV file.

A table is drawn from the text files of a folder: rows of about 200 bytes, each
a stretch of the prose that begins at a random word, with one of four labels.
Then, in this process, with TensorFlow imported as in a run:

- read and split: every row read, checked and hashed, a tenth chosen to be held
  out;
- tokenise and write: the texts read again, encoded, and their token ids written
  to disk;
- the peak memory of the process.

Command: python benchmarks/task_files.py PROSE --rows 1000000
Hardware: 2 cores, no GPU. Duration: two minutes.
"""

import argparse
import contextlib
import csv
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from keras_distil import config, data
from keras_distil.runs.corpus import load_tokenizer
from keras_distil.runs.own_tasks.texts import TextLoader

LABELS = ("alpha", "beta", "gamma", "delta")
# Characters of a text, and of the prose that texts are drawn from.
LENGTHS = (120, 260)
MOST_PROSE = 50_000_000


def read_prose(folder: Path) -> str:
    """Reads text files until there is enough, as one line."""
    parts, total = [], 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in (".txt", ".md", ".jsonl"):
            text = " ".join(path.read_text("utf-8", errors="ignore").split())
            parts.append(text)
            total += len(text)
        if total > MOST_PROSE:
            break
    if total < 10 * LENGTHS[1]:
        raise SystemExit(
            f"{folder} must hold text files. Found: {total} bytes."
        )
    return " ".join(parts)[:MOST_PROSE]


def draw(prose: str, rows: int) -> Iterator[tuple[str, str]]:
    """Yields texts with labels."""
    generator = random.Random(0)
    for _ in range(rows):
        begin = prose.find(
            " ", generator.randrange(len(prose) - LENGTHS[1] - 99)
        )
        length = generator.randint(*LENGTHS)
        text = prose[begin + 1 : begin + length].rpartition(" ")[0]
        yield text, generator.choice(LABELS)


def write_table(path: Path, prose: str, rows: int) -> float:
    """Writes the table; returns its size in MB."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(draw(prose, rows))
    return path.stat().st_size / 1e6


@contextlib.contextmanager
def timed(name: str, size_mb: float) -> Iterator[None]:
    """Prints a block's speed, and its CPU time, which others disturb less."""
    started, used = time.perf_counter(), time.process_time()
    yield
    took, used = time.perf_counter() - started, time.process_time() - used
    print(
        f"{name}: {size_mb / took:.1f} MB/s ({took:.1f} s, {used:.1f} s of CPU)"
    )


def measure(folder: Path, teacher: str, size_mb: float) -> None:
    """Reads, encodes and prints what it took."""
    recipe = config.Recipe.model_validate(
        {
            "name": "speed",
            "teacher": {"source": teacher},
            "data": {"root": str(folder)},
            "finetune": {
                "rows": ["teacher"],
                "tasks": [
                    {
                        "name": "table",
                        "kind": "classification",
                        "train": "table.csv",
                    }
                ],
            },
        }
    )
    entry = recipe.finetune.own_task("table")
    tokenizer = load_tokenizer(recipe)
    loader = TextLoader(recipe, entry)
    with timed("read and split", size_mb):
        loader.read()
    print(
        f"  {len(loader.train):,} rows, {int(loader.held_out.sum()):,} held out"
    )
    with timed("tokenise and write", size_mb):
        made = loader.encode(tokenizer, folder / "features")
    print(f"  {len(made.train.token_ids):,} token ids")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory: {peak:.2f} GB, with TensorFlow")
    for line in made.remarks:
        print(line)


def main() -> None:
    """Draws the table and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prose", type=Path, help="folder of text files")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--teacher", default="embedded")
    arguments = parser.parse_args()
    # TensorFlow is part of every run.
    _ = data.task_dataset
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        prose = read_prose(arguments.prose)
        size_mb = write_table(path, prose, arguments.rows)
        del prose
        print(f"{arguments.rows:,} rows, {size_mb:.0f} MB")
        measure(Path(folder), arguments.teacher, size_mb)


if __name__ == "__main__":
    main()
