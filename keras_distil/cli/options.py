"""Arguments and options shared by several commands, and their meaning."""

from pathlib import Path
from typing import Annotated

import typer

from keras_distil import config
from keras_distil.runs import earlier_runs
from keras_distil.utils.progress import Progress

RecipePath = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe, a YAML file.")
]
RunOrRecipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe, a YAML file, or the folder of a run."
    ),
]
ModelFile = Annotated[
    Path | None,
    typer.Option(help="A `.keras` file. Default: the run's distilled student."),
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
    typer.Option(help="The run's folder. Default: saved_models/<name>."),
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
    return (output or Path("saved_models") / name).expanduser()


def load_recipe(given: str, overrides: list[str] | None) -> config.Recipe:
    """Loads a recipe; one in an earlier run's folder is translated first."""
    path = Path(given).expanduser()
    if path.name == _OWN_RECIPE:
        earlier_runs.translate_locked(path.parent, Progress().say)
    return config.load_recipe(given, overrides or ())


def load_run_or_recipe(
    given: str, overrides: list[str] | None
) -> tuple[config.Recipe, Path]:
    """Loads a recipe, given directly or as a run's folder."""
    run_path = Path(given)
    if run_path.is_dir():
        given = str(run_path / _OWN_RECIPE)
    recipe = load_recipe(given, overrides)
    if not run_path.is_dir():
        run_path = Path("saved_models") / recipe.name
    return recipe, run_path
