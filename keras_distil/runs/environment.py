"""A run's dependencies besides its recipe: versions, commit, hardware."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil.utils import machine
from keras_distil.utils.version import __version__

# Raise this whenever an earlier keras_distil could not continue a run.
FORMAT_VERSION = 3
_PACKAGES = ("tensorflow", "keras", "keras-hub", "numpy")


def describe_environment(recipe: config.Recipe) -> dict[str, Any]:
    """Describes what a run depends on besides its recipe."""
    return {
        "format_version": FORMAT_VERSION,
        "versions": {
            "python": platform.python_version(),
            "keras-distil": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "seed": recipe.seed,
        "commit": _commit(),
        "hardware": {
            "machine": platform.machine(),
            "processor": machine.processor_name(),
            "cpu_cores": os.cpu_count(),
            "memory_gb": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
                1,
            ),
        },
    }


def _commit() -> str | None:
    """Commit of the package's own checkout; None if it is installed.

    Git is asked only if the package's folder is the root of its repository:
    otherwise it would answer with the commit of whatever project contains the
    environment.
    """
    root = Path(__file__).resolve().parents[2]
    setup = root / "setup.py"
    if not (root / ".git").exists() or not setup.is_file():
        return None
    if 'name="keras-distil"' not in setup.read_text("utf-8"):
        return None
    # In a Git hook, these would name the hook's repository.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_")
    }
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
