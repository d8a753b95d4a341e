"""The benchmark of ways to distil."""

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from keras_distil import config

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "methods.py"


@pytest.fixture(scope="module")
def methods():
    specification = importlib.util.spec_from_file_location("methods", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    # Data classes look their module up.
    sys.modules["methods"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["methods"]


def test_students_of_all_methods_read_as_many_texts(methods):
    # Passes over the labelled texts, and what share of a batch is other text.
    read = {
        "authors": (24, 0.0),
        "cut_stages": (24, 0.0),
        "cut_augmented": (12, 0.5),
        "prose": (12, 0.5),
    }
    for name, (epochs, added) in read.items():
        finetune = methods.METHODS[name].finetune_on("cola")
        if "stages" in finetune:
            passes = sum(stage["epochs"] for stage in finetune["stages"])
        else:
            passes = finetune["epochs"]
        assert passes == epochs
        assert passes / (1.0 - added) == methods.STUDENT_PASSES["cola"]
    # No prose there: all that a student reads has labels.
    assert methods.METHODS["prose"].finetune_on("rte")["epochs"] == 10


def test_every_method_has_recipes_that_are_valid(methods, tmp_path):
    arguments = argparse.Namespace(
        **dict.fromkeys(("texts", "glue", "squad", "output"), tmp_path),
        prose=tmp_path,
        precision="float32",
        steps=100,
        seeds=[0],
        passes=0.25,
    )
    for method in methods.METHODS.values():
        if method.general:
            changes = methods.general_changes(method.general, method, arguments)
            config.load_recipe(methods.GENERAL_RECIPE, changes)
        for task in methods.STUDENT_PASSES:
            recipe = methods.student_recipe(method, task, arguments)
            path = tmp_path / "student.yaml"
            path.write_text(yaml.safe_dump(recipe))
            config.load_recipe(path)


def test_a_screen_reads_less_with_all_methods(methods):
    for name, epochs in {"authors": 8, "cut_augmented": 4, "prose": 4}.items():
        finetune = methods.METHODS[name].finetune_on("cola", 1 / 3)
        assert finetune["epochs"] == epochs


def test_questions_are_not_augmented(methods):
    finetune = methods.METHODS["cut_augmented"].finetune_on("squad")
    assert finetune["epochs"] == methods.STUDENT_PASSES["squad"]
    assert not set(finetune) & {"augment_copies", "augmented_share"}


def test_the_short_method_reads_a_quarter(methods):
    short = methods.METHODS["cut_short"]
    # Half of what is read has labels, on all but RTE.
    passes = {"cola": 3, "sst2": 1, "mrpc": 2, "stsb": 2, "rte": 2}
    for task, epochs in passes.items():
        assert short.finetune_on(task)["epochs"] == epochs


def note(folder, minutes):
    folder.mkdir(parents=True)
    (folder / "costs.jsonl").write_text(
        json.dumps({"part": "student", "cpu_s": 60 * minutes}) + "\n"
    )


def result(output, method, seed, scores, minutes):
    inside = f"methods/{method}/rte/tasks/rte/student/seed_{seed}"
    (output / inside).mkdir(parents=True, exist_ok=True)
    found = {"selection_scores": scores, "duration_s": 60 * minutes}
    (output / inside / "result.json").write_text(json.dumps(found))


def test_minutes_end_with_the_epoch_that_is_as_good(methods, tmp_path):
    note(tmp_path / "general" / "words_0_2_4", 10)
    note(tmp_path / "methods" / "prose" / "rte", 20)
    # Four epochs.
    arguments = argparse.Namespace(
        output=tmp_path, tasks=["rte"], seeds=[0, 1], passes=0.4
    )
    # The first seed's minutes have a cache in them: an epoch takes 2 minutes.
    result(tmp_path, "prose", 0, [0.1, 0.5, 0.6, 0.7], 9)
    result(tmp_path, "prose", 1, [0.1, 0.2, 0.3, 0.7], 8)
    result(tmp_path, "authors", 0, [0.2, 0.5], 5)
    result(tmp_path, "authors", 1, [0.3, 0.2], 5)
    # Two epochs less of one seed, one epoch less of the other.
    assert methods.minutes_until("prose", arguments) == "24"
    result(tmp_path, "authors", 1, [0.8], 1)
    assert methods.minutes_until("prose", arguments) == "> 26"


def test_minutes_of_a_first_stage_count(methods, tmp_path):
    note(tmp_path / "methods" / "cut_stages" / "rte", 13)
    # Four epochs of the first stage, two of the last, which alone are scored.
    arguments = argparse.Namespace(
        output=tmp_path, tasks=["rte"], seeds=[0], passes=0.6
    )
    result(tmp_path, "cut_stages", 0, [0.5, 0.6], 12)
    result(tmp_path, "authors", 0, [0.2, 0.4], 5)
    assert methods.minutes_until("cut_stages", arguments) == "11"


@pytest.mark.slow
def test_a_method_takes_the_teacher_that_all_share(
    toy_glue, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "methods"
    words = ["--texts", str(tmp_path), "--glue", str(toy_glue)]
    words += ["--output", str(output), "--precision", "float32"]
    words += ["--tasks", "rte", "--methods", "cut_outputs"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [x for x in done.stdout.splitlines() if x.startswith("| cut")]
    assert len(rows) == 1
    trained, used = (
        output / folder / "rte/tasks/rte/teacher/seed_0/model.keras"
        for folder in ("teachers", "methods/cut_outputs")
    )
    assert used.read_bytes() == trained.read_bytes()
