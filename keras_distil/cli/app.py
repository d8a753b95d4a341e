"""The command line: its commands, and how they end."""

import signal
import sys
from typing import Any

import typer

from keras_distil import config
from keras_distil.cli import plans, runs, students
from keras_distil.utils import quiet

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil large transformer encoders into small, fast ones.",
)

# Raised by bad input, a full disk or an interrupted download. Anything else is
# a bug of ours and shows its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError)

_GO_ON = "What was finished is kept: the same command goes on from there."


class _AskedToEndError(BaseException):
    """The process was asked to end; holds the signal's number.

    This covers Ctrl-C too: typer catches a KeyboardInterrupt itself and prints
    nothing.
    """


@app.callback()
def _program() -> None:
    """Distil large transformer encoders into small, fast ones."""


# The help lists commands in this order.
app.command(
    epilog="Example: keras-distil run recipes/quickstart.yaml --set "
    "distill.steps=50 --output /tmp/first",
)(runs.run)
app.command(
    epilog="Example: keras-distil distill recipes/quickstart.yaml",
)(runs.distill)
app.command(
    epilog="Example: keras-distil finetune recipes/glue.yaml --set "
    "data.root=FOLDER --set finetune.source=files",
)(runs.finetune)
app.command(
    epilog="Example: keras-distil prepare recipes/quickstart.yaml --output "
    "corpora/quickstart",
)(runs.prepare)
app.command(
    epilog="Example: keras-distil evaluate recipes/glue.yaml --task rte "
    "--model saved_models/glue/tasks/rte/student/seed_0/model.keras",
)(students.evaluate)
app.command(
    epilog="Example: keras-distil export saved_models/quickstart --format "
    "saved_model --format hugging_face",
)(students.export)
app.command(
    epilog="Example: keras-distil plan recipes/distilbert_base_uncased.yaml "
    "--devices 8 --device v100, or keras-distil plan "
    "recipes/quickstart.yaml --calibrate",
)(plans.plan)
app.command(
    epilog="Example: keras-distil plot recipes/quickstart.yaml",
)(plans.plot)
app.command(
    epilog="Example: keras-distil benchmark saved_models/quickstart --set "
    "benchmark.threads=[1,2]",
)(students.benchmark)
app.command(
    epilog="Example: keras-distil search recipes/search_quickstart.yaml",
)(plans.search)
app.command(
    epilog="Example: keras-distil report saved_models/glue",
)(runs.report)


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
        _fail(f"{quiet.WORDS[number]}. {_GO_ON}", status=128 + number)
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
