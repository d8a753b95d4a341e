"""`keras-distil search` on toy models: finished, failed, resumed, shared."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml
from commands import keras_distil, run_command

from keras_distil import callbacks, config
from keras_distil.runs import run_folder, stages
from keras_distil.search import recipe_search, results
from keras_distil.utils.progress import Progress

SPACE = """
search:
  tuner: grid
  objective: mlm_loss
  space:
    distill.learning_rate: {choices: [1.0e-3, 1.0e-2]}
"""


RANGE = SPACE.replace(
    "{choices: [1.0e-3, 1.0e-2]}", "{min: 1.0e-4, max: 1.0e-2, scale: log}"
)


def write(toy_recipe, text=SPACE, folder=None):
    path = (folder or toy_recipe.parent) / "search.yaml"
    path.write_text(toy_recipe.read_text() + text)
    return path


@pytest.fixture(scope="module")
def finished(shared_toy_recipe, tmp_path_factory):
    """A finished search, its folder and what it printed."""
    path = write(shared_toy_recipe, folder=tmp_path_factory.mktemp("search"))
    folder = path.parent / "search"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = run_command("search", path, "--output", folder)
    assert status == 0
    return path, folder, printed.getvalue()


@pytest.mark.slow
def test_a_search_ends_with_a_table_and_a_recipe(finished):
    path, folder, out = finished
    found = json.loads((folder / results.RESULT_FILE).read_text())
    assert [row["name"] for row in found["trials"]] == [
        "recipe",
        "trial_00",
        "trial_01",
    ]
    assert found["trials"][0]["values"] == {"distill.learning_rate": 1e-3}
    for text in ("trial_00", "trial_01", "0.001", str(folder)):
        assert text in out.replace("\n", "")
    losses = [row["score"] for row in found["trials"][1:]]
    assert found["best"] == 1 + losses.index(min(losses))
    # The recipe's own learning rate is the first of the grid: trials and the
    # recipe's own values begin with the same student and see the same batches.
    assert losses[0] == pytest.approx(found["trials"][0]["score"], rel=1e-6)
    best = config.load_recipe(folder / results.BEST_FILE)
    recipe = config.load_recipe(path)
    assert best.search is None and best.name == "toy_best"
    values = found["trials"][found["best"]]["values"]
    assert best.distill.learning_rate == values["distill.learning_rate"]
    assert best.data == recipe.data
    assert (folder / results.CHART_FILE).read_bytes()[:4] == b"\x89PNG"
    # Each has a checkpoint of the student, and no training state is left.
    assert len(list(folder.glob("trials/trial_*/*.weights.h5"))) == 2
    assert not list(folder.glob("*/*/training_state"))
    for name in ("recipe", "trial_00"):
        assert list((folder / "logs" / name / "train").glob("events*"))


@pytest.mark.slow
def test_the_best_recipe_reaches_what_its_trial_did(finished):
    path, folder, _ = finished
    found = json.loads((folder / results.RESULT_FILE).read_text())
    best = config.load_recipe(folder / results.BEST_FILE)
    target = folder.parent / "best"
    run = run_folder.open_run(best, target, Progress(quiet=True))
    report = stages.run_recipe(run)
    scores = found["trials"][found["best"]]["scores"]
    # Of 8 sequences each half has 4: the mean, up to their masked words.
    halves = [scores["held_out_mlm_loss"], scores["check_mlm_loss"]]
    loss = report["rows"]["student"]["mlm_loss"]
    assert min(halves) <= loss <= max(halves)


@pytest.mark.slow
def test_a_finished_search_is_shown_again(finished, capsys, monkeypatch):
    path, folder, _ = finished
    monkeypatch.setattr(recipe_search, "prepare", None)
    before = json.loads((folder / results.RESULT_FILE).read_text())
    command = ["search", path, "--output", folder]
    status, out, err = keras_distil(capsys, *command, "--json")
    assert status == 0
    assert "Already finished" in err
    assert json.loads(out) == {**before, "folder": str(folder)}
    status, _, err = keras_distil(capsys, *command, "--set", "seed=3")
    assert status == 1
    assert "run of another recipe" in err


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", ["", "[]", "{", '{"trials": [1, 2], "best": 7}']
)
def test_damaged_results_count_as_none(finished, tmp_path, damage):
    path, _, _ = finished
    recipe = config.load_recipe(path)
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    assert results.read(run.folder) is None
    (run.folder / results.RESULT_FILE).write_text(damage)
    assert results.read(run.folder) is None


def test_slow_students_are_not_trained(toy_recipe, tmp_path, capsys):
    path = write(toy_recipe)
    status, out, err = keras_distil(
        capsys,
        *["search", path, "--output", tmp_path / "run"],
        *["--set", "search.max_latency_ms=0.00001"],
    )
    assert status == 1
    assert err.splitlines()[-1].startswith(
        "keras-distil: No trial has a score: see "
    )
    found = json.loads((tmp_path / "run" / results.RESULT_FILE).read_text())
    assert found["best"] is None
    for row in found["trials"]:
        assert row["message"].startswith("Too slow, not trained: ")
    assert not (tmp_path / "run" / "logs").exists()
    assert "3 trials" not in out and "2 trials, 2 without a score" in out


@pytest.mark.slow
def test_a_search_by_a_task(toy_recipe, toy_glue, tmp_path, capsys):
    path = write(
        toy_recipe,
        SPACE.replace("mlm_loss", "rte")
        + """
finetune:
  tasks: [rte]
  source: files
  epochs: 1
  batch_size: 4
  max_length: 12
  jit_compile: false
  rows: [teacher, student]
