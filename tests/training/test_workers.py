"""How a run finds its workers, and what it does without them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import marks
import processes
import pytest
import tensorflow as tf

from keras_distil import config
from keras_distil.cli.runs import find_workers
from keras_distil.training import distribution

STEPS = 24
DEADLINE_S = 400  # for a hang; a busy machine is slow
TWO = {"worker": ["a:1", "b:2"]}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "10",
    "SLURM_STEP_NODELIST": "n[1-3,7],m05",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1,3",
    "SLURM_NODEID": "4",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets variables; those that the code sets are undone too."""
    for name in ("TF_CONFIG", *SLURM):
        # Set first: only then does monkeypatch restore what was not there.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def change(**values):
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return change


def task(index, cluster=TWO, kind="worker"):
    return json.dumps(
        {"cluster": cluster, "task": {"type": kind, "index": index}}
    )


def test_slurm_names_the_workers(environment):
    environment(**SLURM)
    distribution.find_workers()
    found = json.loads(os.environ["TF_CONFIG"])
    assert found["cluster"]["worker"] == [
        *["n1:12345", "n1:12346", "n2:12345", "n2:12346"],
        *["n3:12345", "n3:12346", "n7:12345"],
        *["m05:12345", "m05:12346", "m05:12347"],
    ]
    assert found["task"] == {"type": "worker", "index": 8}


def test_slurm_orders_nodes_by_number(environment):
    environment(
        **SLURM
        | {
            "SLURM_STEP_NUM_TASKS": "3",
            "SLURM_STEP_NODELIST": "n[9-11]",
            "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
            "SLURM_NODEID": "1",
            "SLURM_LOCALID": "0",
        }
    )
    distribution.find_workers()
    workers = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
    assert workers == ["n9:12345", "n10:12345", "n11:12345"]
    assert distribution.worker_index() == (1, 3)


@pytest.mark.parametrize("count", [None, "1"])
def test_a_single_task_of_slurm_is_not_a_worker(environment, count):
    """A batch script has no step, and Slurm's nodes are not read."""
    environment(SLURM_STEP_NUM_TASKS=count, SLURM_STEP_NODELIST="n[1-")
    distribution.find_workers()
    assert "TF_CONFIG" not in os.environ


def test_flags_come_before_the_variable_and_it_before_slurm(environment):
    recipe = config.load_recipe("recipes/quickstart.yaml")
    environment(**SLURM)
    assert find_workers(recipe, None, None) == (8, 10)
    environment(TF_CONFIG=task(1))
    assert find_workers(recipe, None, None) == (1, 2)
    assert find_workers(recipe, "a:1,b:1,c:1", 2) == (2, 3)


@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_a_recipe_without_workers_ignores_slurm(environment, strategy):
    """Tasks of one step may each do a separate run."""
    recipe = config.load_recipe(
        "recipes/quickstart.yaml", [f"distill.strategy={strategy}"]
    )
    environment(**SLURM)
    assert find_workers(recipe, None, None) == (0, 1)


@pytest.mark.parametrize("flags", [("a:1,b:1", None), (None, 0)])
def test_the_flags_need_each_other(flags):
    recipe = config.load_recipe("recipes/quickstart.yaml")
    with pytest.raises(ValueError, match="need each other"):
        find_workers(recipe, *flags)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SLURM_STEP_NUM_TASKS", "x", "must be a number. Received: 'x'"),
        ("SLURM_STEP_NUM_TASKS", "9", "contradict each other: 9 tasks"),
        ("SLURM_STEP_NODELIST", None, "SLURM_STEP_NODELIST is not set"),
        ("SLURM_STEP_NODELIST", "n[1-", "cannot be read: Invalid hostlist"),
        ("SLURM_STEP_NODELIST", "n1,n2", "contradict each other"),
        ("SLURM_STEP_TASKS_PER_NODE", "", "TASKS_PER_NODE is not set"),
        ("SLURM_STEP_TASKS_PER_NODE", "x", "Invalid tasks-per-node"),
        ("SLURM_NODEID", None, "SLURM_NODEID is not set"),
        ("SLURM_NODEID", "5", "number 1 on node 5"),
        ("SLURM_LOCALID", "-1", "LOCALID must be a number"),
        ("SLURM_LOCALID", "3", "number 3 on node 4"),
    ],
)
def test_wrong_variables_of_slurm_are_reported(
    environment, name, value, message
):
    environment(**SLURM | {name: value})
    with pytest.raises(ValueError, match=message) as raised:
        distribution.find_workers()
    assert "Start with `srun`" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (task(2), "index 2 of 2 workers"),
        (task(0, kind="ps"), "must be of type chief or worker"),
        (task(0, {"worker": ["a", "b:1"]}), "as host:port. Received: 'a'"),
        (task(0, {"worker": ["a:1", "a:1"]}), "names an address twice"),
        (task(0, {"worker": ["a:0"]}), "Received: 'a:0'"),
    ],
)
def test_wrong_workers_of_the_variable_are_reported(
    environment, variable, message
):
    environment(TF_CONFIG=variable)
    with pytest.raises(ValueError, match=f"TF_CONFIG cannot .*{message}"):
        distribution.worker_index()


CLOSED = "Socket closed from remote target /job:worker/replica:0/task:1"


