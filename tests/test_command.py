"""The program itself, before any of its commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_without(module):
    """Runs `keras-distil --version` where a module is not installed."""
    code = (
        f"import sys; sys.modules[{module!r}] = None;"
        "sys.argv = ['/bin/keras-distil', '--version'];"
        "from keras_distil.__main__ import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("module", ["typer", "pydantic", "yaml"])
def test_without_its_requirements_it_says_what_it_lacks(module):
    done = run_without(module)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "keras-distil: the command needs all requirements of the package, but "
        f"{module} is not installed. Install them with: pip install "
        "keras-distil. Only `keras_distil.edge` does without.\n"
    )


def test_a_missing_module_of_our_own_is_a_bug():
    done = run_without("keras_distil.cli.printing")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