""",
    )
    for text in tmp_path.glob("text/*.txt"):
        text.rename(toy_glue / text.name)
    status, _, err = keras_distil(
        capsys,
        *["search", path, "--output", tmp_path / "run"],
        *["--set", f"data.root={toy_glue}", "--set", "search.trials=1"],
    )
    assert status == 0, err
    folder = tmp_path / "run"
    found = json.loads((folder / results.RESULT_FILE).read_text())
    own, trial = found["trials"]
    # Matthews' correlation is of CoLA; RTE has accuracy: of 8 examples.
    for row in (own, trial):
        assert row["score"] == row["scores"]["rte"]
        assert (8 * row["score"]) % 1 == 0
    assert len(list(folder.glob("tasks/rte/teacher/*/model.keras"))) == 1
    assert not list(folder.glob("trials/*/tasks"))


def test_a_port_in_use_is_reported(toy_recipe, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = keras_distil(
            capsys,
            *["search", write(toy_recipe), "--output", tmp_path / "run"],
            *["--processes", "2", "--port", port],
        )
    assert status == 1
    assert err.splitlines()[-1].startswith(
        f"keras-distil: Port {port} of 127.0.0.1 cannot be listened on"
    )


def test_a_recipe_without_a_search_is_refused(toy_recipe, tmp_path, capsys):
    status, _, err = keras_distil(
        capsys, "search", toy_recipe, "--output", tmp_path / "run"
    )
    assert status == 1
    assert "has no section `search`" in err
    assert not (tmp_path / "run").exists()


def test_held_out_text_must_be_enough(toy_recipe, tmp_path, capsys):
    status, _, err = keras_distil(
        capsys,
        *["search", write(toy_recipe), "--output", tmp_path / "run"],
        *["--set", "evaluate.batch_size=8"],
    )
    assert status == 1
    assert "needs two batches of held-out text" in err


@pytest.mark.slow
def test_two_processes_share_a_search_and_outlive_a_kill(toy_recipe, tmp_path):
    path = write(toy_recipe)
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "keras_distil", "search", str(path)]
    command += ["--output", str(folder), "--processes", "2"]
    # Long enough to be hit, and kept at every update.
    changes = ["distill.steps=20", "checkpoint_steps=1"]
    for change in changes:
        command += ["--set", change]
    log = folder / "worker0.log"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as search:
        killed = None
        while search.poll() is None and killed is None:
            time.sleep(0.1)
            for state in folder.glob("trials/*/training_state/*"):
                del state
                killed = worker_of(log)
                break
        if killed is not None:
            os.kill(killed, signal.SIGKILL)
        out, err = search.communicate()
    assert search.returncode == 0, err
    assert killed is not None
    assert "worker0 ended with status -9 and is restarted" in err
    found = json.loads((folder / results.RESULT_FILE).read_text())
    assert [row["score"] is not None for row in found["trials"]] == [True] * 3
    assert yaml.safe_load((folder / results.BEST_FILE).read_text())
    # Each took its part.
    logs = [(folder / f"worker{x}.log").read_text() for x in (0, 1)]
    assert all("Train trial_0" in text for text in logs)


def worker_of(log):
    """The process that writes a log, by what it has opened."""
    for process in os.listdir("/proc"):
        if process.isdecimal():
            try:
                where = os.readlink(f"/proc/{process}/fd/1")
            except OSError:
                continue
            if where == str(log):
                return int(process)
    return None


@pytest.mark.slow
def test_hyperband_ends_the_worse_trials(toy_recipe, tmp_path, capsys):
    path = write(
        toy_recipe,
        RANGE.replace("tuner: grid", "tuner: hyperband\n  evaluations: 3"),
    )
    status, _, err = keras_distil(
        capsys, "search", path, "--output", tmp_path / "run"
    )
    assert status == 0, err
    folder = tmp_path / "run"
    trials = sorted(folder.glob("trials/trial_*/trial.json"))
    epochs = [
        json.loads(path.read_text())["hyperparameters"]["values"][
            "tuner/epochs"
        ]
        for path in trials
    ]
    # Some were ended after the first of three scores, one reached the third.
    assert min(epochs) == 1 and max(epochs) == 3
    found = json.loads((folder / results.RESULT_FILE).read_text())
    assert len(found["trials"]) == 1 + len(trials)
    assert not list(folder.glob("trials/*/training_state"))


@pytest.mark.slow
@pytest.mark.essential
def test_an_interrupted_search_continues(
    toy_recipe, tmp_path, capsys, monkeypatch
):
    """Within its first trial, when KerasTuner has saved almost nothing."""
    path = write(toy_recipe, RANGE.replace("grid", "bayesian"))
    changes = ["--set", "search.trials=2", "--set", "checkpoint_steps=1"]
    command = ["search", path, *changes, "--output"]
    status, _, err = keras_distil(capsys, *command, tmp_path / "whole")
    assert status == 0, err

    kept = callbacks.TrainingState.on_train_batch_end
    batches = []

    def interrupted(self, batch, logs=None):
        kept(self, batch, logs)
        batches.append(batch)
        # The recipe's own values have three; it is the first trial's second.
        if len(batches) == 5:
            raise OSError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(
            callbacks.TrainingState, "on_train_batch_end", interrupted
        )
        status, _, err = keras_distil(capsys, *command, tmp_path / "part")
    assert status == 1
    assert err.splitlines()[-1] == "keras-distil: the machine went away"
    status, _, err = keras_distil(capsys, *command, tmp_path / "part")
    assert status == 0, err
    one, other = (
        json.loads((tmp_path / name / results.RESULT_FILE).read_text())
        for name in ("whole", "part")
    )
    for row, again in zip(one["trials"], other["trials"], strict=True):
        assert again["values"] == row["values"]
        assert again["score"] == pytest.approx(row["score"], rel=1e-6)
