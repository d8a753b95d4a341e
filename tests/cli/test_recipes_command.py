"""`keras-distil recipes`, and shipped names where commands take a recipe."""

import pytest
from commands import keras_distil

from keras_distil.config import shipped

GENERAL = "masked_lm_minilm_to_3_layers"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """An empty working directory."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_each_has_a_line(capsys):
    status, out, err = keras_distil(capsys, "recipes")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [x.split()[0] for x in lines[:-2]] == shipped.list_names()
    assert all(len(line) <= 80 for line in lines)
    (line,) = [x for x in lines if x.startswith("quickstart ")]
    assert line.endswith("  Distils the embedded teacher to half its layers.")
    assert lines[-2:] == [
        "Run one: keras-distil run NAME",
        "Change one: keras-distil recipes copy NAME",
    ]


def test_a_copy_is_the_original_and_overwrites_nothing(capsys, empty_folder):
    status, out, _ = keras_distil(capsys, "recipes", "copy", "quickstart")
    assert status == 0
    assert out == (
        "Copied: quickstart.yaml\nNext: keras-distil run quickstart.yaml\n"
    )
    copy = empty_folder / "quickstart.yaml"
    original = shipped.FOLDER / "quickstart.yaml"
    assert copy.read_bytes() == original.read_bytes()
    copy.write_text("mine")
    status, out, err = keras_distil(capsys, "recipes", "copy", "quickstart")
    assert (status, out) == (1, "")
    assert err == (
        "keras-distil: quickstart.yaml exists, and nothing is overwritten. "
        "Rename it, or copy into another folder.\n"
    )
    assert copy.read_text() == "mine"
    assert list(empty_folder.iterdir()) == [copy]


def test_an_unknown_name_is_one_line(capsys, empty_folder):
    status, _, err = keras_distil(capsys, "recipes", "copy", "../quickstart")
    assert status == 1
    assert err == (
        "keras-distil: `NAME` must be the name of a shipped recipe; the "
        "nearest: quickstart, search_quickstart. Received: '../quickstart'. "
        "`keras-distil recipes` lists them.\n"
    )
    assert list(empty_folder.iterdir()) == []


COMMANDS = [
    ["run"],
    ["distill"],
    ["finetune"],
    ["prepare"],
    ["evaluate", "--task", "rte", "--model", "x.keras"],
    ["export"],
    ["plan"],
    ["plot"],
    ["benchmark"],
    ["search"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[0])
def test_every_command_takes_a_shipped_name(
    capsys, monkeypatch, empty_folder, command
):
    status, _, err = keras_distil(capsys, *command, "quikstart")
    assert status == 1
    run = ", the folder of a run" * (command[0] in ("export", "benchmark"))
    assert err == (
        f"keras-distil: `RECIPE` must be a YAML file{run} or the name of a "
        "shipped recipe; the nearest: quickstart, search_quickstart. Received: "
        "'quikstart', which does not exist. `keras-distil recipes` lists the "
        "names.\n"
    )
    # It is the recipe's key that is wrong, so the recipe was found.
    wrong = ("--set", "sed=1")
    status, _, err = keras_distil(capsys, *command, "quickstart", *wrong)
    assert status == 1
    message = "sed: unknown key; nearest valid key: seed."
    assert err == f"keras-distil: quickstart: {message}\n"
    # A file of that name comes first.
    (empty_folder / "quickstart").write_text("name: a\nsde: 1\n")
    status, _, err = keras_distil(capsys, *command, "quickstart")
    assert status == 1
    assert "quickstart: sde: unknown key" in err


def test_a_folder_of_that_name_comes_first(capsys, empty_folder):
    (empty_folder / "quickstart").mkdir()
    status, _, err = keras_distil(capsys, "run", "quickstart")
    assert status == 1
    assert err == (
        "keras-distil: `RECIPE` must be a YAML file or the name of a shipped "
        "recipe. Received: 'quickstart', a folder. It comes before the shipped "
        "recipe of this name: rename it, or start elsewhere.\n"
    )
    (empty_folder / "mine").mkdir()
    status, _, err = keras_distil(capsys, "run", "mine")
    assert status == 1
    assert err == (
        "keras-distil: `RECIPE` must be a YAML file or the name of a shipped "
        "recipe. Received: 'mine', a folder. A run's recipe is its file "
        "recipe.yaml.\n"
    )
    status, _, err = keras_distil(capsys, "export", "quickstart")
    assert status == 1
    assert err == (
        "keras-distil: `RECIPE` must be a recipe or the folder of a run. "
        "Received: 'quickstart', a folder without recipe.yaml.\n"
    )


@pytest.mark.parametrize("option", ["--dry-run", "--quiet", "--fresh"])
def test_a_recipe_says_which_other_one_comes_first(
    capsys, empty_folder, option
):
    given = f"student.baseline_source=saved_models/{GENERAL}/baseline.keras"
    status, out, err = keras_distil(
        capsys, "run", "glue", option, "--set", given
    )
    assert (status, out) == (1, "")
    assert err == (
        "keras-distil: `student.baseline_source` is "
        f"saved_models/{GENERAL}/baseline.keras, which is missing: it comes "
        f"from the recipe {GENERAL}. Run that one first: keras-distil run "
        f"{GENERAL} --set data.root=FOLDER\n"
    )
    # No folder is left that a later run would meet.
    assert list(empty_folder.iterdir()) == []


def test_a_finished_run_is_shown_without_what_it_started_from(
    capsys, toy_run, empty_folder
):
    toy_run.copy(empty_folder / "saved_models" / "glue")
    given = f"student.baseline_source=saved_models/{GENERAL}/baseline.keras"
    command = ("run", "glue", "--set", given)
    status, _, err = keras_distil(capsys, *command)
    assert status == 1
    assert "holds a finished run of another recipe" in err
    status, _, err = keras_distil(capsys, *command, "--fresh")
    assert status == 1
    assert "Run that one first" in err
    assert (empty_folder / "saved_models" / "glue" / "report.json").is_file()
