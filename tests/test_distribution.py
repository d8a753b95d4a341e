"""One mathematics at every scale, in real processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_distil import distribution

TESTS = Path(__file__).parent
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


def start(folder, *, steps, micro_batches, optimizer, replicas, kill_at, task):
    environment = {
        **os.environ,
        "REPLICAS": str(replicas),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    if task is not None:
        environment["TF_CONFIG"] = json.dumps(task)
    numbers = [steps, micro_batches, optimizer]
    numbers += [kill_at] if kill_at else []
    return subprocess.Popen(
        [sys.executable, TESTS / "worker.py", folder, *map(str, numbers)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(
    folder,
    *,
    workers=1,
    replicas=1,
    micro_batches=1,
    optimizer="sgd",
    kill_at=None,
):
    """Exit statuses and outputs of the workers."""
    folder.mkdir(exist_ok=True)
    ports = free_ports(workers)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    tasks = [
        {"cluster": cluster, "task": {"type": "worker", "index": index}}
        for index in range(workers)
    ]
    processes = [
        start(
            folder / f"worker{index}",
            steps=STEPS,
            micro_batches=micro_batches,
            optimizer=optimizer,
            replicas=replicas,
            kill_at=kill_at,
            task=task if workers > 1 else None,
        )
        for index, task in enumerate(tasks)
    ]
    try:
        outputs = [p.communicate(timeout=DEADLINE_S)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def result(folder, index=0):
    found = np.load(folder / f"result{index}.npz")
    return [found[key] for key in found.files if key != "logs"], found["logs"]


def check_equal(folder, expected, *, atol, index=0):
    weights, logs = result(folder, index)
    for found, wanted in zip(weights, expected[0], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
    np.testing.assert_allclose(logs, expected[1], rtol=2e-5, atol=1e-6)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Results of one process and one big batch, by optimizer."""
    results = {}
    for optimizer in ("sgd", "clipped"):
        folder = tmp_path_factory.mktemp(optimizer)
        status, outputs = train(folder, optimizer=optimizer)
        assert status == [0], outputs
        results[optimizer] = result(folder)
    return results


@pytest.mark.parametrize(
    ("replicas", "micro_batches"), [(2, 1), (2, 2), (1, 4)]
)
def test_replicas_and_micro_batches_are_one_batch(
    one_process, tmp_path, replicas, micro_batches
):
    status, outputs = train(
        tmp_path, replicas=replicas, micro_batches=micro_batches
    )
    assert status == [0], outputs
    check_equal(tmp_path, one_process["sgd"], atol=1e-6)


@pytest.mark.parametrize(
    ("replicas", "micro_batches", "optimizer", "atol"),
    # Momentum and clipping make ten times the rounding. (Adam would make
    # noise of gradients that are zero, such as those of key biases.)
    [(1, 1, "sgd", 1e-6), (1, 2, "clipped", 1e-5), (2, 2, "sgd", 1e-6)],
)
def test_two_workers_are_one_process(
    one_process, tmp_path, replicas, micro_batches, optimizer, atol
):
    status, outputs = train(
        tmp_path,
        workers=2,
        replicas=replicas,
        micro_batches=micro_batches,
        optimizer=optimizer,
    )
    assert status == [0, 0], outputs
    for index in range(2):
        check_equal(tmp_path, one_process[optimizer], atol=atol, index=index)
    # The chief alone writes.
    assert (tmp_path / "worker0" / "metrics.jsonl").is_file()
    assert not (tmp_path / "worker1").exists()


def test_workers_that_were_all_killed_go_on(one_process, tmp_path):
    status, _ = train(tmp_path, workers=2, kill_at=7)
    assert status == [9, 9]
    newest = max((tmp_path / "states").iterdir())
    assert newest.name == "step-000000006"
    status, outputs = train(tmp_path, workers=2)
    assert status == [0, 0], outputs
    # Kept metrics go on too: the logs are those of all twenty updates.
    check_equal(tmp_path, one_process["sgd"], atol=1e-6)


@pytest.mark.parametrize("repair", ["_maybe_symbolic_build", "_make_function"])
def test_keras_still_needs_the_repair(tmp_path, monkeypatch, repair):
    """If this fails, remove the method from the Distiller."""
    monkeypatch.setenv("WITHOUT", repair)
    status, outputs = train(tmp_path, workers=2)
    assert 0 not in status, f"Keras works without {repair} now"
    assert any("Error" in output for output in outputs), outputs


def test_a_recipe_runs_on_two_workers(toy_recipe, tmp_path):
    folder = tmp_path / "run"
    alone = tmp_path / "alone"
    workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    common = [
        *[sys.executable, "-m", "keras_distil.cli", "run", str(toy_recipe)],
        "--quiet",
    ]
    processes = [
        subprocess.Popen(
            [
                *[*common, "--output", str(folder), "--workers", workers],
                *["--worker-index", str(index)],
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        outputs = [p.communicate(timeout=DEADLINE_S)[0] for p in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], outputs
    subprocess.run([*common, "--output", str(alone)], check=True)
    rows = [
        json.loads((where / "report.json").read_text())["rows"]["student"]
        for where in (folder, alone)
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
def test_wrong_workers_are_told(addresses, index, message):
    with pytest.raises(ValueError, match=message):
        distribution.name_workers(addresses, index)


def test_a_wrong_variable_is_told(monkeypatch):
    for wrong in ("{", "[]", '{"cluster": {"worker": ["a:1"]}}'):
        monkeypatch.setenv("TF_CONFIG", wrong)
        with pytest.raises(ValueError, match="TF_CONFIG cannot be read"):
            distribution.worker_index()


def test_several_workers_need_their_addresses(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="multi_worker` needs workers"):
        distribution.make_strategy("multi_worker")
