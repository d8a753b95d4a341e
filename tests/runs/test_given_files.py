"""Files from earlier runs: found, or told with what makes them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from keras_distil import config
from keras_distil.config import shipped
from keras_distil.runs import given_files, run_folder

RUNS = Path("saved_models")
# Recipes by what they start from.
FIRST = {"teacher_minilm_mlm_docs": "teacher_minilm_mlm"}
# Both students of a run on text.
GENERAL = RUNS / "masked_lm_minilm_to_3_layers"
STUDENTS = (
    f"student.source={GENERAL / run_folder.STUDENT_FILE}",
    f"student.baseline_source={GENERAL / run_folder.BASELINE_FILE}",
)


def load(name, *overrides):
    return config.load_recipe(shipped.find_shipped(name), overrides)


def message_of(recipe):
    with pytest.raises(FileNotFoundError) as caught:
        given_files.check_given_files(recipe)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped.list_names())
def test_who_needs_another_recipe_says_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load(name)
    if name not in FIRST:
        given_files.check_given_files(recipe)
        return
    message = message_of(recipe)
    command = shipped.read_command(FIRST[name])
    assert message.endswith(f"{FIRST[name]}. Run that one first: {command}")
    # What the first recipe writes by default is what this one reads.
    file = Path(re.search(r"is (\S+), which is missing", message)[1])
    assert file.parent == RUNS / load(FIRST[name]).name
    folder = tmp_path / file.parent
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").touch()
    given_files.check_given_files(recipe)


def test_each_student_is_looked_for_if_its_row_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / GENERAL
    folder.mkdir(parents=True)
    (folder / run_folder.BASELINE_FILE).touch()
    rows = "finetune.rows=[teacher, {}]".format
    assert "`student.source` is" in message_of(load("glue", *STUDENTS))
    given_files.check_given_files(
        load(
            "glue",
            *STUDENTS,
            rows("baseline"),
            "finetune.teacher_cache=false",
            "finetune.unlabelled_share=null",
            "finetune.by_task={}",
        )
    )
    (folder / run_folder.BASELINE_FILE).rename(folder / run_folder.STUDENT_FILE)
    message = message_of(load("glue", *STUDENTS))
    assert "`student.baseline_source` is" in message
    given_files.check_given_files(load("glue", *STUDENTS, rows("student")))


@pytest.mark.parametrize(
    "source", ["elsewhere/{}/student.keras", "saved_models/{}/x/student.keras"]
)
def test_files_of_other_places_are_only_missing(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = source.format(GENERAL.name)
    rows = "finetune.rows=[teacher, student]"
    recipe = load("glue", rows, f"student.source={source}")
    assert message_of(recipe) == (
        f"`student.source` is {source}, but there is no such file."
    )


@pytest.mark.parametrize("source", ["hf://a/b", "folder", "a_preset"])
def test_other_sources_are_not_files(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "finetune.rows=[teacher, student]"
    given_files.check_given_files(
        load("glue", rows, f"student.source={source}")
    )


@pytest.mark.parametrize("option", ["--dry-run", "--quiet"])
def test_it_is_told_before_tensorflow_is_loaded(tmp_path, option):
    code = (
        "import sys\n"
        "from keras_distil.cli import app\n"
        f"sys.argv = ['keras-distil', 'run', 'glue', '{option}', '--set', "
        f"'{STUDENTS[0]}', '--set', '{STUDENTS[1]}']\n"
        "try:\n"
        "    app.main()\n"
        "finally:\n"
        "    loaded = {'tensorflow', 'keras', 'keras_hub'} & set(sys.modules)\n"
        "    print(sorted(loaded))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1
    assert "Run that one first" in done.stderr
    assert done.stdout == "[]\n"
