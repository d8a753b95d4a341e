"""The turns of a contestant."""

import json
import sys
import time
from pathlib import Path
from typing import TextIO


class Turns:
    """Lets steps run during this process's turn, and else waits.

    Args:
        answers: the stream for the measurements of a turn.
    """

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._begun: float | None = None
        self._seconds = 0.0
        self._steps = 0

    def before_step(self) -> None:
        """Returns when the next step may begin."""
        if self._begun is not None:
            self._steps += 1
            elapsed = time.perf_counter() - self._begun
            if elapsed < self._seconds:
                return
            self.answer({"steps": self._steps, "seconds": elapsed})
        self._seconds = self.next_command()
        self._steps = 0
        self._begun = time.perf_counter()

    def next_command(self) -> float:
        """Sleeps until the next turn; returns its minimum seconds."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        return float(line)

    def answer(self, values: dict) -> None:
        """Ends the turn."""
        values["peak_memory_gb"] = peak_memory_gb()
        self._answers.write(json.dumps(values) + "\n")
        self._answers.flush()


def peak_memory_gb() -> float:
    """Returns the peak memory of this process.

    `getrusage` also counts the memory of the process that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("`/proc/self/status` has no line `VmHWM`.")
