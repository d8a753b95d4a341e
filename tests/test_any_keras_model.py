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


def shorten(code, changes):
    for long, short in changes.items():
        assert long in code
        code = code.replace(long, short)
    return compile(code, "page.py", "exec")


def run_script(capsys):
    """Runs the first script but for its length: one seed and epoch, few images.

    Returns:
        Its names, and the figures that it prints.
    """
    short = {
        "range(5)": "range(1)",
        "(5, 2)": "(1, 2)",
        "898, 25,": "64, 1,",
        "250, 30,": "64, 1,",
        "ddof=1": "ddof=0",
    }
    names = {"__name__": "page"}
    exec(shorten(SCRIPT, short), names)
    return names, read(capsys.readouterr().out)


def test_the_script_runs(capsys):
    with toy.eager_steps():
        names, found = run_script(capsys)
    assert set(found) == {
        ("teacher", "parameters"),
        ("student", "parameters"),
        ("teacher", "%"),
        ("baseline", "%"),
        ("student", "%"),
    }
    assert names["student"].count_params() == found["student", "parameters"]


@pytest.mark.slow
def test_the_rest_of_the_page_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.convert_litert_here(monkeypatch)
    search, export, run = OTHERS
    short = {"epochs=30": "epochs=1", "max_trials=12": "max_trials=2"}
    with toy.eager_steps():
        names, _ = run_script(capsys)
        exec(shorten(search, short), names)
    exec(shorten(export, {}), names)
    capsys.readouterr()
    exec(shorten(run, {}), names)
    guess = names["student"].predict(names["x_held"][:1], verbose=0).argmax()
    assert int(capsys.readouterr().out.split()[-1]) == guess
