"""The same results at every scale, in real processes."""

import functools
import json
import os
import socket
from pathlib import Path

import numpy as np
import processes
import pytest
import tensorflow as tf
import worker

from keras_distil.training import distribution

TESTS = Path(__file__).parents[1]
STEPS = 20
DEADLINE_S = 400  # for a hang; a busy machine is slow


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def training(name, **changes):
    """A task for `worker.py`; its results go to the folder `name`."""
    return {
        "name": name,
        "replicas": 1,
        "micro_batches": 1,
        "optimizer": "sgd",
        "kill_at": None,
        "without": None,
        **changes,
    }


def start(folder, trainings, task):
    replicas = max(training["replicas"] for training in trainings)
    environment = {
        **os.environ,
        "REPLICAS": str(replicas),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    if task is not None:
        environment["TF_CONFIG"] = json.dumps(task)
    return processes.Process(
        [TESTS / "worker.py", folder, STEPS, json.dumps(trainings)],
        env=environment,
    )


def train(folder, *trainings, workers=1):
    """Exit statuses and outputs of the workers, which run all trainings."""
    ports = free_ports(workers)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    tasks = [
        {"cluster": cluster, "task": {"type": "worker", "index": index}}
        for index in range(workers)
    ]
    started = [
        start(folder, trainings, task if workers > 1 else None)
        for task in tasks
    ]
    try:
        outputs = ["".join(p.communicate(DEADLINE_S)) for p in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], outputs


def result(folder, index=0):
    found = np.load(folder / f"result{index}.npz")
    return [found[key] for key in found.files if key != "logs"], found["logs"]


def check_equal(folder, expected, *, atol, index=0):
    weights, logs = result(folder, index)
    for found, wanted in zip(weights, expected[0], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
    np.testing.assert_allclose(logs, expected[1], rtol=2e-5, atol=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A function from an optimizer to the result of one big batch.

    It trains in this process, once.
    """
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def result_of(optimizer):
        worker.train(
            folder / optimizer,
            STEPS,
            tf.distribute.get_strategy(),
            micro_batches=1,
            optimizer=optimizer,
            kill_at=None,
            without=None,
        )
        return result(folder / optimizer)

    return result_of


# Replicas, micro-batches. (Two replicas are also in test_distiller.py.)
DIVISIONS = [(2, 1), (2, 2), (1, 4)]


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """The folder of one process that divides its batches."""
    folder = tmp_path_factory.mktemp("divided")
    status, outputs = train(
        folder,
        *(
            training(f"{count}_{parts}", replicas=count, micro_batches=parts)
            for count, parts in DIVISIONS
        ),
    )
    assert status == [0], outputs
    return folder


@pytest.mark.slow
@pytest.mark.essential
@pytest.mark.parametrize(("replicas", "micro_batches"), DIVISIONS)
def test_replicas_and_micro_batches_are_one_batch(
    alone, divided, replicas, micro_batches
):
    folder = divided / f"{replicas}_{micro_batches}"
    check_equal(folder, alone("sgd"), atol=1e-6)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """The folder of a training by two workers."""
    folder = tmp_path_factory.mktemp("two_workers")
    status, outputs = train(
        folder,
        training("clipped", optimizer="clipped", micro_batches=2),
        workers=2,
    )
    assert status == [0, 0], outputs
    return folder


@pytest.fixture(scope="module")
def killed_workers(tmp_path_factory):
    """The folder of a training by two workers that were killed."""
    folder = tmp_path_factory.mktemp("killed_workers")
    status, outputs = train(
        folder, training("whole"), training("killed", kill_at=7), workers=2
    )
    assert status == [9, 9], outputs
    return folder


def check_workers_equal(folder, expected, *, atol):
    for index in range(2):
        check_equal(folder, expected, atol=atol, index=index)
    # Only the chief writes.
    assert (folder / "worker0" / "metrics.jsonl").is_file()
    assert not (folder / "worker1").exists()


# Momentum and clipping make ten times the rounding of plain descent. (Adam
# would make noise of gradients that are zero, such as those of key biases.)


@pytest.mark.slow
def test_two_workers_are_one_process(alone, two_workers):
    folder = two_workers / "clipped"
    check_workers_equal(folder, alone("clipped"), atol=1e-5)


@pytest.mark.slow
def test_two_workers_of_whole_batches_are_one_process(alone, killed_workers):
    check_workers_equal(killed_workers / "whole", alone("sgd"), atol=1e-6)


def check_error_after(folder, name, status, outputs):
    """The training `name` was done, the one after it failed."""
    for index in range(2):
        assert (folder / name / f"result{index}.npz").is_file(), outputs
    assert 0 not in status, "Keras works without the repair now"
    assert any("Error" in output for output in outputs), outputs


# The last training of each pair of workers is without a method that repairs
# Keras. If it does not fail any more, remove the method from the Distiller.


@pytest.mark.slow
def test_two_workers_of_two_replicas_are_one_process(alone, tmp_path):
    status, outputs = train(
        tmp_path,
        training("four", replicas=2, micro_batches=2),
        training("failing", replicas=2, without="_maybe_symbolic_build"),
        workers=2,
    )
    check_error_after(tmp_path, "four", status, outputs)
    check_workers_equal(tmp_path / "four", alone("sgd"), atol=1e-6)


@pytest.mark.slow
@pytest.mark.essential
def test_workers_that_were_all_killed_continue(alone, killed_workers):
    folder = killed_workers / "killed"
    newest = max((folder / "states").iterdir())
    assert newest.name == "step-000000006"
    status, outputs = train(
        killed_workers,
        training("killed"),
        training("failing", without="_make_function"),
        workers=2,
    )
    check_error_after(killed_workers, "killed", status, outputs)
    # Metrics continue too: the logs are those of all twenty updates.
    check_equal(folder, alone("sgd"), atol=1e-6)


@pytest.mark.slow
def test_a_recipe_runs_on_two_workers(toy_recipe, toy_run, tmp_path):
    folder = tmp_path / "run"
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    started = [
        processes.Process(
            [
                *["-m", "keras_distil.cli.app", "run", toy_recipe],
                *["--quiet", "--output", folder],
                *["--workers", workers, "--worker-index", index],
            ]
        )
        for index in range(2)
    ]
    try:
        outputs = ["".join(p.communicate(DEADLINE_S)) for p in started]
    finally:
        for process in started:
            process.kill()
    assert [p.returncode for p in started] == [0, 0], outputs
    rows = [
        json.loads((where / "report.json").read_text())["rows"]["student"]
        for where in (folder, toy_run.folder)
    ]
    assert rows[0]["mlm_loss"] == pytest.approx(rows[1]["mlm_loss"], rel=1e-5)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("addresses", "index", "message"),
    [
        ("a:1,b", 0, "must name workers as host:port. Received: 'b'"),
        ("a:1,a:1", 0, "names an address twice"),
        ("a:1,b:1", 2, "`--worker-index` must be from 0 to 1"),
    ],
)
def test_wrong_workers_are_reported(addresses, index, message):
    with pytest.raises(ValueError, match=message):
        distribution.name_workers(addresses, index)


def test_a_wrong_variable_is_reported(monkeypatch):
    for wrong in ("{", "[]", '{"cluster": {"worker": ["a:1"]}}'):
        monkeypatch.setenv("TF_CONFIG", wrong)
        with pytest.raises(ValueError, match="TF_CONFIG cannot be read"):
            distribution.worker_index()


def test_several_workers_need_their_addresses(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="multi_worker` needs workers"):
        distribution.make_strategy("multi_worker")
