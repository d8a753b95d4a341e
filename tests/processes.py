"""Processes for tests that are not about how a process starts or ends.

Importing TensorFlow takes five seconds of a processor. These are forked from a
process that has imported it and the package, and has not used them; otherwise
each is a new one, with arguments, an environment, a folder, outputs and signals
of its own. The functions that Python calls when its interpreter ends are not
called.
"""

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CONTEXT: Any = multiprocessing.get_context("forkserver")
# The command itself is not among them: `-m` must import it.
_CONTEXT.set_forkserver_preload(
    [
        "tensorflow",
        "keras_hub",
        "keras_distil.cli.runs",
        "keras_distil.runs.stages",
    ]
)


class Process:
    """A process of Python; like a `subprocess.Popen` with pipes of text.

    Args:
        arguments: what would follow `python`: "-c" and code, "-m" and a
            module, or a script, and then the program's own.
        cwd: its folder; None for this process's.
        env: its environment; None for this process's.
    """

    def __init__(
        self,
        arguments: Sequence[Any],
        *,
        cwd: str | os.PathLike | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._outputs = tempfile.TemporaryDirectory()
        self._paths = [Path(self._outputs.name, x) for x in ("out", "err")]
        self._process = _CONTEXT.Process(
            target=_run,
            args=(
                [str(x) for x in arguments],
                os.fspath(cwd or os.getcwd()),
                dict(os.environ if env is None else env),
                self._paths,
            ),
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Returns the exit status, None while it runs."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """Ends it at once, if it still runs."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for its end; returns its output and errors, once."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("python", timeout or 0.0)
        out, err = (path.read_text("utf-8") for path in self._paths)
        self._outputs.cleanup()
        return out, err


def run(
    arguments: Sequence[Any], *, timeout: float | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Runs a `Process` to its end."""
    process = Process(arguments, **options)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(
        ["python", *arguments], process.returncode or 0, out, err
    )


def _run(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    outputs: list[Path],
) -> None:
    for number, path in enumerate(outputs, start=1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    # As conftest.py does.
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep)]
    kind, *rest = arguments
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")
