"""The process that measures updates, seen from the one that controls it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from keras_distil.config import Recipe

_MEMORY_FILE = Path("/proc/meminfo")
_SPARE = 0.5e9  # bytes that stay free for the rest of the machine


@dataclasses.dataclass(frozen=True)
class Update:
    """The measurement of one update.

    Attributes:
        seconds: seconds from start to end.
        others: 0 to 1, share of the processor's cores used by other processes
            meanwhile.
    """

    seconds: float
    others: float


class MeasuredRecipe:
    """A recipe's updates on random words, in a separate process.

    Args:
        recipe: a recipe with a `distill` section and a live teacher.

    Attributes:
        base_gb: memory of the process before the models, 1e9 bytes.
        peak_gb: its peak memory, after the latest update.

    Raises:
        ValueError: if the models cannot be made.
        RuntimeError: if the process ends, most likely for lack of memory.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._errors = tempfile.TemporaryFile("w+")
        self._free = max(0.0, available_memory() - _SPARE)
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "keras_distil.planning.measured.worker",
                str(int(self._free)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._commands = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        try:
            ready = self._ask(recipe.model_dump_json())
        except BaseException:
            self.close()
            raise
        self.base_gb: float = ready["base_gb"]
        self.peak_gb: float = ready["peak_gb"]

    def update(self) -> Update:
        """Runs one update.

        Raises:
            RuntimeError: if the process ends.
        """
        answer = self._ask("update")
        self.peak_gb = answer["peak_gb"]
        return Update(answer["seconds"], answer["others"])

    def rates(self) -> dict[str, float]:
        """Measures the machine's peak rates; see `worker.rates`.

        This takes additional memory: read `peak_gb` before.

        Raises:
            RuntimeError: if the process ends.
        """
        return self._ask("rates")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._commands, self._answers, self._errors):
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # It never read the last command.

    def __enter__(self) -> Self:
        """Returns this object."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the process."""
        self.close()

    def _ask(self, line: str) -> dict[str, Any]:
        try:
            self._commands.write(line + "\n")
            self._commands.flush()
        except BrokenPipeError:
            raise RuntimeError(self._last_words()) from None
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError(self._last_words())
        content = json.loads(answer)
        if "error" in content:
            raise ValueError(content["error"])
        return content

    def _last_words(self) -> str:
        status = self._process.wait()
        how = f"exit status {status}"
        if status < 0:
            # What C++ prints at the end is not helpful.
            how = signal.Signals(-status).name
        else:
            self._errors.seek(0)
            lines = [x.strip() for x in self._errors if x.strip()]
            how += f", {lines[-1][:200].rstrip('.')}" if lines else ""
        return (
            "The measured run has ended, most likely for lack of memory "
            f"({self._free / 1e9:.1f} GB were free): {how}. "
            "Free some memory, or raise `distill.micro_batches`."
        )


def available_memory() -> float:
    """Returns the bytes that new processes can have without swapping."""
    return _memory_line("MemAvailable")


def machine_memory() -> float:
    """Returns the bytes of memory of this machine."""
    return _memory_line("MemTotal")


def processors() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _memory_line(name: str) -> float:
    """Returns a line of Linux's memory information, in bytes.

    Raises:
        OSError: if there is no such line.
    """
    for line in _MEMORY_FILE.read_text("utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return 1024.0 * int(line.split()[1])
    raise OSError(f"`{_MEMORY_FILE}` has no line `{name}`.")
