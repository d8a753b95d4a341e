"""Runs of recipes for benchmarks: made once, then read."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[1] / "recipes"


def report_of(
    recipe: str, changes: Iterable[str], output: Path
) -> dict[str, Any]:
    """Returns a run's report; makes the run in a process if needed."""
    command = [sys.executable, "-m", "keras_distil", "run", RECIPES / recipe]
    for change in changes:
        command += ["--set", change]
    subprocess.run([*command, "--output", output], check=True)
    return json.loads((output / "report.json").read_text())
