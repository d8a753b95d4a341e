"""The benchmark of the options of our step."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "variants.py"


def run(*words):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True
    )


@pytest.mark.slow
def test_every_value_is_measured():
    done = run(
        *("top_k", "--models", "minilm", "--length", "16", "--rounds", "2"),
        *("--precisions", "float32", "--turn-seconds", "0.05"),
    )
    assert done.returncode == 0, done.stderr
    rows = [
        line.split(" | ")
        for line in done.stdout.splitlines()
        if line.startswith("| minilm")
    ]
    assert [row[2] for row in rows] == ["0", "8", "64"]
    assert float(rows[0][4]) == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["width"], "invalid choice"),
        (["top_k", "--rounds", "0"], "--rounds: must be at least 1"),
        (["top_k", "--batches", "4"], "--batches: must be at least 8"),
        (["top_k", "--models", "toy"], "needs BERT's vocabulary"),
    ],
)
def test_wrong_options(words, message):
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
