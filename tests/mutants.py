"""Puts small faults into the code, one at a time: the tests must notice each.

Usage: python tests/mutants.py [--only NAME ...] [--jobs N] [--list]

The working tree is not changed: a fault is put into the source of one module
as it is imported. TensorFlow is imported once; every fault runs in a process
that is forked from there, before any operation has run. First, all named tests
must pass without a fault.

The exit status is 0 if every fault can be put in and is noticed.
"""

import argparse
import dataclasses
import importlib.abc
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from faults.all_faults import FAULTS
from faults.fault import Fault, FaultError, Mutant, Package

ROOT = Path(__file__).parents[1]
# A fault that makes a test hang is noticed, too.
_SECONDS = 900
_PASSED, _FAILED = 0, 1


class _Hook(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module with a fault."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name, path=None, target=None):
        if name != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(
            name,
            self._mutant.path,
            loader=self,
            submodule_search_locations=[str(self._mutant.path.parent)]
            if self._mutant.path.name == "__init__.py"
            else None,
        )

    def get_filename(self, name):
        return str(self._mutant.path)

    def get_data(self, path):
        # Not from a cache of compiled files, whose names have another ending.
        if Path(path) != self._mutant.path:
            raise OSError(path)
        return self._mutant.source.encode("utf-8")


@dataclasses.dataclass
class _Job:
    """One run of some tests in a separate process.

    Attributes:
        name: name of the fault, or of a file of tests.
        mutant: None for the unchanged code.
        tests: files or tests.
        stop: whether the first failure ends the run.
    """

    name: str
    mutant: Mutant | None
    tests: Sequence[str]
    stop: bool = True
    log: Path = Path()
    started: float = 0.0


def _run_here(job: _Job) -> int:
    """Runs the tests in this process, which was forked for it."""
    os.setpgid(0, 0)
    file = os.open(job.log, os.O_CREAT | os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(ROOT)
    # As in `python -m pytest`.
    sys.path.insert(0, str(ROOT))
    if job.mutant is not None:
        sys.meta_path.insert(0, _Hook(job.mutant))
    import pytest

    words = ["-q", "-p", "no:cacheprovider", "--tb=short"]
    if any("::" in test for test in job.tests):
        # Those who are named run even if they are slow.
        words += ["-m", "not network and not peer"]
    words += ["--basetemp", str(job.log.with_suffix(""))]
    return int(pytest.main([*words, *(["-x"] if job.stop else []), *job.tests]))


def _run_all(jobs: list[_Job], processes: int, folder: Path):
    """Runs jobs side by side; yields each with its status and seconds."""
    waiting, running = list(jobs), {}
    while waiting or running:
        while waiting and len(running) < processes:
            job = waiting.pop(0)
            job.log = folder / f"{len(list(folder.iterdir()))}.log"
            job.log.touch()
            job.started = time.monotonic()
            sys.stdout.flush()
            process = os.fork()
            if not process:
                status = 70
                try:
                    status = _run_here(job)
                finally:
                    os._exit(status)
            running[process] = job
        time.sleep(0.1)
        for process, job in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            seconds = time.monotonic() - job.started
            if not done and seconds < _SECONDS:
                continue
            if not done:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
                status = _FAILED << 8
            del running[process]
            yield job, os.waitstatus_to_exitcode(status), seconds


def _preload() -> None:
    """Imports what takes long and never has a fault."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras  # noqa: F401
    import keras_hub  # noqa: F401
    import keras_tuner  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorboard.backend.event_processing.event_accumulator  # noqa: F401
    import tensorflow  # noqa: F401
    import tokenizers  # noqa: F401
    import typer  # noqa: F401
    from tensorflow.python.eager import context

    if "keras_distil" in sys.modules or context.context_safe() is not None:
        raise RuntimeError(
            "Something has run TensorFlow, or imported keras_distil, before "
            "the processes are forked."
        )


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text("utf-8", "replace").splitlines()[-lines:])


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _baseline(
    faults: Sequence[Fault], processes: int, folder: Path
) -> dict[str, float] | None:
    """Seconds of each file's tests without a fault; None if one fails."""
    tests = sorted({test for fault in faults for test in fault.tests})
    files = sorted(set(map(_file_of, tests)))
    print(f"{len(files)} files of tests, which must pass as the code is")
    seconds, failed = {}, False
    jobs = [
        _Job(file, None, [test for test in tests if _file_of(test) == file])
        for file in files
    ]
    for job, status, taken in _run_all(jobs, processes, folder):
        seconds[job.name] = taken
        print(f"  {job.name}: {taken:.0f} s", flush=True)
        if status != _PASSED:
            failed = True
            print(f"  They do not pass (status {status}):\n{_tail(job.log)}")
    return None if failed else seconds


def check(
    faults: Sequence[Fault], package: Package, processes: int, folder: Path
) -> int:
    """Puts in one fault after another.

    Returns:
        0 if all tests pass without a fault, and fail with each.
    """
    mutants, wrong = [], False
    for fault in faults:
        try:
            mutants.append((fault, package.apply(fault)))
        except FaultError as error:
            wrong = True
            print(f"Cannot be put in: {error}")
    if wrong:
        return 1
    seconds = _baseline(faults, processes, folder)
    if seconds is None:
        return 1
    most = sum(
        seconds[file] for x in faults for file in set(map(_file_of, x.tests))
    )
    print(
        f"{len(faults)} faults in {processes} processes: at most "
        f"{most / processes / 60:.0f} minutes, less where an early test "
        "notices",
        flush=True,
    )
    jobs = [_Job(x.name, mutant, x.tests) for x, mutant in mutants]
    lived, done = [], 0
    for job, status, taken in _run_all(jobs, processes, folder):
        done += 1
        word = {_FAILED: "noticed", _PASSED: "LIVED"}.get(
            status, f"BROKEN (status {status})"
        )
        print(
            f"[{done}/{len(jobs)}] {word} in {taken:.0f} s: {job.name}",
            flush=True,
        )
        if status != _FAILED:
            lived.append(job.name)
            if status != _PASSED:
                print(_tail(job.log))
    print(f"{len(jobs) - len(lived)} of {len(jobs)} were noticed.")
    for name in lived:
        print(f"Not noticed: {name}")
    return 1 if lived else 0


def main() -> int:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(
        description="Small faults in the code, which the tests must notice."
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    faults = [
        x
        for x in FAULTS
        if not given.only or any(n in x.name for n in given.only)
    ]
    if not faults:
        parser.error(f"no fault is called {' or '.join(given.only)}")
    if given.list:
        for fault in faults:
            print(f"{fault.symbol}: {fault.name}")
        return 0
    package = Package(ROOT / "keras_distil")
    _preload()
    with tempfile.TemporaryDirectory() as folder:
        return check(faults, package, given.jobs, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
