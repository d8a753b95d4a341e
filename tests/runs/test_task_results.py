"""Which student a command means by a run alone."""

import json

import pytest

from keras_distil import config
from keras_distil.runs import run_folder, task_results
from keras_distil.utils.progress import Progress


def make_run(folder, *, distills=False, rows=("teacher", "student")):
    """A run of the tasks rte and cola, none of which is trained."""
    given = {
        "name": "tasks",
        "teacher": {"source": "embedded"},
        "student": {"num_layers": 3},
        "finetune": {
            "tasks": ["rte", "cola"],
            "source": "files",
            "rows": list(rows),
            "seeds": [0, 1],
        },
        "data": {"root": "texts"},
    }
    if distills:
        given["data"]["sources"] = [{"kind": "files", "pattern": "*.txt"}]
        given["distill"] = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3}
    folder.mkdir()
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(given))
    recipe = config.load_recipe(path)
    return run_folder.Run(recipe, folder, Progress(quiet=True))


def finish(run, task, scores):
    """Writes the results of a task's students."""
    for seed, score in enumerate(scores):
        kept = run.folder / "tasks" / task / "student" / f"seed_{seed}"
        kept.mkdir(parents=True)
        (kept / "result.json").write_text(json.dumps({"dev_scores": [score]}))


def test_a_task_s_student_is_its_best(tmp_path):
    run = make_run(tmp_path / "run")
    finish(run, "rte", [0.7, 0.8])
    task, path = task_results.find_student(run, "rte")
    assert task == "rte"
    kept = run.folder / "tasks" / "rte" / "student" / "seed_1"
    assert path == kept / "model.keras"


def test_a_student_of_text_comes_before_those_of_tasks(tmp_path):
    run = make_run(tmp_path / "run", distills=True)
    finish(run, "rte", [0.7, 0.8])
    student = run.folder / "student.keras"
    assert task_results.find_student(run, None) == (None, student)
    assert task_results.find_student(run, "rte")[0] == "rte"


def test_which_student_is_asked_where_there_are_several(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError) as raised:
        task_results.find_student(run, None)
    assert str(raised.value) == (
        f"{run.folder} has a student of each task; add --task with one of rte, "
        "cola."
    )
    finish(run, "cola", [0.5, 0.4])
    # As it says.
    assert task_results.find_student(run, "cola")[0] == "cola"


def test_a_task_without_a_student_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(ValueError, match="rte, cola. Received: 'sst2'"):
        task_results.find_student(run, "sst2")
    teachers = make_run(tmp_path / "teachers", rows=["teacher"])
    with pytest.raises(ValueError, match="it has none. Received: 'rte'"):
        task_results.find_student(teachers, "rte")
    # Nothing is asked for, and there is only one place to look at.
    student = teachers.folder / "student.keras"
    assert task_results.find_student(teachers, None) == (None, student)


def test_an_unfinished_task_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    finish(run, "rte", [0.7])
    with pytest.raises(
        FileNotFoundError, match="not finished: rte/student/seed_1"
    ):
        task_results.find_student(run, "rte")
