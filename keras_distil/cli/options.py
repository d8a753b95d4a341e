"""Arguments and options shared by several commands, and their meaning."""

from pathlib import Path
from typing import Annotated

import typer

from keras_distil import config
from keras_distil.config import shipped
from keras_distil.runs import earlier_runs, given_files
from keras_distil.utils.progress import Progress

# `app` says in the help of each command what it may be.
RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", hidden=True)]
ModelFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A `.keras` file. Default: the run's student.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Replace a value of the recipe. May be repeated.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The run's folder. Default: saved_models/<name>."
    ),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Move an earlier run aside, start anew."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON, and nothing else."),
]


# File name of the recipe in a run's folder.
_OWN_RECIPE = "recipe.yaml"


def choose_folder(output: Path | None, name: str) -> Path:
    """Returns a run's folder: `--output`, else one below saved_models."""
    return (output or given_files.RUNS / name).expanduser()


def load_recipe(given: str, overrides: list[str] | None) -> config.Recipe:
    """Loads a recipe, given as its path or the name of a shipped one."""
    path = shipped.find_recipe(given)
    if path.is_dir():
        shadows = given in shipped.list_names()
        raise ValueError(
            "`RECIPE` must be a YAML file or the name of a shipped recipe. "
            f"Received: {given!r}, a folder. "
            + (
                "It comes before the shipped recipe of this name: rename it, "
                "or start elsewhere."
                if shadows
                else f"A run's recipe is its file {_OWN_RECIPE}."
            )
        )
    return _load(path, overrides)


def load_run_or_recipe(
    given: str, overrides: list[str] | None
) -> tuple[config.Recipe, Path]:
    """Loads a recipe, given directly or as a run's folder."""
    path = shipped.find_recipe(given, or_run=True)
    if not path.is_dir():
        recipe = _load(path, overrides)
        return recipe, given_files.RUNS / recipe.name
    if not (path / _OWN_RECIPE).is_file():
        raise ValueError(
            "`RECIPE` must be a recipe or the folder of a run. Received: "
            f"{given!r}, a folder without {_OWN_RECIPE}."
        )
    return _load(path / _OWN_RECIPE, overrides), path


def _load(path: Path, overrides: list[str] | None) -> config.Recipe:
    """Loads a recipe; one in an earlier run's folder is translated first."""
    if path.name == _OWN_RECIPE:
        earlier_runs.translate_locked(path.parent, Progress().say)
    return config.load_recipe(path, overrides or ())
