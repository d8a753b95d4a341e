"""The command that shows the results of a run or a search again."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from keras_distil.cli import printing
from keras_distil.cli.options import AsJson
from keras_distil.runs import earlier_runs, given_files, run_folder
from keras_distil.utils import quiet
from keras_distil.utils.progress import Progress

_MOST_FOLDERS = 3


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    json_: AsJson = False,
) -> None:
    """Show the table of a run again, and make its page anew."""
    folder = folder.expanduser()
    _check_is_a_run(folder)
    progress = Progress()
    earlier_runs.translate_locked(folder, progress.say)
    if (folder / run_folder.TRIALS).is_dir():
        _report_search(folder, json_)
        return
    path = folder / run_folder.REPORT_FILE
    if not path.is_file():
        path = folder / run_folder.TEXT_REPORT
        go_on = _go_on("run", folder)
        if not path.is_file():
            raise ValueError(f"The run in {folder} has no table yet. {go_on}")
        progress.say(f"The run in {folder} is unfinished. {go_on}")
    run_folder.check_report(path)
    found = json.loads(run_folder.read_text(path))
    quiet.import_tensorflow()
    from keras_distil.runs.report import write_page

    page = write_page(folder, found)
    if json_:
        printing.print_json(found)
        return
    printing.print_report(found)
    printing.say(f"Report: {page}")


def _report_search(folder: Path, as_json: bool) -> None:
    quiet.import_tensorflow()
    from keras_distil.search import results

    found = results.read(folder)
    if found is None:
        raise ValueError(
            f"The search in {folder} is unfinished. {_go_on('search', folder)}"
        )
    if as_json:
        printing.print_json(found)
        return
    printing.print_search(found)


def _go_on(command: str, folder: Path) -> str:
    """Returns the advice to continue what a folder holds."""
    words = ["keras-distil", command, str(folder / "recipe.yaml")]
    return f"Go on with it: {shlex.join([*words, '--output', str(folder)])}"


def _check_is_a_run(folder: Path) -> None:
    """Raises ValueError, with what to give, if a folder is not a run's."""
    if (folder / "recipe.yaml").is_file():
        return
    what = "which does not exist"
    if folder.is_dir():
        what = "a folder without recipe.yaml"
    elif folder.exists():
        what = "a file"
    near = folder if folder.is_dir() else given_files.RUNS
    runs = [path.parent for path in sorted(near.glob("*/recipe.yaml"))]
    shown = ", ".join(map(str, runs[:_MOST_FOLDERS]))
    remedy = f" Give a run in {near}, such as {shown}." if runs else ""
    raise ValueError(
        "`RUN` must be the folder of a run, or of a search. Received: "
        f"{str(folder)!r}, {what}.{remedy}"
    )
