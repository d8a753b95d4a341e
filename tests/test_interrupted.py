"""Signals in the first seconds of the program's life."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORDS = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}


def wait_for_handlers(process_id):
    """Returns when a process handles SIGTERM: Python needs a while to start."""
    status = Path(f"/proc/{process_id}/status")
    handled = 1 << (signal.SIGTERM - 1)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        caught = re.search(r"^SigCgt:\s*(\w+)$", status.read_text(), re.M)
        if int(caught[1], 16) & handled:
            return
        time.sleep(0.01)
    pytest.fail("It handles no signal after a minute.")


def interrupted(arguments, after, number):
    """Starts the program and sends a signal; returns status and stderr."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_handlers(process.pid)
    time.sleep(after)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("number", WORDS)
@pytest.mark.parametrize("after", [0.0, 0.2, 1.5])
def test_while_it_loads_it_ends_with_one_line(toy_recipe, after, number):
    arguments = ["-m", "keras_distil", "prepare", str(toy_recipe)]
    status, errors = interrupted(arguments, after, number)
    assert status == 128 + number
    assert errors.startswith(f"keras-distil: {WORDS[number]}")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("number", WORDS)
def test_importing_tensorflow_ends_at_once(number):
    code = (
        "import os, signal, sys; from keras_distil.utils import quiet\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tensorflow':\n"
        f"            try: signal.raise_signal({int(number)})\n"
        "            except BaseException: pass\n"
        "sys.meta_path.insert(0, Finder())\n"
        "quiet.import_tensorflow()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 128 + number
    assert done.stderr == (
        f"keras-distil: {WORDS[number]} while loading TensorFlow.\n"
    )


@pytest.mark.parametrize(
    ("command", "then"),
    [
        (
            ["run", "quickstart"],
            " What was finished is kept: the same command goes on from there.",
        ),
        (["evaluate", "quickstart", "--task", "rte", "--model", "m"], ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("number", WORDS)
def test_at_work_it_ends_with_one_line(number, command, then):
    # The second signal, as of an impatient user, changes nothing.
    code = (
        "import signal, sys; from keras_distil import config\n"
        "from keras_distil.cli import app\n"
        f"def work(*_): signal.raise_signal({int(number)})\n"
        "config.load_recipe = work\n"
        "fail = app._fail\n"
        "app._fail = lambda *a, **k: (work(), fail(*a, **k))\n"
        f"sys.argv = ['keras-distil', *{command}]\n"
        "app.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 128 + number
    assert done.stderr == f"keras-distil: {WORDS[number]}.{then}\n"
