"""A contestant, seen from the process that gives the turns."""

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


# What keeps libraries from the best kernels of a processor, by the processor
# that is then approximated.
PROCESSORS: dict[str, dict[str, str]] = {
    "this": {},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        # XLA's YNNPACK asks the processor alone: it is switched off.
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 "
        "--xla_cpu_experimental_ynn_fusion_type=",
        "OPENBLAS_CORETYPE": "Haswell",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
}
_LIMITS = (*PROCESSORS["avx2"], "DNNL_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS")


class ContestantFailed(Exception):
    """A contestant has ended, most likely for lack of memory."""


class Contestant:
    """A process that runs steps only on command.

    Args:
        name: one of `contestants.NAMES`, or "products".
        precision: "float32" or "mixed_bfloat16"; of products the name of a
            library.
        shape: the models and batches to train on.
        processor: one of `PROCESSORS`.
    """

    def __init__(
        self,
        name: str,
        precision: str,
        shape: Shape,
        processor: str = "this",
    ) -> None:
        self.name, self.precision = name, precision
        self._errors = tempfile.TemporaryFile("w+")
        memory = int(available_memory() - _SPARE)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "contestants", name, precision]
            + [shape.to_json(), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(processor),
        )

    def turn(self, seconds: float) -> dict:
        """Lets it run for at least this long, and at least one step.

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
        """Lets it run single steps that do not count.

        Raises:
            ContestantFailed: as for `turn`.
        """
        for _ in range(_WARM_UP_TURNS):
            self.turn(0.0)

    def cpu_seconds(self) -> float:
        """Returns the processor time it has used so far."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        if not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass  # It has already ended.
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        status = self._process.wait()
        self._errors.seek(0)
        lines = [x.strip() for x in self._errors if x.strip()]
        words = lines[-1][:300] if lines else "no message"
        return f"exit status {status}: {words}"


def environment(processor: str) -> dict[str, str]:
    """Returns the variables of a process with the kernels of a processor.

    Args:
        processor: one of `PROCESSORS`.
    """
    here = str(Path(__file__).parents[1])
    given = {k: v for k, v in os.environ.items() if k not in _LIMITS}
    path = os.pathsep.join(filter(None, [here, given.get("PYTHONPATH")]))
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **given,
        **PROCESSORS[processor],
        "PYTHONPATH": path,
    }


def available_memory() -> int:
    """Returns the bytes that new processes can have without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("`/proc/meminfo` has no line `MemAvailable`.")
