"""A contestant as the process that gives the turns sees it."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from contestants.shapes import Shape

# The first two steps compile.
_WARM_UP_TURNS = 2
_SPARE = 1e9  # bytes that stay free for the rest of the machine


class ContestantFailed(Exception):
    """A contestant has ended, most likely for want of memory."""


class Contestant:
    """A process that steps only when told to.

    Args:
        name: of `contestants.NAMES`, or "matrix_product".
        precision: "float32" or "mixed_bfloat16".
        shape: what to train on.
    """

    def __init__(self, name: str, precision: str, shape: Shape) -> None:
        self.name, self.precision = name, precision
        self._errors = tempfile.TemporaryFile("w+")
        memory = int(available_memory() - _SPARE)
        here = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "contestants", name, precision]
            + [shape.to_json(), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={
                "TF_CPP_MIN_LOG_LEVEL": "2",
                **os.environ,
                "PYTHONPATH": here,
            },
        )

    def turn(self, seconds: float) -> dict:
        """Lets it step for at least so long, and once at least.

        Returns:
            "steps", "seconds" and "peak_memory_gb".

        Raises:
            ContestantFailed: with the last line it wrote.
        """
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ContestantFailed(self._last_words()) from None
        line = self._process.stdout.readline()
        if not line:
            raise ContestantFailed(self._last_words())
        return json.loads(line)

    def warm_up(self) -> None:
        """Lets it make single steps that do not count.

        Raises:
            ContestantFailed: as `turn`.
        """
        for _ in range(_WARM_UP_TURNS):
            self.turn(0.0)

    def cpu_seconds(self) -> float:
        """Processor time it has used so far."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        if not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # It has ended before.
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [x.strip() for x in self._errors if x.strip()]
        words = lines[-1][:300] if lines else "no message"
        return f"exit status {status}: {words}"


def available_memory() -> int:
    """Bytes that new processes may have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("`/proc/meminfo` has no line `MemAvailable`.")
