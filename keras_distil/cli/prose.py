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
        int, typer.Option(metavar="N", min=1, help="Lines of sentences.txt.")
    ] = 40_000,
    pairs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows of pairs.tsv.")
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
    """Make text of prose, which only teachers label."""
    quiet.import_tensorflow()
    from keras_distil.runs.prose import (
        PAIRS_FILE,
        QUESTIONS_FILE,
        SENTENCES_FILE,
        write_prose,
    )

    write_prose(
        texts.expanduser(),
        folder.expanduser(),
        sentences=sentences,
        pairs=pairs,
        questions=questions,
        seed=seed,
        progress=Progress(quiet=quiet_),
    )
    printing.say(f"Sentences: {folder / SENTENCES_FILE} ({sentences:,})")
    printing.say(f"Pairs: {folder / PAIRS_FILE} ({pairs:,})")
    if questions:
        printing.say(f"Questions: {folder / QUESTIONS_FILE} ({questions:,})")
    printing.say(
        "Next: `unlabelled` of a task, and `unlabelled_share`, in a recipe."
    )
