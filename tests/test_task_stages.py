"""Tasks of a run: what is kept, what goes on, what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from keras_distil import (
    build,
    config,
    models,
    run_folder,
    stages,
    task_stages,
)
from keras_distil.progress import Progress


@pytest.fixture
def recipe_path(toy_teacher, toy_glue, tmp_path):
    teacher = models.load_teacher(toy_teacher)
    models.initialize_student(teacher, 1).save(tmp_path / "student.keras")
    path = tmp_path / "tasks.yaml"
    path.write_text(
        f"""
name: tasks
teacher: {{source: {toy_teacher}}}
student: {{source: {tmp_path / "student.keras"}}}
data: {{root: {toy_glue}}}
finetune:
  tasks: [rte, stsb]
  source: files
  rows: [teacher, student]
  seeds: [3]
  max_length: 12
  epochs: 1
  batch_size: 4
  jit_compile: false
evaluate: {{latency_length: 8}}
"""
    )
    return path


def start(recipe_path, folder, *overrides):
    recipe = config.load_recipe(recipe_path, overrides)
    run = run_folder.open_run(recipe, folder, Progress(quiet=True))
    return stages.run_recipe(run)


def test_a_run_that_broke_off_goes_on(recipe_path, tmp_path, monkeypatch):
    teacher = "finetune.rows=[teacher]"
    whole = start(recipe_path, tmp_path / "whole", teacher)
    folder = tmp_path / "broken"
    make = build.task

    def fail(recipe, name):
        if name == "stsb":
            raise OSError("the machine went away")
        return make(recipe, name)

    with monkeypatch.context() as patched:
        patched.setattr(build, "task", fail)
        with pytest.raises(OSError, match="went away"):
            start(recipe_path, folder, teacher)
    results = sorted((folder / "tasks").glob("*/*/*/result.json"))
    assert len(results) == 1 and "rte" in str(results[0])
    before = [path.stat().st_mtime_ns for path in results]
    report = start(recipe_path, folder, teacher)
    assert before == [path.stat().st_mtime_ns for path in results]

    def scores(made):
        return [row["tasks"] for row in made["tasks"]["rows"]]

    assert scores(report) == scores(whole)
    assert not list(folder.glob("tasks/*/*/*/checkpoints"))


def test_results_are_what_the_kept_model_says(recipe_path, tmp_path):
    report = start(
        recipe_path,
        tmp_path / "run",
        "finetune.epochs=2",
        "finetune.tasks=[rte]",
    )
    recipe = config.load_recipe(recipe_path)
    for row in report["tasks"]["rows"]:
        kept = tmp_path / "run" / "tasks" / "rte" / row["name"] / "seed_3"
        evaluator = build.task(recipe, "rte").evaluator
        model = task_stages.load_task_model(kept / "model.keras")
        found = evaluator.predictions(model)["dev"]
        written = load_file(kept / "predictions.safetensors")["dev"]
        np.testing.assert_array_equal(written, found)
        result = json.loads((kept / "result.json").read_text())
        accuracy = float(np.mean(found == evaluator.examples["dev"].labels))
        assert result["metrics"]["dev"]["accuracy"] == pytest.approx(accuracy)
        assert max(result["dev_scores"]) == pytest.approx(accuracy)
        assert row["tasks"]["rte"]["score"] == pytest.approx(100 * accuracy)
    document = (tmp_path / "run" / "report.html").read_text()
    assert "<!DOCTYPE html>" in document and "tasks" in document
    assert "| student" in (tmp_path / "run" / "report.md").read_text()


def test_damaged_results_are_named(recipe_path, tmp_path):
    overrides = ["finetune.rows=[teacher]", "finetune.tasks=[rte]"]
    start(recipe_path, tmp_path / "run", *overrides)
    (tmp_path / "run" / "report.json").unlink()
    kept = tmp_path / "run" / "tasks" / "rte" / "teacher" / "seed_3"
    good = (kept / "result.json").read_text()
    for damage in ("{", json.dumps({"metrics": {"test": {}}})):
        (kept / "result.json").write_text(damage)
        with pytest.raises(ValueError, match="teacher/seed_3 are damaged"):
            start(recipe_path, tmp_path / "run", *overrides)
    (kept / "result.json").write_text(good)
    (kept / "predictions.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="Remove the folder, and the same"):
        start(recipe_path, tmp_path / "run", *overrides)


def test_what_does_not_fit_is_refused(recipe_path, tmp_path, toy_teacher):
    with pytest.raises(ValueError, match="`finetune.max_length` is 13, but"):
        start(recipe_path, tmp_path / "1", "finetune.max_length=13")
    with pytest.raises(ValueError, match="needs `data.root`"):
        start(recipe_path, tmp_path / "2", "data.root=null")
    backbone = models.ExactBertBackbone(
        vocabulary_size=7,
        num_layers=1,
        num_heads=2,
        hidden_dim=4,
        intermediate_dim=8,
        max_sequence_length=12,
    )
    models.ExactBertMaskedLM(backbone).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="a vocabulary of 7 entries, its tea"):
        start(
            recipe_path,
            tmp_path / "3",
            f"student.source={tmp_path / 'other.keras'}",
        )
