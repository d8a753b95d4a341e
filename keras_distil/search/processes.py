"""Runs a search in several processes on this machine.

One process is KerasTuner's chief, which decides. The others ask it for trials
over loopback.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from keras_distil.runs.run_folder import Run
from keras_distil.search import recipe_search, results

_HOST = "127.0.0.1"
_CHIEF = "chief"
# How often a worker that crashed is restarted.
_RESTARTS = 3
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 60


def run_search(
    run: Run, *, count: int = 1, port: int | None = None
) -> dict[str, Any] | None:
    """Searches in this process, or in `count` others.

    A worker that crashes is restarted, and continues its trial.

    Args:
        run: as returned by `open_run`.
        count: int >= 1, number of trials at a time.
        port: port on loopback, for several processes; None for any.

    Returns:
        As from `recipe_search.run_search`.

    Raises:
        ValueError: if nothing can listen on the port.
        RuntimeError: if the processes end without a result.
    """
    finished = results.read(run.folder)
    if finished is not None:
        run.progress.say(f"Already finished: {run.folder}")
        return finished
    if count > 1 and recipe_search.ORACLE_IP not in os.environ:
        if port is not None:
            recipe_search.check_port(_HOST, port)
        # Makes what trials share once, with output; the chief then reuses it.
        recipe_search.prepare(run)
        _Processes(run, count, port or _free_port()).work()
        result = results.read(run.folder)
        if result is None:
            raise RuntimeError(
                f"The search in {run.folder} has no result: see its logs. The "
                "same command continues it."
            )
        return result
    return recipe_search.run_search(run)


class _Processes:
    """The chief and its workers, all running the same command."""

    def __init__(self, run: Run, count: int, port: int) -> None:
        self._run = run
        self._port = port
        self._threads = max(1, (os.cpu_count() or 1) // count)
        self._names = [f"worker{index}" for index in range(count)]
        self._running: dict[str, subprocess.Popen] = {}
        self._starts = dict.fromkeys(self._names, 0)

    def work(self) -> None:
        """Waits until all trials are done.

        Raises:
            RuntimeError: if a process fails for good.
        """
        try:
            self._start(_CHIEF)
            for name in self._names:
                self._start(name)
            while self._running:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                for name, process in list(self._running.items()):
                    status = process.poll()
                    if status is not None:
                        del self._running[name]
                        self._handle_exit(name, status)
        finally:
            self._end()

    def _handle_exit(self, name: str, status: int) -> None:
        """Handles the end of a process."""
        if status == 0:
            return
        if name == _CHIEF or self._starts[name] > _RESTARTS:
            raise RuntimeError(
                f"The process {name} of the search ended with status {status}: "
                f"see {self._log(name)}. The same command continues it."
            )
        self._run.progress.say(
            f"{name} ended with status {status} and is restarted"
        )
        self._start(name)

    def _start(self, name: str) -> None:
        if name != _CHIEF:
            self._starts[name] += 1
        threads = str(self._threads)
        environment = {
            "TF_NUM_INTRAOP_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            **os.environ,
            recipe_search.TUNER_ID: name,
            recipe_search.ORACLE_IP: _HOST,
            recipe_search.ORACLE_PORT: str(self._port),
        }
        command = [sys.executable, "-m", "keras_distil", "search"]
        folder = self._run.folder
        command += [str(folder / "recipe.yaml"), "--output", str(folder)]
        with open(self._log(name), "a", encoding="utf-8") as log:
            self._running[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._run.progress.say(f"Started {name}: {self._log(name)}")

    def _log(self, name: str) -> str:
        return str(self._run.folder / f"{name}.log")

    def _end(self) -> None:
        """Asks running processes to end; trainings save their state."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind((_HOST, 0))
        return listening.getsockname()[1]
