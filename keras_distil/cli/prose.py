"""The command that makes text for `unlabelled`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_distil.cli import printing
from keras_distil.cli.options import Quiet
from keras_distil.utils import quiet
from keras_distil.utils.progress import Progress


def prose(
    texts: Annotated[Path, typer.Argument(metavar="TEXTS", hidden=True)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    sentences: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Lines of sentences.txt; 0: no file."
        ),
    ] = 40_000,
    pairs: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Rows of pairs.tsv; 0: no file."),
    ] = 20_000,
    questions: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Lines of questions.jsonl; 0: no file."
        ),
    ] = 20_000,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Which of them are drawn.")
    ] = 0,
    quiet_: Quiet = False,
) -> None:
    """Make text from prose for teachers to label."""
    quiet.import_tensorflow()
    from keras_distil.runs.prose import FILES, write_prose

    write_prose(
        texts.expanduser(),
        folder.expanduser(),
        sentences=sentences,
        pairs=pairs,
        questions=questions,
        seed=seed,
        progress=Progress(quiet=quiet_),
    )
    counts = (sentences, pairs, questions)
    for name, count in zip(FILES, counts, strict=True):
        if count:
            printing.say(f"{folder / name}: {count:,}")
    printing.say(
        "Next: `unlabelled` of a task, and `unlabelled_share`, in a recipe."
    )
