"""Commands that estimate, plot or search a recipe's settings."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from keras_distil.cli import printing
from keras_distil.cli.options import (
    AsJson,
    Fresh,
    Overrides,
    Quiet,
    RecipePath,
    choose_folder,
    load_recipe,
)
from keras_distil.planning.devices import find_device
from keras_distil.runs import earlier_runs, run_folder
from keras_distil.utils import quiet
from keras_distil.utils.progress import Progress


def plan(
    recipe: RecipePath,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What it runs on: v100, a100, h100 and others. Default: a100.",
        ),
    ] = None,
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many of them.")
    ] = 1,
    efficiency: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the peak that is reached. Default: 0.4.",
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure some updates here, and plan for this machine.",
        ),
    ] = False,
    set_: Overrides = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Estimate memory, hours and where the time goes; start nothing."""
    if calibrate:
        _refuse_with_calibrate(
            {
                "--device": device is not None,
                "--devices": devices > 1,
                "--efficiency": efficiency is not None,
            }
        )
    found = find_device("a100" if device is None else device)
    resolved = load_recipe(recipe, set_)
    quiet.import_tensorflow()
    from keras_distil.planning import estimate

    resolved, precision = estimate.with_precision(
        resolved, None if calibrate else found
    )
    summary = estimate.summarise(resolved, devices=devices)
    summary["recipe"]["precision"] = precision
    if not calibrate:
        planned = estimate.durations(
            resolved,
            device=found,
            devices=devices,
            efficiency=estimate.EFFICIENCY
            if efficiency is None
            else efficiency,
        )
        printing.print_summary(summary | planned, json_)
        return
    from keras_distil.planning import measured

    progress = Progress(quiet=quiet_)
    progress.say("Measuring some updates on this machine")
    with progress.bar("Measure (updates)") as bar:
        measurement = measured.measure(resolved, progress=bar.update_of)
    # The measurement replaces the estimate.
    del summary["memory_gb_per_device"]
    printing.print_summary(
        summary | measured.durations(resolved, measurement), json_
    )


def _refuse_with_calibrate(given: dict[str, bool]) -> None:
    """Raises ValueError if an option cannot be combined with `--calibrate`."""
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise ValueError(
            "`--calibrate` measures this machine alone, and goes without "
            f"{' and '.join(wrong)}."
        )


def plot(
    recipe: RecipePath,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The PNG to write. Default: <name>_schedules.png.",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Updates, for a recipe that counts epochs.",
        ),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Draw a recipe's temperature, loss weights and learning rate."""
    resolved = load_recipe(recipe, set_)
    quiet.import_tensorflow()
    from keras_distil.runs.report import schedule_chart

    path = output or Path(f"{resolved.name}_schedules.png")
    curves = schedule_chart.compute(resolved, steps=steps)
    schedule_chart.draw(curves, path, title=resolved.name)
    printing.say(f"Drawn: {path}")


def search(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The search's folder. Default: saved_models/<name>_search.",
        ),
    ] = None,
    fresh: Fresh = False,
    processes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Trials at a time, a process each."
        ),
    ] = 1,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=65535,
            help="Where the processes meet on this machine. Default: any.",
        ),
    ] = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Search a recipe's settings with KerasTuner; write the best."""
    resolved = load_recipe(recipe, set_)
    if resolved.search is None:
        raise ValueError(f"{recipe} has no section `search`: nothing to do.")
    folder = choose_folder(output, f"{resolved.name}_search")
    progress = Progress(quiet=quiet_)
    # A process that works for another one shares its folder.
    alone = "KERASTUNER_ORACLE_IP" not in os.environ
    with run_folder.locked(folder, writes=alone):
        if alone and not fresh:
            earlier_runs.translate_run(folder, progress.say)
        opened = run_folder.open_run(
            resolved,
            folder,
            progress,
            fresh=fresh,
            # Without `evaluate`, whose measures choose among the trials.
            changeable=("export", "benchmark", "data.max_skipped_fraction"),
        )
        quiet.import_tensorflow()
        from keras_distil.runs import settled
        from keras_distil.search import processes as search_processes
        from keras_distil.search import results

        settled.settle_precision(opened)
        found = search_processes.run_search(opened, count=processes, port=port)
    if found is None:
        return
    if json_:
        printing.print_json({**found, "folder": str(folder)})
        return
    printing.print_search(found)
    printing.say(f"Results: {folder}")
    logs = folder / run_folder.LOGS
    curves = shlex.join(["tensorboard", "--logdir", str(logs)])
    printing.say(f"Curves: {curves}")
    if found["best"] is None:
        raise RuntimeError(
            f"No trial has a score: see {folder / results.RESULT_FILE}."
        )
    best = shlex.join(["keras-distil", "run", str(folder / results.BEST_FILE)])
    printing.say(f"Next: {best}")
