"""Measures contestants side by side, each in a process, in turns."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

BATCH = 32
# Timed calls per turn.
_CALLS = 3


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model and runtime to measure.

    Attributes:
        name: name to display.
        runtime: one of `runtimes.RUNTIMES`.
        path: file or folder that the runtime opens.
        size_mb: size of what is shipped, in 1e6 bytes; None if not a file.
        precision: precision of its weights.
        agreement: share of first choices equal to the student's, 0 to 1; None
            if unknown.
        score: score on a development set, 0 to 1, or an error counted
            negative; None if there is none.
        is_error: whether the score is an error.
    """

    name: str
    runtime: str
    path: Path
    size_mb: float | None
    precision: str = "float32"
    agreement: float | None = None
    score: float | None = None
    is_error: bool = False


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latency of one sequence, in milliseconds."""

    median_ms: float
    p95_ms: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """The measurements of a contestant.

    Attributes:
        contestant: the contestant.
        num_threads: threads per call.
        load_s: seconds from the file to a callable model, without the import
            of the runtime.
        peak_memory_mb: peak memory of its whole process, in 1e6 bytes.
        latency: latency by length; unsupported lengths are missing.
        throughput: sequences per second in batches of `BATCH`, of length
            `throughput_length`; None if that is not supported.
        failed: why it could not be measured; None if it was.
    """

    contestant: Contestant
    num_threads: int
    load_s: float = 0.0
    peak_memory_mb: float = 0.0
    latency: dict[int, Latency] = dataclasses.field(default_factory=dict)
    throughput: float | None = None
    failed: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the same as JSON data, with only the name of the path."""
        data = dataclasses.asdict(self)
        contestant = data.pop("contestant")
        contestant["path"] = self.contestant.path.name
        return {**contestant, **data}


def run_race(
    contestants: Sequence[Contestant],
    *,
    lengths: Sequence[int],
    num_threads: int,
    throughput_length: int,
    rounds: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measured]:
    """Measures all contestants in one run.

    Every round runs each of them at every length, starting with a different
    one, so a temporary slowdown of the machine affects all alike. A model
    that serves is called again and again, so the first call of a turn, which
    finds the caches filled by another model, is not timed.

    Args:
        contestants: the models to measure.
        lengths: ints, tokens of the single sequences.
        num_threads: int >= 1, threads per call.
        throughput_length: int, tokens of each sequence in a batch.
        rounds: int >= 1, number of turns per contestant, of three timed calls
            each, after two untimed rounds.
        progress: called with the number of rounds done and in total.

    Returns:
        The measurements, in the order of the contestants.
    """
    entries = [_Entry(each, num_threads) for each in contestants]
    try:
        shapes = [(1, length) for length in lengths]
        batch = (BATCH, throughput_length)
        for number in range(-2, rounds):
            first = number % len(entries)
            for entry in entries[first:] + entries[:first]:
                for shape in shapes:
                    entry.turn(*shape, timed=False)
                    for _ in range(_CALLS if number >= 0 else 0):
                        entry.turn(*shape, timed=True)
                # Batches take long: one warm-up, then a fifth of the rounds.
                if number == -1 or (number >= 0 and number % 5 == 0):
                    entry.turn(*batch, timed=number >= 0)
            if progress is not None:
                progress(number + 3, rounds + 2)
        return [entry.measured(lengths, batch) for entry in entries]
    finally:
        for entry in entries:
            entry.close()


class _Entry:
    """A contestant's process and its times."""

    def __init__(self, contestant: Contestant, num_threads: int) -> None:
        self.contestant, self.num_threads = contestant, num_threads
        self._seconds: dict[tuple[int, int], list[float]] = {}
        self._peak = 0.0
        self._failed: str | None = None
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "keras_distil.benchmark.worker",
                contestant.runtime,
                str(contestant.path),
                str(num_threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(num_threads),
        )
        self._commands = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        # One after the other, because loading is timed, too.
        self._load_s = self._answer().get("load_s", 0.0)

    def turn(self, batch: int, length: int, *, timed: bool) -> None:
        """Runs the contestant once, unless it has failed."""
        if self._failed is not None:
            return
        try:
            self._commands.write(f"{batch} {length}\n")
            self._commands.flush()
        except BrokenPipeError:
            self._failed = self._read_last_words()
            return
        answer = self._answer()
        if "seconds" not in answer:
            return
        self._peak = answer["peak_memory_mb"]
        if timed:
            durations = self._seconds.setdefault((batch, length), [])
            durations.append(answer["seconds"])

    def measured(
        self, lengths: Sequence[int], batch: tuple[int, int]
    ) -> Measured:
        """Returns the measurements."""
        if self._failed is not None:
            return Measured(
                self.contestant, self.num_threads, failed=self._failed
            )
        latency = {}
        for length in lengths:
            milliseconds = 1000.0 * np.array(self._seconds.get((1, length), []))
            if len(milliseconds):
                latency[length] = Latency(
                    float(np.median(milliseconds)),
                    float(np.percentile(milliseconds, 95)),
                )
        batches = self._seconds.get(batch)
        return Measured(
            self.contestant,
            self.num_threads,
            load_s=self._load_s,
            peak_memory_mb=self._peak,
            latency=latency,
            throughput=batch[0] / statistics.median(batches)
            if batches
            else None,
        )

    def close(self) -> None:
        """Ends the process."""
        try:
            self._commands.close()
        except BrokenPipeError:
            pass  # It has already ended.
        self._process.wait()
        self._answers.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._failed = self._read_last_words()
            return {}
        return json.loads(line)

    def _read_last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [x.strip() for x in self._errors if x.strip()]
        words = lines[-1][:300] if lines else "no message"
        return f"exit status {status}: {words}"


def _environment(num_threads: int) -> dict[str, str]:
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        # The caller's path, because this package may not be installed.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": str(num_threads),
        # A contestant must not look for models on the network.
        "HF_HUB_OFFLINE": "1",
    }
