"""Folders that an earlier keras_distil left, read and gone on with.

They were made by `tests/golden/before_layout_runs/make_runs.py`.
"""

import json
import os
import shutil
from pathlib import Path

import marks
import numpy as np
import pytest
import yaml
from commands import keras_distil

from keras_distil import callbacks, models
from keras_distil.benchmark import race
from keras_distil.config import earlier_form
from keras_distil.models import load_task_model
from keras_distil.runs import earlier_runs, run_folder

RUNS = Path(__file__).parents[1] / "golden" / "before_layout_runs"
# Where each was stopped: its training states, and the updates in them.
STOPPED = {
    "stopped_in_distill": ("checkpoints/distill", 4),
    "stopped_in_twin": ("checkpoints/baseline", 2),
    "stopped_in_undistilled": ("tasks/rte/baseline/seed_0/checkpoints", 2),
}
EARLIER_WORDS = ("twin", "undistilled")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A copy of the folder, which is the working directory."""
    home = shutil.copytree(RUNS, tmp_path / "home")
    (home / "make_runs.py").unlink()
    # Corpora are found again by names, sizes and times.
    os.utime(home / "texts" / "lines.txt", (1_000_000_000, 1_000_000_000))
    monkeypatch.chdir(home)
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(home / "cache"))
    return home


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def present_recipe(home):
    """The recipe as its user writes it today."""
    values = yaml.safe_load((home / "recipe.yaml").read_text())
    values["distill"]["learning_rate"] = 1e-3
    values["finetune"]["learning_rate"] = 1e-3
    path = home / "present.yaml"
    path.write_text(yaml.safe_dump(earlier_form.translate(values)))
    return path


def weights_of(path):
    load = (
        load_task_model if path.name == "model.keras" else models.load_teacher
    )
    return [np.array(variable) for variable in load(path).weights]


def assert_as_uninterrupted(folder):
    """Whether a run ended with the weights of the one that was not stopped.

    Not bit for bit: another processor adds up in another order, and names of
    processors do not tell them apart.
    """
    finished = RUNS / "finished"
    for now, before in {
        "student.keras": "student.keras",
        "baseline.keras": "twin.keras",
        "tasks/rte/teacher/seed_0/model.keras": None,
        "tasks/rte/student/seed_0/model.keras": None,
        "tasks/rte/baseline/seed_0/model.keras": (
            "tasks/rte/undistilled/seed_0/model.keras"
        ),
    }.items():
        expected = weights_of(finished / (before or now))
        found = weights_of(folder / now)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def assert_present(folder):
    """Whether nothing that commands read has an earlier name."""
    files = files_of(folder)
    assert "baseline.keras" in files
    for name, content in files.items():
        assert not any(word in name for word in EARLIER_WORDS), name
        # How it was started, and the texts of then.
        if Path(name).name not in (
            *("commands.json", "report.html"),
            *("MODEL_CARD.md", "report.md"),
        ):
            for word in EARLIER_WORDS:
                assert f'"{word}'.encode() not in content, name


def test_a_finished_run_is_reported(home, capsys):
    before = files_of(home / "finished")
    status, out, err = keras_distil(capsys, "report", "finished")
    assert status == 0
    assert err == (
        "finished is of an earlier keras_distil: its keys and names are now "
        "those of this one\n"
    )
    assert "baseline" in out
    assert not any(word in out for word in EARLIER_WORDS)
    after = files_of(home / "finished")
    assert_present(home / "finished")
    assert after["baseline.keras"] == before["twin.keras"]
    model = "tasks/rte/{}/seed_0/model.keras".format
    assert after[model("baseline")] == before[model("undistilled")]
    report = json.loads(after["report.json"])
    expected = json.loads(before["report.json"])
    assert report["rows"]["baseline"] == expected["rows"]["twin"]
    assert report["tasks"]["rows"][2]["name"] == "baseline"
    assert b"<p>The baseline, the same model" in after["report.html"]
    # Now it is like any other.
    assert keras_distil(capsys, "report", "finished")[1:] == (out, "")


def test_a_finished_run_is_exported_and_measured(home, capsys, monkeypatch):
    formats = ("--format", "hugging_face")
    status, out, _ = keras_distil(capsys, "export", "finished", *formats)
    assert status == 0
    assert "finished/hugging_face" in out
    seen = []

    def run_race(contestants, *, lengths, num_threads, **arguments):
        seen.extend(each.name for each in contestants)
        latency = {length: race.Latency(2.0, 3.0) for length in lengths}
        return [
            race.Measured(each, num_threads, 0.1, 50.0, latency, 9.0)
            for each in contestants
        ]

    monkeypatch.setattr(race, "run_race", run_race)
    changed = ("--set", "benchmark={threads: [1], lengths: [8]}")
    assert keras_distil(capsys, "benchmark", "finished", *changed)[0] == 0
    assert seen[:2] == ["teacher", "student"]
    assert_present(home / "finished")


@pytest.fixture
def entered(monkeypatch):
    """Updates that trainings began with, by the folder of their states."""
    entered = {}
    start = callbacks.TrainingState.start

    def record(self, *arguments):
        position = start(self, *arguments)
        entered[self.directory] = position.batches
        return position

    monkeypatch.setattr(callbacks.TrainingState, "start", record)
    return entered


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", marks.essential(STOPPED, "stopped_in_undistilled")
)
def test_a_stopped_run_goes_on_to_equal_weights(
    home, capsys, quick_runs, entered, name
):
    folder = home / name
    if name == "stopped_in_undistilled":
        # Only what differs from the finished run is kept of it.
        rest = shutil.copytree(home / "finished", home / "rest")
        shutil.rmtree(rest / "tasks" / "rte" / "undistilled")
        for done in ("report.json", "MODEL_CARD.md", "report.md"):
            (rest / done).unlink()
        shutil.copytree(folder, rest, dirs_exist_ok=True)
        shutil.rmtree(folder)
        rest.rename(folder)
    # Its own recipe, or the user's in the form of today.
    own = name != "stopped_in_distill"
    recipe = folder / "recipe.yaml" if own else present_recipe(home)
    status, out, err = keras_distil(capsys, "run", recipe, "--output", folder)
    assert status == 0, err
    assert "is of an earlier keras_distil" in err
    assert f"Going on with the run in {folder}" in err
    assert_present(folder)
    states, updates = STOPPED[name]
    assert entered[folder / states] == updates
    assert_as_uninterrupted(folder)
    lines = (RUNS / "finished" / "metrics.jsonl").read_text().splitlines()
    stages = [json.loads(line)["stage"] for line in lines]
    found = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["stage"] for line in found] == [
        stage.replace("undistilled", "baseline").replace("twin", "baseline")
        for stage in stages
    ]


def test_a_recipe_of_the_user_s_is_not_translated(home, capsys):
    before = files_of(home)
    status, out, err = keras_distil(
        capsys, "run", "recipe.yaml", "--output", "finished"
    )
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert len(lines) == 12
    assert all(": write `" in line for line in lines)
    assert files_of(home) == before


def test_the_baseline_of_an_earlier_run_is_found_as_its_message_says(
    home, capsys
):
    name = "finished/{}.keras".format
    recipe = present_recipe(home)
    values = yaml.safe_load(recipe.read_text())
    del values["distill"]
    values["student"] = {"baseline_source": name("baseline")}
    values["finetune"]["rows"] = ["baseline"]
    recipe.write_text(yaml.safe_dump(values))
    command = ("run", recipe, "--dry-run")
    assert keras_distil(capsys, *command)[1:] == (
        "",
        "keras-distil: `student.baseline_source` is finished/baseline.keras, "
        "but the run is of an earlier keras_distil, where it is twin.keras. "
        "`keras-distil report finished` gives its files the present names.\n",
    )
    assert keras_distil(capsys, "report", "finished")[0] == 0
    assert keras_distil(capsys, *command)[0] == 0
    change = ("--set", f"student.baseline_source={name('twin')}")
    assert keras_distil(capsys, *command, *change)[2] == (
        "keras-distil: `student.baseline_source` is finished/twin.keras, which "
        "is now baseline.keras: write that.\n"
    )


@pytest.mark.slow
@pytest.mark.essential
def test_an_earlier_corpus_and_cache_are_read(home, capsys, quick_runs):
    before = files_of(home / "cache"), files_of(home / "corpus")
    changes = (
        "teacher.cache={top_k: 4, maskings: 2}",
        "finetune=null",
        "data.prepared=../corpus",
    )
    words = [word for change in changes for word in ("--set", change)]
    command = ("run", present_recipe(home), "--output", "run", *words)
    status, _, err = keras_distil(capsys, *command)
    assert status == 0, err
    assert (files_of(home / "cache"), files_of(home / "corpus")) == before


def test_a_kill_in_the_middle_does_no_harm(home, capsys, monkeypatch):
    with monkeypatch.context() as patch:

        def dump(recipe):
            raise KeyboardInterrupt

        patch.setattr(earlier_runs.config, "dump_recipe", dump)
        with pytest.raises(KeyboardInterrupt):
            earlier_runs.translate_run(home / "finished", print)
    capsys.readouterr()
    assert keras_distil(capsys, "report", "finished")[0] == 0
    assert_present(home / "finished")


def test_a_folder_in_use_is_left_alone(home, capsys):
    before = files_of(home)
    with run_folder.locked(home / "finished"):
        status, out, err = keras_distil(capsys, "report", "finished")
    assert (status, out) == (1, "")
    assert err.startswith("keras-distil: Another process runs in finished.")
    (home / ".finished.lock").unlink()
    assert files_of(home) == before


def test_runs_of_the_first_order_of_data_keep_their_version(home):
    """They cannot go on, whatever their names."""
    environment = home / "finished" / "environment.json"
    values = json.loads(environment.read_text())
    environment.write_text(json.dumps({**values, "format_version": 1}))
    said = []
    for _ in range(2):
        earlier_runs.translate_run(home / "finished", said.append)
    assert len(said) == 1
    assert_present(home / "finished")
    assert json.loads(environment.read_text())["format_version"] == 1


def test_what_is_damaged_is_left_to_its_reader(home, capsys):
    folder = home / "finished"
    (folder / "recipe.yaml").write_text("name: [")
    before = files_of(folder)
    earlier_runs.translate_run(folder, print)
    assert capsys.readouterr().out == ""
    assert files_of(folder) == before
    shutil.copy(RUNS / "finished" / "recipe.yaml", folder)
    (folder / "held_out.json").write_text("{")
    (folder / "report.json").write_text("[" * 10**5)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("[" * 10**5 + "\n")
        file.write('{"stage": "tw')
    earlier_runs.translate_run(folder, print)
    assert (folder / "baseline.keras").is_file()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert lines[-1] == '{"stage": "tw'
    earlier_runs.translate_run(home / "nothing", print)


def test_a_search_is_translated(home):
    """Keys of its space, and what the recipe's own values are called."""
    folder = home / "finished"
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    key = "distill.losses.temperature"
    values |= {
        "finetune": None,
        "name": "twin",
        "search": {"space": {key: {"choices": [1.0, 2.0]}}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    trials = folder / "trials" / "trial_0"
    trials.mkdir(parents=True)
    (folder / "baseline").mkdir()
    (folder / "logs" / "baseline").mkdir(parents=True)
    row = {"name": "baseline", "values": {key: 2.0}}
    contents = {
        folder / "search.json": {"name": "twin", "trials": [row]},
        folder / "trials" / "oracle.json": {"space": [{"name": key}]},
        trials / "values.json": {key: 1.0},
    }
    for path, content in contents.items():
        path.write_text(json.dumps(content))
    earlier_runs.translate_run(folder, print)
    present = "distill.losses.soft_target.temperature"
    found = {path: json.loads(path.read_text()) for path in contents}
    assert list(found.values()) == [
        {
            "name": "twin",
            "trials": [{"name": "recipe", "values": {present: 2}}],
        },
        {"space": [{"name": present}]},
        {present: 1.0},
    ]
    assert (trials / "values.json").read_text() == json.dumps({present: 1.0})
    assert (folder / "recipe").is_dir()
    assert (folder / "logs" / "recipe").is_dir()
