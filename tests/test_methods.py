"""The benchmark of ways to distil."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

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
