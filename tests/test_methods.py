"""The benchmark of ways to distil."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "methods.py"


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