@pytest.mark.parametrize(
    ("error", "text", "message"),
    [
        ("UnavailableError", CLOSED, r"connection to worker 1 \(b:2\) broke"),
        (
            "UnavailableError",
            f"/job:worker/replica:0/task:0: {CLOSED}",
            r"connection to worker 1 \(b:2\) broke",
        ),
        ("DeadlineExceededError", "", "connection to another worker broke"),
        (
            "AbortedError",
            "/job:worker/replica:0/task:1 has a different incarnation",
            r"second process started as worker 1 \(b:2\)",
        ),
        (
            "AbortedError",
            "/job:worker/replica:0/task:0 has a different incarnation",
            r"second process started as worker 0 \(a:1\)",
        ),
    ],
)
def test_a_lost_worker_is_reported(environment, error, text, message):
    environment(TF_CONFIG=task(0))
    raised = getattr(tf.errors, error)(None, None, text)
    with pytest.raises(RuntimeError, match=message) as caught:
        with distribution.report_lost_workers():
            raise raised
    assert "start all workers again" in str(caught.value)


def test_other_errors_are_not_taken_for_a_lost_worker(environment):
    closed = tf.errors.UnavailableError(None, None, CLOSED)
    with pytest.raises(tf.errors.UnavailableError):
        with distribution.report_lost_workers():
            raise closed
    environment(TF_CONFIG=task(0))
    ours = tf.errors.InvalidArgumentError(None, None, "Incompatible shapes")
    with pytest.raises(tf.errors.InvalidArgumentError):
        with distribution.report_lost_workers():
            raise ours


def test_a_worker_that_is_missing_is_named(environment):
    environment(TF_CONFIG=task(0, {"chief": ["c:1"], "worker": ["a:1", "b:2"]}))
    text = (
        "The first task at the barrier: /job:chief/replica:0/task:0. Some "
        "timed out task names:\n/job:worker/replica:0/task:1\n\nAdditional "
        "information from /job:chief/replica:0/task:0"
    )
    message = distribution._start_message(text)
    assert "no answer from worker 2 (b:2)." in message


def free_pair():
    """Two ports, one after the other."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def start(recipe, folder, *flags, patch="", is_new=True, **variables):
    """One `keras-distil run`, with changed constants of `distribution`.

    Its Python is a new one, or forked: then it prints what C++ code does.
    """
    code = (
        "from keras_distil.cli import app\n"
        "from keras_distil.training import distribution\n"
        f"{patch}\napp.main()"
    )
    # The program chooses itself what C++ code prints.
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    environment = {**quiet, **variables}
    arguments = [
        *["-c", code, "run", str(recipe), "--quiet"],
        *["--output", str(folder), "--set", f"distill.steps={STEPS}"],
        *["--set", "checkpoint_steps=2"],
        *flags,
    ]
    if not is_new:
        return processes.Process(arguments, env=environment)
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(recipe, folder, **options):
    port = free_pair()
    workers = f"127.0.0.1:{port},127.0.0.1:{port + 1}"
    flags = ["--workers", workers, "--worker-index"]
    return [start(recipe, folder, *flags, x, **options) for x in "01"]


def finish(started):
    """Exit statuses and standard errors."""
    try:
        errors = [p.communicate(timeout=DEADLINE_S)[1] for p in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], errors


def final_state(folder):
    """The hashes of all tensors, and the position, after the training."""
    states = folder / "checkpoints" / "distill"
    return json.loads((max(states.iterdir()) / "manifest.json").read_text())


@pytest.mark.slow
def test_a_lost_worker_costs_nothing(toy_recipe, tmp_path):
    """Killed and restarted equals uninterrupted, bit for bit.

    The uninterrupted run has its workers from Slurm's variables.
    """
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
    }
    patch = f"distribution.SLURM_PORT = {free_pair()}"
    whole = tmp_path / "whole"
    status, errors = finish(
        [
            start(
                *[toy_recipe, whole],
                patch=patch,
                is_new=False,
                **slurm,
                SLURM_LOCALID=place,
            )
            for place in "01"
        ]
    )
    assert status == [0, 0], errors
    assert len((whole / "metrics.jsonl").read_text().splitlines()) == STEPS

    killed = tmp_path / "killed"
    started = start_two(toy_recipe, killed)
    states = killed / "checkpoints" / "distill"
    deadline = time.monotonic() + DEADLINE_S
    while not list(states.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    started[1].send_signal(signal.SIGKILL)
    status, errors = finish(started)
    assert status == [1, -signal.SIGKILL], errors
    last = errors[0].splitlines()[-1]
    assert last.startswith("keras-distil: A worker is lost: ")
    assert "the connection to worker 1 (127.0.0.1:" in last
    assert "Traceback" not in errors[0]
    assert "E0000" not in errors[0]  # what C++ code prints
    assert not (killed / "report.json").exists()
    status, errors = finish(start_two(toy_recipe, killed, is_new=False))
    assert status == [0, 0], errors
    assert final_state(killed) == final_state(whole)


@pytest.mark.slow
@pytest.mark.parametrize("index", marks.essential([0, 1], 0))
def test_a_worker_that_never_starts_is_reported(toy_recipe, tmp_path, index):
    port = free_pair()
    workers = f"127.0.0.1:{port},127.0.0.1:{port + 1}"
    status, errors = finish(
        [
            start(
                toy_recipe,
                tmp_path / "run",
                *["--workers", workers, "--worker-index", str(index)],
                patch="distribution.START_TIMEOUT_S = 3",
            )
        ]
    )
    assert status == [1]
    (line,) = errors[0].splitlines()
    missing = 1 - index
    assert f"3 s: no answer from worker {missing} (127.0.0.1:" in line


@pytest.mark.slow
def test_a_port_in_use_is_reported(toy_recipe, tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        workers = f"127.0.0.1:{taken.getsockname()[1]},127.0.0.1:1"
        flags = ["--workers", workers, "--worker-index", "0"]
        status, errors = finish([start(toy_recipe, tmp_path / "run", *flags)])
    assert status == [1]
    (line,) = errors[0].splitlines()
    assert line.startswith("keras-distil: Worker 0 cannot listen at 127.0.0.1:")
