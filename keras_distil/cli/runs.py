"""Commands that run a recipe or part of it."""

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_distil import config
from keras_distil.cli import printing
from keras_distil.cli.options import (
    AsJson,
    Fresh,
    Output,
    Overrides,
    Quiet,
    RecipePath,
    choose_folder,
    load_recipe,
)
from keras_distil.runs import earlier_runs, given_files, run_folder
from keras_distil.training import distribution
from keras_distil.utils import quiet
from keras_distil.utils.progress import Progress


def run(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Output = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check and summarise; start nothing."),
    ] = False,
    devices: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Devices for --dry-run."),
    ] = 1,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="How long the whole command may take, in place of the "
            "recipe's number of updates.",
        ),
    ] = None,
    fresh: Fresh = False,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,...",
            help="All workers, the same list in each. Default: those of "
            "TF_CONFIG, else of Slurm. They listen WITHOUT AUTHENTICATION: "
            "for a private network only.",
        ),
    ] = None,
    worker_index: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Place in --workers; 0 alone writes.",
        ),
    ] = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Run every stage of a recipe, and print what the student kept."""
    if minutes is not None:
        set_ = [*(set_ or []), f"minutes={minutes:g}"]
    progress = Progress(quiet=quiet_)
    resolved = load_recipe(recipe, set_)
    if dry_run:
        given_files.check_given_files(resolved)
        quiet.import_tensorflow()
        from keras_distil.planning import estimate
        from keras_distil.runs import preflight

        resolved, precision = estimate.with_precision(resolved)
        summary = estimate.summarise(resolved, devices=devices)
        summary["recipe"]["precision"] = precision
        for line in preflight.open_inputs(resolved):
            progress.warn(line)
        printing.print_summary(summary, json_)
        return
    folder = choose_folder(output, resolved.name)
    place, count = find_workers(resolved, workers, worker_index)
    with _opened(resolved, folder, progress, fresh, writes=place == 0) as run_:
        report = _stages(errors=count == 1).run_recipe(run_)
    _print_report(report, folder, json_)


@contextlib.contextmanager
def _opened(
    recipe: config.Recipe,
    folder: Path,
    progress: Progress,
    fresh: bool,
    *,
    writes: bool = True,
) -> Iterator[run_folder.Run]:
    """Opens the locked folder of a run, translated if it is an earlier one."""
    # A finished run, which is only shown again, needs them no more.
    if fresh or not (folder / run_folder.REPORT_FILE).is_file():
        given_files.check_given_files(recipe)
    with run_folder.locked(folder, writes=writes):
        if writes and not fresh:
            earlier_runs.translate_run(folder, progress.say)
        yield run_folder.open_run(
            recipe,
            folder,
            progress,
            fresh=fresh,
            writes=writes,
            command=sys.argv[1:],
        )


def distill(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Output = None,
    fresh: Fresh = False,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Distil a recipe's student from text: the first step of `run`."""
    _run_one("distill", recipe, set_, output, fresh, quiet_, json_)


def finetune(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Output = None,
    fresh: Fresh = False,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Train a recipe's models on its tasks: the second step of `run`."""
    _run_one("finetune", recipe, set_, output, fresh, quiet_, json_)


def _run_one(
    stage: str,
    recipe: str,
    overrides: list[str] | None,
    output: Path | None,
    fresh: bool,
    quiet_: bool,
    as_json: bool,
) -> None:
    """Runs one stage of a recipe, in the folder where `run` continues."""
    resolved = load_recipe(recipe, overrides)
    if getattr(resolved, stage) is None:
        raise ValueError(f"{recipe} has no section `{stage}`: nothing to do.")
    folder = choose_folder(output, resolved.name)
    progress = Progress(quiet=quiet_)
    with _opened(resolved, folder, progress, fresh) as run_:
        report = _stages().run_recipe(run_, only=stage)
    _print_report(report, folder, as_json)


def _print_report(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        printing.print_json({**report, "folder": str(folder)})
        return
    printing.print_report(report)
    printing.say(f"Report: {folder / run_folder.PAGE_FILE}")
    printing.say(f"Results: {folder}")
    logs = folder / run_folder.LOGS
    printing.say(f"Next: {shlex.join(['tensorboard', '--logdir', str(logs)])}")


def prepare(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The corpus's own folder, for `data.prepared`. "
            "Default: the cache.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Processes. Default: one per core."
        ),
    ] = None,
    beam: Annotated[
        str | None,
        typer.Option(
            metavar="OPTIONS",
            help="Run on Apache Beam with these options, such as "
            "'--runner=FlinkRunner'. Needs --output.",
        ),
    ] = None,
    quiet_: Quiet = False,
) -> None:
    """Turn a recipe's text into shards of tokens, or verify them."""
    resolved = load_recipe(recipe, set_)
    _check_prepare(resolved, output, workers, beam)
    progress = Progress(quiet=quiet_)
    quiet.import_tensorflow()
    from keras_distil.runs import corpus

    if beam is None or output is None:
        prepared = corpus.make_corpus(
            resolved,
            progress,
            output=None if output is None else Path(output),
            workers=workers,
        )
        printing.say(
            f"Training: {prepared.train_sequences:,} sequences of at most "
            f"{resolved.data.sequence_length} tokens; held out: "
            f"{len(prepared.held_out):,}"
        )
        printing.say(f"Corpus: {prepared.folder}")
    else:
        corpus.make_corpus_with_beam(
            resolved, progress, output=output, options=shlex.split(beam)
        )
        printing.say(f"Corpus: {output}")
    command = ["keras-distil", "run", recipe]
    if output:
        command += ["--set", f"data.prepared={output}"]
    printing.say(f"Next: {shlex.join(command)}")


def _check_prepare(
    recipe: config.Recipe,
    output: str | None,
    workers: int | None,
    beam: str | None,
) -> None:
    if recipe.distill is not None and recipe.distill.embeds:
        raise ValueError(
            "The texts of sentence embeddings need no preparation: a run reads "
            "them. `prepare` is for masked language modelling."
        )
    if recipe.data.prepared is not None:
        raise ValueError(
            "The recipe takes a prepared corpus, "
            f"`data.prepared: {recipe.data.prepared}`: there is nothing to "
            "prepare. Remove the key, or use --set data.prepared=null."
        )
    if beam is not None and output is None:
        raise ValueError("`--beam` needs `--output`, a folder of the corpus.")
    if beam is not None and workers is not None:
        raise ValueError(
            "`--workers` is for this machine alone; with `--beam`, give the "
            "runner's own option, such as --direct_num_workers."
        )


def find_workers(
    recipe: config.Recipe, workers: str | None, index: int | None
) -> tuple[int, int]:
    """Returns this process's index among its workers, and their number."""
    if (workers is None) != (index is None):
        raise ValueError("--workers and --worker-index need each other.")
    if workers is not None and index is not None:
        distribution.name_workers(workers, index)
    elif recipe.distill is None or recipe.distill.strategy in (
        "auto",
        "multi_worker",
    ):
        distribution.find_workers()
    return distribution.worker_index()


def _stages(*, errors: bool = True) -> Any:
    """Imports the stages, and TensorFlow with them."""
    quiet.import_tensorflow(errors=errors)
    from keras_distil.runs import stages

    return stages
