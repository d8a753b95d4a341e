"""The command that writes a recipe for a file."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from keras_distil.cli import printing
from keras_distil.utils import disk, quiet
from keras_distil.utils.progress import Progress


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    teacher: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="A folder, or hf://organisation/name; one that is fine-tuned "
            "already for FILE is taken as it is. Default: embedded.",
        ),
    ] = "embedded",
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE.yaml",
            help="The recipe to write. Default: named after FILE.",
        ),
    ] = None,
) -> None:
    """Look at a file of your own and write a recipe for it."""
    if output is not None:
        _check_is_new(output)
    quiet.import_tensorflow()
    from keras_distil.planning import proposal

    made = proposal.propose(
        file.expanduser(), teacher, None if output is None else str(output)
    )
    path = output or Path(f"{made.name}.yaml")
    _check_is_new(path)
    with disk.writing(path), path.open("x", encoding="utf-8") as written:
        written.write(made.text)
    progress = Progress()
    for line in made.findings:
        printing.say(line)
    for line in made.warnings:
        progress.warn(line)
    printing.say(f"Recipe: {path}")
    run = shlex.join(["keras-distil", "run", str(path)])
    printing.say(f"Next: {run}")


def _check_is_new(path: Path) -> None:
    if path.exists():
        raise FileExistsError(
            f"{path} exists, and nothing is overwritten. Remove it, or give "
            "another --output."
        )
