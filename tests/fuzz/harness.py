"""Runs the cases of a target and watches what they do."""

import contextlib
import dataclasses
import faulthandler
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CASE_SECONDS = 15  # of processor time: the machine may be busy
CASE_MEGABYTES = 400
LONGEST_MESSAGE = 1500

# They are refusals by their base class, but tell a user nothing.
_SENSELESS = (RecursionError, NotImplementedError, UnicodeError)


class Defect(Exception):
    """A case did what no input may cause."""


class Hang(BaseException):
    """A case took too long."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A reader of files that come from elsewhere.

    Attributes:
        name: what it reads.
        case: function of (rng, folder): writes mutated files into the folder
            and reads them as the command does.
        expected: the classes of exceptions that end in one line.
        share: how many of the cases it gets, in relation to the others.
        names_folder: whether each message must name a path in the folder.
    """

    name: str
    case: Callable[[random.Random, Path], None]
    expected: tuple[type[BaseException], ...]
    share: float = 1.0
    names_folder: bool = True


@dataclasses.dataclass
class Counts:
    """What became of the cases of one target."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0


class Sandbox:
    """A folder for cases, with files beside it that must stay as they are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inside = root / "inside"
        outside = root / "outside"
        outside.mkdir(parents=True)
        (outside / "canary.txt").write_text("untouched")
        self._went_outside: list[str] = []
        self._watching = False
        sys.addaudithook(self._watch)

    @contextlib.contextmanager
    def case(self) -> Iterator[Path]:
        """Gives an empty folder; afterwards all else must be as before."""
        shutil.rmtree(self.inside, ignore_errors=True)
        folder = self.inside / "folder"
        folder.mkdir(parents=True)
        scratch = self.inside / "tmp"
        scratch.mkdir()
        before, tempfile.tempdir = tempfile.tempdir, str(scratch)
        tree = self._tree()
        self._went_outside.clear()
        self._watching = True
        try:
            yield folder
        finally:
            self._watching = False
            tempfile.tempdir = before
        if self._tree() != tree:
            raise Defect("something was written outside the folder")
        if self._went_outside:
            raise Defect(self._went_outside[0])

    def _tree(self) -> dict[str, str]:
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else ""
            for path in self.root.rglob("*")
            if self.inside not in (path, *path.parents)
        }

    def _watch(self, event: str, arguments: tuple) -> None:
        """Notes what Python itself does outside the sandbox."""
        if not self._watching:
            return
        if event == "open":
            path, _, flags = arguments
            changes = (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename"):
            # Relative to an open folder, as `shutil.rmtree` does: what it
            # changes shows in the tree.
            if arguments[-1] != -1:
                return
            path, changes = arguments[0], True
        elif event in ("subprocess.Popen", "os.system", "os.exec"):
            # `run_folder` asks git for the commit.
            if arguments[0] != "git":
                self._went_outside.append(f"{event}: {arguments[0]!r}")
            return
        elif event in ("socket.getaddrinfo", "socket.connect"):
            self._went_outside.append(f"used the network: {arguments[:2]!r}")
            return
        else:
            return
        if not changes or not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(path))
        allowed = (str(self.inside) + os.sep, "/dev/")
        if not path.startswith(allowed) and "__pycache__" not in path:
            self._went_outside.append(f"opened for writing: {path}")


def run(
    targets: list[Target],
    *,
    cases: int,
    seconds: float,
    seed: int,
    keep: Path,
    first: int = 0,
    say: Callable[[str], None] = print,
) -> int:
    """Runs cases in turn, a few of each target at a time.

    Args:
        targets: what to exercise.
        cases: int >= 1, cases in all.
        seconds: float > 0, after which no further case is begun.
        seed: int, with target and index it decides all of a case.
        keep: folder for the files of the first failure.
        first: index of the first case of each target.
        say: called with each line of the report.

    Returns:
        The exit status: 1 after a failure.
    """
    counts = {target.name: Counts() for target in targets}
    whole = sum(target.share for target in targets)
    wanted = {t.name: max(1, round(cases * t.share / whole)) for t in targets}
    started = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="keras_distil_fuzz_")).resolve()
    failure = None
    try:
        sandbox = Sandbox(root / "sandbox")
        # In turn, so that a short form reaches all of them.
        rounds = max(wanted.values())
        for turn in range(rounds):
            for target in targets:
                due = wanted[target.name]
                if turn * due // rounds == (turn + 1) * due // rounds:
                    continue
                if time.monotonic() - started > seconds or failure:
                    break
                index = first + turn * due // rounds
                failure = _one(target, index, seed, sandbox, counts)
                if failure:
                    _report(target, index, seed, failure, sandbox, keep, say)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    total = 0
    for name, count in counts.items():
        done = count.accepted + count.refused
        total += done
        say(
            f"{name:12} {done:6,} cases: {count.refused:6,} refused, "
            f"{count.accepted:6,} accepted, {count.seconds:6.1f} s"
        )
    say(
        f"{'all':12} {total:6,} cases in {time.monotonic() - started:.0f} s, "
        f"seed {seed}: {'1 FAILED' if failure else 'no failure'}"
    )
    return 1 if failure else 0


def _one(
    target: Target,
    index: int,
    seed: int,
    sandbox: Sandbox,
    counts: dict[str, Counts],
) -> str | None:
    """Runs one case; returns what is wrong."""
    rng = random.Random(f"{seed}/{target.name}/{index}")
    count = counts[target.name]
    started = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # For what no Python code can end: a loop or a crash in a library.
    faulthandler.dump_traceback_later(6 * CASE_SECONDS, exit=True)
    try:
        with sandbox.case() as folder, _limits():
            refusal = _refusal(target, rng, folder)
        count.refused += refusal is not None
        count.accepted += refusal is None
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        if grown > CASE_MEGABYTES * 1024:
            raise Defect(f"took {grown / 1024:.0f} MB of memory")
    except Hang:
        return f"took more than {CASE_SECONDS} s"
    except Defect as defect:
        return str(defect)
    except BaseException:
        return traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
        count.seconds += time.perf_counter() - started
    return None


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _refusal(
    target: Target, rng: random.Random, folder: Path
) -> BaseException | None:
    """The exception by which the files were refused, if they were."""
    try:
        target.case(rng, folder)
    except target.expected as error:
        message = " ".join(str(error).split())
        longest = max(map(len, str(error).splitlines() or [""]))
        wrong = None
        if isinstance(error, (*_SENSELESS, json.JSONDecodeError)):
            wrong = f"a {type(error).__name__} says nothing to a user"
        elif not message or longest > LONGEST_MESSAGE:
            wrong = f"a message with a line of {longest} characters"
        elif "Traceback" in message or " object at 0x" in message:
            wrong = "a message full of internals"
        elif target.names_folder and str(folder) not in message:
            wrong = "the message does not name the file"
        if wrong:
            raise Defect(f"{wrong}: {traceback.format_exc()}") from error
        return error
    return None


def _report(
    target: Target,
    index: int,
    seed: int,
    failure: str,
    sandbox: Sandbox,
    keep: Path,
    say: Callable[[str], None],
) -> None:
    kept = keep / f"{target.name}-{seed}-{index}"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(sandbox.inside / "folder", kept, symlinks=True)
    say(f"FAILED: {target.name}, seed {seed}, case {index}")
    say("\n".join(line[:500] for line in failure.splitlines()))
    say(f"Its files: {kept}")
    say(
        f"Again: .venv/bin/python tests/fuzz/run.py --target {target.name} "
        f"--seed {seed} --first {index} --cases 1"
    )
