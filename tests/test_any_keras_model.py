"""The page on any Keras model, followed word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import toy

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "any_keras_model.md"
SCRIPT, *OTHERS = re.findall(
    r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
)
LINE = re.compile(r"(\w+): ([\d.]+)(%| parameters)")


def read(printed):
    return {
        (name, unit.strip()): float(number)
        for name, number, unit in LINE.findall(printed)
    }


@pytest.mark.slow
def test_the_student_is_above_its_baseline(tmp_path):
    (tmp_path / "digits.py").write_text(SCRIPT, "utf-8")
    printed = subprocess.run(
        [sys.executable, "digits.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = read(printed)
    assert found["student", "parameters"] < found["teacher", "parameters"] / 10
    assert found["baseline", "%"] < found["student", "%"]
    assert found["student", "%"] < found["teacher", "%"]
    # The page has the figures of one machine; another rounds otherwise.
    told = read(PAGE.read_text("utf-8").split(SCRIPT)[1].split("```")[2])
    assert set(told) == set(found)
    for key, value in told.items():
        assert found[key] == pytest.approx(value, abs=1.5), key


def test_the_script_runs(capsys):
    """As written, but for its length: one seed and one epoch, few images."""
    short = SCRIPT.replace("range(5)", "range(1)").replace("(5, 2)", "(1, 2)")
    for epochs in ("898, 25,", "250, 30,"):
        assert epochs in short
        short = short.replace(epochs, "64, 1,")
    short = short.replace("ddof=1", "ddof=0")
    with toy.eager_steps():
        exec(compile(short, "digits.py", "exec"), {"__name__": "digits"})
    found = read(capsys.readouterr().out)
    assert set(found) == {
        ("teacher", "parameters"),
        ("student", "parameters"),
        ("teacher", "%"),
        ("baseline", "%"),
        ("student", "%"),
    }
