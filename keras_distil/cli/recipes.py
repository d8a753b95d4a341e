"""Commands for the recipes that come with the package."""

from pathlib import Path
from typing import Annotated

import typer

from keras_distil.cli import printing
from keras_distil.config import shipped
from keras_distil.utils import disk


def list_recipes(context: typer.Context) -> None:
    """List the recipes that come with the package, or copy one."""
    if context.invoked_subcommand is not None:
        return
    names = shipped.list_names()
    width = max(map(len, names))
    for name in names:
        printing.say(f"{name:{width}}  {shipped.read_summary(name)}")
    printing.say("Run one: keras-distil run NAME")
    printing.say("Change one: keras-distil recipes copy NAME")


def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", hidden=True)],
) -> None:
    """Copy a recipe to ./NAME.yaml; overwrite nothing."""
    content = shipped.find_shipped(name).read_bytes()
    path = Path(f"{name}.yaml")
    with disk.writing(path):
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError as error:
            raise ValueError(
                f"{path} exists, and nothing is overwritten. Rename it, or "
                "copy into another folder."
            ) from error
    printing.say(f"Copied: {path}")
    printing.say(f"Next: keras-distil run {path}")
