"""`keras-distil distill`, then `finetune`, then `run`: one run in parts."""

import json
import shutil

import pytest
from commands import keras_distil

from keras_distil import config
from keras_distil.runs import distillation, finetuning, run_folder, stages
from keras_distil.utils.progress import Progress

pytestmark = pytest.mark.usefixtures("quick_runs")

TASKS = (
    "{tasks: [rte], source: files, rows: [teacher, student], epochs: 1, "
    "batch_size: 4, max_length: 12, jit_compile: false}"
)


@pytest.fixture
def arguments(toy_recipe, toy_glue, tmp_path):
    """A recipe with text, tasks and an export; its folder."""
    text = toy_recipe.read_text()
    recipe = tmp_path / "parts.yaml"
    recipe.write_text(f"{text}\nfinetune: {TASKS}\n")
    for path in tmp_path.glob("*/*.txt"):
        if path.name != "vocab.txt":
            shutil.copy(path, toy_glue)
    root = ["--set", f"data.root={toy_glue}"]
    export = ["--set", "export.formats=[preset]"]
    return [recipe, "--output", tmp_path / "run", *root, *export]


@pytest.mark.slow
def test_the_parts_make_the_whole_run(capsys, arguments, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    status, out, err = keras_distil(capsys, "distill", *arguments)
    assert status == 0, err
    assert "student before" in out
    assert (folder / "student.keras").is_file()
    assert not (folder / "tasks").exists()
    assert not (folder / "report.json").exists()
    held_out = json.loads((folder / stages.TEXT_REPORT).read_text())
    status, shown, err = keras_distil(capsys, "report", folder)
    assert status == 0
    assert "is unfinished. Go on with it: keras-distil run" in err
    assert shown in out

    # What is distilled is not distilled again.
    monkeypatch.setattr(distillation, "make_distiller", None)
    status, out, err = keras_distil(capsys, "finetune", *arguments, "--json")
    assert status == 0, err
    assert "Found distilled" in err
    found = json.loads(out)
    assert found["rows"] == held_out["rows"]
    assert found["duration_s"] > held_out["duration_s"]
    assert [row["name"] for row in found["tasks"]["rows"]] == [
        "teacher",
        "student",
    ]
    assert not (folder / "report.json").exists()
    assert not (folder / "preset").exists()

    monkeypatch.setattr(finetuning, "make_task_trainer", None)
    status, out, err = keras_distil(capsys, "run", *arguments)
    assert status == 0, err
    report = json.loads((folder / "report.json").read_text())
    assert report["rows"] == held_out["rows"]
    assert (
        report["tasks"]["rows"][1]["tasks"]
        == (found["tasks"]["rows"][1]["tasks"])
    )
    assert [made["format"] for made in report["export"]] == ["preset"] * 2
    status, shown, err = keras_distil(capsys, "report", folder)
    assert (status, err) == (0, "")
    assert shown in out
    assert "rte" in shown
    # Finished: every part says so. What was to be written last is written now,
    # as after a kill in between.
    shown = {
        name: (folder / name).read_text()
        for name in ("report.html", "MODEL_CARD.md")
    }
    (folder / "report.html").write_text("without exports")
    (folder / "MODEL_CARD.md").unlink()
    status, _, err = keras_distil(capsys, "distill", *arguments)
    assert status == 0
    assert "Already finished" in err
    for name, text in shown.items():
        assert (folder / name).read_text() == text


def test_tasks_wait_for_the_student(capsys, arguments):
    status, _, err = keras_distil(capsys, "finetune", *arguments)
    assert status == 1
    assert err.splitlines()[-1].startswith("keras-distil: The run in ")
    assert "has not distilled its student yet" in err


def test_a_damaged_part_of_the_report_counts_as_none(
    capsys, arguments, tmp_path
):
    recipe = config.load_recipe(arguments[0], arguments[4::2])
    folder = tmp_path / "run"
    run_folder.open_run(recipe, folder, Progress(quiet=True))
    (folder / run_folder.STUDENT_FILE).touch()
    part = folder / stages.TEXT_REPORT
    for damage in ("", "{}", "[]", '{"duration_s": 1}', "{", "[" * 9999):
        part.write_text(damage)
        status, _, err = keras_distil(capsys, "finetune", *arguments)
        assert status == 1
        assert "has not distilled its student yet" in err


@pytest.mark.parametrize(
    ("command", "change"),
    [("distill", "distill=null"), ("finetune", "finetune=null")],
)
def test_a_stage_that_the_recipe_lacks_is_refused(
    capsys, arguments, command, change, tmp_path
):
    source = f"student.source={tmp_path / 'student.keras'}"
    more = ["--set", source] if command == "distill" else []
    status, _, err = keras_distil(
        capsys, command, *arguments, "--set", change, *more
    )
    assert status == 1
    assert f"has no section `{command}`" in err
    assert not (tmp_path / "run").exists()
