"""The command line: its commands, and how they end."""

import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from keras_distil import config
from keras_distil.cli import (
    plans,
    printing,
    proposals,
    prose,
    recipes,
    reports,
    runs,
    students,
)
from keras_distil.utils import quiet
from keras_distil.utils.version import __version__

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text, not boxes, so that the help of every command fits a screen.
    rich_markup_mode=None,
)

# Raised by bad input, a full disk or an interrupted download. Anything else is
# a bug of ours and shows its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError)

_GO_ON = " What was finished is kept: the same command goes on from there."
# The others begin anew.
_GOING_ON = ("run", "distill", "finetune", "prepare", "search")


class _AskedToEndError(BaseException):
    """The process was asked to end; holds the signal's number.

    This covers Ctrl-C too: typer catches a KeyboardInterrupt itself and prints
    nothing.
    """


def _show_version(wanted: bool) -> None:
    if wanted:
        printing.say(f"keras-distil {__version__}")
        raise typer.Exit()


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Distil large transformer encoders into small, fast ones."""


def _add(
    command: Callable[..., None],
    argument: str,
    *,
    epilog: str,
    to: typer.Typer = app,
) -> None:
    """Adds a command.

    Args:
        command: the function; its docstring is the first line of its help.
        argument: the second line, which says what to give. typer's own list of
            arguments would add the types of Python to it.
        epilog: the end of the help, from `_example`.
        to: the program, or a group of its commands.
    """
    help_ = f"{command.__doc__}\n\n{argument}"
    to.command(help=help_, epilog=epilog)(command)


def _example(*lines: str) -> str:
    # The first line tells click to leave the others as they are.
    return "\n".join(["\b", "Example:", *(f"  {line}" for line in lines)])


_RECIPE = "RECIPE: a YAML file, or a name from `keras-distil recipes`."
_RUN_OR_RECIPE = "RECIPE: the folder of a run, a YAML file or a shipped name."
_RUN = "RUN: the folder of a run, or of a search."
_MODEL_AND_FILE = (
    "MODEL: a folder of Hugging Face or KerasHub, or a `.keras` file.\n\n"
    "FILE: rows of its task, with or without labels."
)
_TEXTS_AND_FOLDER = (
    "TEXTS: a folder of *.txt, one paragraph per line.\n\n"
    "FOLDER: where sentences.txt, pairs.tsv and questions.jsonl are written."
)
_NAME = "NAME: one of those that `keras-distil recipes` lists."

_FILE = "FILE: texts with labels: CSV, TSV, JSONL, CoNLL or SQuAD's JSON."

# The help lists commands in this order.
_add(
    proposals.init,
    _FILE,
    epilog=_example(
        "keras-distil init tickets.csv",
        "keras-distil init tickets.csv --teacher my-bert-classifier",
    ),
)
_add(
    runs.run,
    _RECIPE,
    epilog=_example("keras-distil run quickstart --set distill.steps=50"),
)
_add(
    runs.distill,
    _RECIPE,
    epilog=_example("keras-distil distill quickstart"),
)
_add(
    runs.finetune,
    _RECIPE,
    epilog=_example(
        "keras-distil finetune glue --set data.root=FOLDER \\",
        "  --set finetune.source=files",
    ),
)
_add(
    runs.prepare,
    _RECIPE,
    epilog=_example("keras-distil prepare quickstart --output corpus"),
)
_add(
    prose.prose,
    _TEXTS_AND_FOLDER,
    epilog=_example("keras-distil prose TEXTS GLUE"),
)
_add(
    students.evaluate,
    _RECIPE,
    epilog=_example(
        "keras-distil evaluate glue --task rte \\",
        "  --model saved_models/glue/tasks/rte/student/seed_0/model.keras",
    ),
)
_add(
    students.predict,
    _MODEL_AND_FILE,
    epilog=_example(
        "keras-distil predict my-bert-classifier tickets.csv \\",
        "  --output predictions.jsonl",
    ),
)
_add(
    students.export,
    _RUN_OR_RECIPE,
    epilog=_example(
        "keras-distil export saved_models/quickstart --format hugging_face",
    ),
)
_add(
    plans.plan,
    _RECIPE,
    epilog=_example(
        "keras-distil plan distilbert_base_uncased --devices 8 --device v100",
        "keras-distil plan quickstart --calibrate",
    ),
)
_add(
    plans.plot,
    _RECIPE,
    epilog=_example("keras-distil plot quickstart --output schedules.png"),
)
_add(
    students.benchmark,
    _RUN_OR_RECIPE,
    epilog=_example(
        "keras-distil benchmark saved_models/quickstart \\",
        "  --set 'benchmark.threads=[1, 2]'",
    ),
)
_add(
    plans.search,
    _RECIPE,
    epilog=_example("keras-distil search search_quickstart --processes 2"),
)
_add(
    reports.report,
    _RUN,
    epilog=_example("keras-distil report saved_models/quickstart"),
)

_recipes = typer.Typer(
    invoke_without_command=True,
    epilog=_example(
        "keras-distil recipes", "keras-distil recipes copy quickstart"
    ),
)
_recipes.callback()(recipes.list_recipes)
_add(
    recipes.copy,
    _NAME,
    epilog=_example("keras-distil recipes copy quickstart"),
    to=_recipes,
)
app.add_typer(_recipes, name="recipes")


def main() -> None:
    """Runs the command line; bad input ends with one line and status 1."""
    for number in quiet.WORDS:
        signal.signal(number, _end)
    try:
        app()
    except _AskedToEndError as asked:
        number = asked.args[0]
        # A second signal must not cut the line in two.
        for each in quiet.WORDS:
            signal.signal(each, signal.SIG_IGN)
        then = _GO_ON if sys.argv[1:2] and sys.argv[1] in _GOING_ON else ""
        _fail(f"{quiet.WORDS[number]}.{then}", status=128 + number)
    except config.RecipeError as error:
        # The message has one line for each mistake in the recipe.
        _fail(str(error))
    except _EXPECTED as error:
        _fail(_in_one_line(error))


def _end(number: int, frame: Any) -> None:
    raise _AskedToEndError(signal.Signals(number))


def _in_one_line(error: Exception) -> str:
    text = str(error)
    # Python's message begins with a number that means nothing to a reader.
    if isinstance(error, OSError) and error.strerror:
        names = [x for x in (error.filename, error.filename2) if x is not None]
        text = ": ".join([error.strerror, " -> ".join(map(str, names))])
        text = text.removesuffix(": ")
    return " ".join(text.split()) or type(error).__name__


def _fail(message: str, status: int = 1) -> None:
    print(f"keras-distil: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
