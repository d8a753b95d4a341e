"""A run's folder: what is in it before, during and after the run."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from keras_distil import config
from keras_distil._version import __version__
from keras_distil.progress import Progress

_PACKAGES = ("tensorflow", "keras", "keras-hub", "numpy")


@dataclasses.dataclass
class Run:
    """A recipe, where its results go and where it reports to."""

    recipe: config.Recipe
    folder: Path
    progress: Progress

    @property
    def report_path(self) -> Path:
        """The file that a finished run leaves last."""
        return self.folder / "report.json"


def open_run(
    recipe: config.Recipe,
    folder: str | os.PathLike,
    progress: Progress,
    *,
    fresh: bool = False,
) -> Run:
    """Makes the run's folder and writes what is known before the start.

    An unfinished or, with `fresh`, a finished run in the folder is moved
    aside, never deleted.

    Args:
        recipe: the resolved recipe.
        folder: the run's folder.
        progress: where to report to.
        fresh: whether to run again what is finished.

    Returns:
        The run.

    Raises:
        ValueError: if the folder holds a finished run of another recipe.
    """
    run = Run(recipe, Path(folder), progress)
    finished = run.report_path.is_file()
    if finished and not fresh:
        if read_text(run.folder / "recipe.yaml") == config.dump_recipe(recipe):
            return run
        raise ValueError(
            f"{run.folder} holds a finished run of another recipe. Give "
            "another folder with --output, or set it aside with --fresh."
        )
    if run.folder.is_dir() and _holds_work(run.folder):
        aside = _free_name(run.folder)
        run.folder.rename(aside)
        progress.say(f"Moved the earlier run to {aside}")
    run.folder.mkdir(parents=True, exist_ok=True)
    write_text(run.folder / "recipe.yaml", config.dump_recipe(recipe))
    write_json(run.folder / "environment.json", environment(recipe))
    return run


def environment(recipe: config.Recipe) -> dict[str, Any]:
    """What a run depends on besides its recipe."""
    return {
        "versions": {
            "python": platform.python_version(),
            "keras-distil": __version__,
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "seed": recipe.seed,
        "commit": _commit(),
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "cpu_cores": os.cpu_count(),
            "memory_gb": round(
                os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
                1,
            ),
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [x.split(":", 1)[1].strip() for x in lines if "model name" in x]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """Commit of the package's checkout, None where it is installed."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _holds_work(folder: Path) -> bool:
    """Whether there is more than what a run writes before it starts."""
    before = {"recipe.yaml", "environment.json"}
    return any(path.name not in before for path in folder.iterdir())


def _free_name(folder: Path) -> Path:
    number = 1
    while True:
        aside = folder.with_name(f"{folder.name}.old{number}")
        if not aside.exists():
            return aside
        number += 1


def read_text(path: Path) -> str:
    """The file's text, empty if there is no file."""
    return path.read_text("utf-8") if path.is_file() else ""


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a JSON file in one step."""
    write_text(path, json.dumps(content, indent=2) + "\n")
