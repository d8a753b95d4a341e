"""`keras-distil report`: of runs, finished or not, and of searches."""

import json
import shutil

import pytest
from commands import keras_distil

RESULT = {
    "name": "toy",
    "objective": "mlm_loss",
    "metric": "held_out_mlm_loss",
    "direction": "min",
    "trials": [
        {
            "name": "recipe",
            "values": {"distill.learning_rate": 1e-3},
            "score": 4.5,
            "scores": {"duration_s": 1.0},
        },
        {
            "name": "trial_00",
            "values": {"distill.learning_rate": 1e-2},
            "score": 4.25,
            "scores": {"duration_s": 2.0},
        },
    ],
    "best": 1,
}


def test_a_report_is_shown_again(capsys, toy_run):
    # In the folder itself, whose path is in what is told.
    folder, told = toy_run.folder, toy_run.printed
    page = folder / "report.html"
    before = page.read_text()
    page.unlink()
    try:
        status, out, _ = keras_distil(capsys, "report", folder)
        assert status == 0
        assert out.strip() and out in told
        assert page.read_text() == before
    finally:
        page.write_text(before)
    status, out, err = keras_distil(capsys, "report", folder, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads((folder / "report.json").read_text())


@pytest.fixture
def unfinished(toy_run, tmp_path):
    """The folder of a run that was stopped after its student was distilled."""
    folder = toy_run.copy(tmp_path / "my run")
    (folder / "report.json").unlink()
    return folder


def test_an_unfinished_run_has_the_table_of_its_first_part(
    capsys, unfinished, toy_run
):
    held_out = json.loads((unfinished / "held_out.json").read_text())
    status, out, err = keras_distil(capsys, "report", unfinished)
    assert status == 0
    assert "student before" in out
    recipe = unfinished / "recipe.yaml"
    command = f"keras-distil run '{recipe}' --output '{unfinished}'"
    assert err == (
        f"The run in {unfinished} is unfinished. Go on with it: {command}\n"
    )
    status, out, err = keras_distil(capsys, "report", unfinished, "--json")
    assert status == 0
    assert json.loads(out) == held_out
    assert "is unfinished" in err
    (unfinished / "held_out.json").unlink()
    status, out, err = keras_distil(capsys, "report", unfinished)
    assert (status, out) == (1, "")
    assert err == (
        f"keras-distil: The run in {unfinished} has no table yet. Go on with "
        f"it: {command}\n"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("quick_runs")
def test_the_command_that_is_named_goes_on(
    capsys, unfinished, toy_run, monkeypatch
):
    cache = toy_run.folder.with_name("cache")
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(cache))
    command = ["run", unfinished / "recipe.yaml", "--output", unfinished]
    status, out, err = keras_distil(capsys, *command)
    assert status == 0, err
    before = json.loads((toy_run.folder / "report.json").read_text())
    after = json.loads((unfinished / "report.json").read_text())
    assert after["rows"] == before["rows"]


def test_a_search(capsys, toy_run, tmp_path):
    folder = tmp_path / "search"
    (folder / "trials").mkdir(parents=True)
    for name in ("recipe.yaml", "environment.json"):
        shutil.copy(toy_run.folder / name, folder)
    status, out, err = keras_distil(capsys, "report", folder)
    assert (status, out) == (1, "")
    assert err == (
        f"keras-distil: The search in {folder} is unfinished. Go on with it: "
        f"keras-distil search {folder}/recipe.yaml --output {folder}\n"
    )
    (folder / "search.json").write_text(json.dumps(RESULT))
    status, out, err = keras_distil(capsys, "report", folder)
    assert (status, err) == (0, "")
    assert "toy, search" in out and "Best: trial_00." in out
    status, out, _ = keras_distil(capsys, "report", folder, "--json")
    assert json.loads(out) == RESULT


def test_what_is_no_run(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").touch()
    (tmp_path / "empty").mkdir()
    received = {
        "toy.yaml": "a file",
        "empty": "a folder without recipe.yaml",
        "nothing": "which does not exist",
    }
    for name, what in received.items():
        status, out, err = keras_distil(capsys, "report", name)
        assert (status, out) == (1, "")
        assert err == (
            "keras-distil: `RUN` must be the folder of a run, or of a search. "
            f"Received: '{name}', {what}.\n"
        )
    for name in "abcd":
        folder = tmp_path / "saved_models" / name
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").touch()
    remedy = (
        " Give a run in saved_models, such as saved_models/a, saved_models/b, "
        "saved_models/c.\n"
    )
    for name in ("a", "toy.yaml", "saved_models"):
        status, _, err = keras_distil(capsys, "report", name)
        assert status == 1
        assert err.endswith(remedy)
