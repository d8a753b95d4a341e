"""Real runs, really killed: `keras-distil run` in processes of its own.

The long form, with a kill at 25 random moments, is benchmarks/kill_test.py.
"""

import json
import signal
import time

import processes
import pytest
from safetensors.numpy import load_file

STEPS = 24
DEADLINE_S = 400  # for a hang; a busy machine is slow


@pytest.fixture
def command(toy_recipe):
    """The command of a run in a folder."""

    def make(folder, *more):
        return [
            *["-m", "keras_distil.cli.app", "run"],
            *[str(toy_recipe), "--output", str(folder), "--quiet"],
            *["--set", f"distill.steps={STEPS}", "--set", "student.dropout=.2"],
            *["--set", "checkpoint_steps=2"],
            *more,
        ]

    return make


def run(arguments):
    return processes.run(arguments, timeout=DEADLINE_S)


def kill_after_lines(arguments, metrics, count, number):
    """Sends a signal as soon as so many updates are in the log."""
    process = processes.Process(arguments)
    deadline = time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.is_file() and len(metrics.read_text().split()) > count:
            process.send_signal(number)
            break
        time.sleep(0.005)
    _, errors = process.communicate(timeout=DEADLINE_S)
    return process.returncode, errors


def final_weights(folder):
    """The last training state, without what names the moment."""
    (last,) = (folder / "checkpoints" / "distill").iterdir()
    assert last.name == f"step-{STEPS:09d}"
    tensors = load_file(last / "tensors.safetensors")
    return {name: value.tobytes() for name, value in tensors.items()}


def updates_in(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.essential
def test_a_killed_run_ends_as_an_uninterrupted_one(
    command, tmp_path, monkeypatch
):
    given = command

    def command(folder, *options):
        # Each run makes a cache of its own.
        monkeypatch.setenv(
            "KERAS_DISTIL_CACHE", str(tmp_path / f"cache_{folder.stem}")
        )
        cached = "teacher.cache={top_k: 8, maskings: 2}"
        return given(folder, "--set", cached, *options)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(command(whole))
    assert done.returncode == 0, done.stderr
    metrics = killed / "metrics.jsonl"
    status, _ = kill_after_lines(command(killed), metrics, 45, signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, errors = kill_after_lines(
        command(killed), metrics, 110, signal.SIGTERM
    )
    assert status == 128 + signal.SIGTERM, errors
    assert errors.splitlines()[-1].startswith("keras-distil: Terminated.")
    assert "Traceback" not in errors
    done = run(command(killed))
    assert done.returncode == 0, done.stderr
    assert final_weights(killed) == final_weights(whole)
    # Each batch contributed once, and is told once.
    assert updates_in(metrics) == list(range(1, STEPS + 1))
    reports = [
        json.loads((folder / "report.json").read_text())["rows"]["student"]
        for folder in (whole, killed)
    ]
    assert reports[0]["mlm_loss"] == reports[1]["mlm_loss"]
    again = run(command(killed, "--set", "distill.learning_rate=0.1"))
    assert again.returncode == 1
    assert "distill.learning_rate (0.001, now 0.1)" in again.stderr
