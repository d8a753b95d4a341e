"""Runs a contestant: `python -m keras_distil.benchmark.worker` ...

The arguments are a runtime, the path to open, and a number of threads.

It answers every line of its standard input, "BATCH LENGTH", with a line of
JSON, until the input ends. It writes the first line unasked.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

import numpy as np

from keras_distil.benchmark import runtimes

# Ids that exist in every vocabulary.
_WORDS = 100
_MEMORY = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def inputs_of(batch: int, length: int) -> dict[str, np.ndarray]:
    """Makes a batch without padding."""
    ids = np.arange(batch * length, dtype=np.int32) % _WORDS
    return {
        "token_ids": ids.reshape(batch, length),
        "padding_mask": np.ones((batch, length), np.int32),
        "segment_ids": np.zeros((batch, length), np.int32),
    }


def peak_memory_mb() -> float:
    """Returns the peak memory of this process, in 1e6 bytes."""
    match = _MEMORY.search(Path("/proc/self/status").read_text("utf-8"))
    return 1024 * int(match[1]) / 1e6 if match else 0.0


def main() -> None:
    """Answers requests until standard input ends."""
    runtime, path, num_threads = sys.argv[1:]
    # Reserve standard output for the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**content: object) -> None:
        print(json.dumps(content), file=answers, flush=True)

    open_ = runtimes.prepare(runtime, int(num_threads))
    started = time.perf_counter()
    run = open_(Path(path))
    answer(load_s=time.perf_counter() - started)
    for line in sys.stdin:
        batch, length = map(int, line.split())
        inputs = inputs_of(batch, length)
        started = time.perf_counter()
        try:
            run(inputs)
        except runtimes.TooLong:
            answer(too_long=True)
            continue
        answer(
            seconds=time.perf_counter() - started,
            peak_memory_mb=peak_memory_mb(),
        )


if __name__ == "__main__":
    main()
