"""The command line: parse, call, print."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import rich.console
import rich.table
import typer

from keras_distil import config
from keras_distil.cli import printing
from keras_distil.planning.devices import find_device
from keras_distil.runs import run_folder
from keras_distil.training import distribution
from keras_distil.utils import quiet
from keras_distil.utils.progress import Progress

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Distil large transformer encoders into small, fast ones.",
)

# What bad input, a full disk or an interrupted download raise. Anything else
# is a mistake of ours, and shows its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError)

_GO_ON = "What was finished is kept: the same command goes on from there."


class _AskedToEndError(BaseException):
    """The process was asked to end; holds the signal's number.

    Ctrl-C too: typer takes a KeyboardInterrupt for itself, and says nothing.
    """


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


@app.callback()
def _program() -> None:
    """Distil large transformer encoders into small, fast ones."""


@app.command(
    epilog="Example: keras-distil run recipes/quickstart.yaml "
    "--set distill.steps=50 --output /tmp/first"
)
def run(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Output = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check and summarise; start nothing."),
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="Devices to assume for --dry-run.")
    ] = 1,
    fresh: Fresh = False,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,...",
            help="All workers, the same list in each. Without it they come "
            "from TF_CONFIG, else from Slurm (srun). Workers listen on every "
            "address of their machine without authentication: for a private "
            "network only, see SECURITY.md.",
        ),
    ] = None,
    worker_index: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The place of this process in --workers. 0 is the chief, "
            "which alone writes.",
        ),
    ] = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Run every stage of a recipe, and print what the student kept."""
    resolved = config.load_recipe(recipe, set_ or ())
    progress = Progress(quiet=quiet_)
    if dry_run:
        quiet.import_tensorflow()
        from keras_distil.planning import estimate
        from keras_distil.runs import preflight

        summary = estimate.summarise(resolved, devices=devices)
        for line in preflight.open_inputs(resolved):
            progress.warn(line)
        printing.print_summary(summary, json_)
        return
    folder = _run_folder(output, resolved.name)
    place, count = _find_workers(resolved, workers, worker_index)
    with run_folder.locked(folder, writes=place == 0):
        opened = run_folder.open_run(
            resolved,
            folder,
            progress,
            fresh=fresh,
            writes=place == 0,
            command=sys.argv[1:],
        )
        report = _stages(errors=count == 1).run_recipe(opened)
    _tell_report(report, folder, json_)


@app.command(
    epilog="Example: keras-distil distill recipes/quickstart.yaml",
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


@app.command(
    epilog="Example: keras-distil finetune recipes/glue.yaml "
    "--set data.root=FOLDER --set finetune.source=files",
)
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


def _run_folder(output: Path | None, name: str) -> Path:
    """Where a run goes: `--output`, else below saved_models."""
    return (output or Path("saved_models") / name).expanduser()


def _run_one(
    stage: str,
    recipe: str,
    overrides: list[str] | None,
    output: Path | None,
    fresh: bool,
    quiet_: bool,
    as_json: bool,
) -> None:
    """One stage of a recipe, in the folder where `run` goes on."""
    resolved = config.load_recipe(recipe, overrides or ())
    if getattr(resolved, stage) is None:
        raise ValueError(f"{recipe} has no section `{stage}`: nothing to do.")
    folder = _run_folder(output, resolved.name)
    with run_folder.locked(folder):
        opened = run_folder.open_run(
            resolved,
            folder,
            Progress(quiet=quiet_),
            fresh=fresh,
            command=sys.argv[1:],
        )
        report = _stages().run_recipe(opened, only=stage)
    _tell_report(report, folder, as_json)


def _tell_report(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        printing.print_json({**report, "folder": str(folder)})
        return
    printing.print_report(report)
    printing.say(f"Report: {folder / run_folder.PAGE_FILE}")
    printing.say(f"Results: {folder}")
    logs = folder / run_folder.LOGS
    printing.say(f"Next: {shlex.join(['tensorboard', '--logdir', str(logs)])}")


@app.command(
    epilog="Example: keras-distil prepare recipes/quickstart.yaml "
    "--output corpora/quickstart",
)
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
        typer.Option(min=1, help="Processes. Default: one a core."),
    ] = None,
    beam: Annotated[
        str | None,
        typer.Option(
            metavar="OPTIONS",
            help="Run on Apache Beam, with its pipeline options in one "
            "string, such as '--runner=FlinkRunner'. Needs --output.",
        ),
    ] = None,
    quiet_: Quiet = False,
) -> None:
    """Turn a recipe's text into shards of tokens, or verify those there are."""
    resolved = config.load_recipe(recipe, set_ or ())
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


@app.command(
    epilog="Example: keras-distil evaluate recipes/glue.yaml --task rte "
    "--model saved_models/glue/tasks/rte/student/seed_0/model.keras",
)
def evaluate(
    recipe: RecipePath,
    model: Annotated[
        Path, typer.Option(help="A model that a run has fine-tuned.")
    ],
    task: Annotated[str, typer.Option(help="One of the recipe's tasks.")],
    set_: Overrides = None,
    submission: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write what GLUE's server takes, too."
        ),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Score a fine-tuned model on a task's development set."""
    resolved = config.load_recipe(recipe, set_ or ())
    quiet.import_tensorflow()
    from keras_distil.runs import task_evaluation

    found = task_evaluation.evaluate_file(resolved, task, model, submission)
    if json_:
        printing.print_json(found)
        return
    for split, metrics in found.items():
        for name, value in metrics.items():
            printing.say(f"{task} {split} {name}: {100 * value:.2f}")
    if submission is not None:
        printing.say(f"To hand in: {submission}")


@app.command(
    epilog="Example: keras-distil export saved_models/quickstart "
    "--format saved_model --format hugging_face",
)
def export(
    recipe: RunOrRecipe,
    model: ModelFile = None,
    task: Annotated[
        str | None,
        typer.Option(help="The model's task, which names its classes."),
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="saved_model, sentence_embedding, hugging_face, preset, onnx "
            "or litert_ with float32, float16, dynamic_int8, full_int8, int4. "
            "May be repeated. Default: those of the recipe, else saved_model, "
            "hugging_face and preset.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Where each format gets a folder. Default: beside the model."
        ),
    ] = None,
    set_: Overrides = None,
    score: Annotated[
        bool,
        typer.Option(
            "--score",
            help="Compare the scores on the task's development set, too.",
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace earlier exports."),
    ] = False,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Write a student for LiteRT, TensorFlow, Hugging Face or KerasHub."""
    resolved, run_path = _run_or_recipe(recipe, set_)
    formats = _export_formats(resolved, format_)
    if score and task is None:
        raise ValueError("`--score` needs the model's task: add --task.")
    quiet.import_tensorflow()
    from keras_distil.runs import exports

    path = model or run_path / run_folder.STUDENT_FILE
    reports = exports.export_file(
        resolved,
        path,
        output or path.parent,
        formats,
        task=task,
        scored=score,
        overwrite=overwrite,
        progress=Progress(quiet=quiet_),
    )
    if json_:
        printing.print_json([made.to_json() for made in reports])
        return
    for made in reports:
        printing.say(str(made))


def _export_formats(
    recipe: config.Recipe, wanted: list[str] | None
) -> list[str]:
    """The formats asked for, checked as a recipe's are."""
    if wanted is None:
        return list((recipe.export or config.ExportSection()).formats)
    known = config.EXPORT_FORMATS
    for name in wanted:
        if name not in known:
            raise ValueError(
                f"`--format` must be one of {', '.join(known)}. "
                f"Received: {name!r}."
            )
    return wanted


@app.command(
    epilog="Example: keras-distil plan recipes/distilbert_base_uncased.yaml "
    "--devices 8 --device v100, or keras-distil plan recipes/quickstart.yaml "
    "--calibrate",
)
def plan(
    recipe: RecipePath,
    device: Annotated[
        str | None,
        typer.Option(
            help="What it runs on: v100, a100, h100 and others. Default: a100."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="How many of them.")] = 1,
    efficiency: Annotated[
        float | None,
        typer.Option(help="Share of the peak that is reached. Default: 0.4."),
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
    resolved = config.load_recipe(recipe, set_ or ())
    quiet.import_tensorflow()
    from keras_distil.planning import estimate as plans

    summary = plans.summarise(resolved, devices=devices)
    if not calibrate:
        planned = plans.durations(
            resolved,
            device=found,
            devices=devices,
            efficiency=plans.EFFICIENCY if efficiency is None else efficiency,
        )
        printing.print_summary(summary | planned, json_)
        return
    from keras_distil.planning import measured

    progress = Progress(quiet=quiet_)
    progress.say("Measuring some updates on this machine")
    with progress.bar("Measure (updates)") as bar:
        measurement = measured.calibrate(resolved, progress=bar.update_of)
    # What was measured stands in place of the estimate.
    del summary["memory_gb_per_device"]
    printing.print_summary(
        summary | measured.durations(resolved, measurement), json_
    )


def _refuse_with_calibrate(given: dict[str, bool]) -> None:
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise ValueError(
            "`--calibrate` measures this machine alone, and goes without "
            f"{' and '.join(wrong)}."
        )


@app.command(
    epilog="Example: keras-distil plot recipes/quickstart.yaml",
)
def plot(
    recipe: RecipePath,
    output: Annotated[
        Path | None,
        typer.Option(help="The PNG to write. Default: NAME_schedules.png."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Updates, for a recipe that counts epochs."),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Draw a recipe's temperature, loss weights and learning rate."""
    resolved = config.load_recipe(recipe, set_ or ())
    quiet.import_tensorflow()
    from keras_distil.runs.report import schedule_chart

    path = output or Path(f"{resolved.name}_schedules.png")
    curves = schedule_chart.compute(resolved, steps=steps)
    schedule_chart.draw(curves, path, title=resolved.name)
    printing.say(f"Drawn: {path}")


@app.command(
    epilog="Example: keras-distil benchmark saved_models/quickstart "
    "--set benchmark.threads=[1,2]",
)
def benchmark(
    recipe: RunOrRecipe,
    model: ModelFile = None,
    set_: Overrides = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Measure a student, its exports, its teacher and other runtimes."""
    resolved, run_path = _run_or_recipe(recipe, set_)
    quiet.import_tensorflow()
    from keras_distil.benchmark import chart
    from keras_distil.runs import benchmarks

    path = model or run_path / run_folder.STUDENT_FILE
    measurement = benchmarks.benchmark(
        resolved, path, progress=Progress(quiet=quiet_)
    )
    if json_:
        printing.print_json([each.to_json() for each in measurement])
        return
    rich.console.Console().print(
        chart.make_tables(measurement, title=resolved.name)
    )
    printing.say(f"Results: {path.parent / benchmarks.RESULT_FILE}")


@app.command(
    epilog="Example: keras-distil search recipes/search_quickstart.yaml",
)
def search(
    recipe: RecipePath,
    set_: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The search's folder. Default: saved_models/<name>_search."
        ),
    ] = None,
    fresh: Fresh = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Trials at a time, a process each.")
    ] = 1,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Where the processes meet on this machine. Default: any.",
        ),
    ] = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Search a recipe's settings with KerasTuner; write the best recipe."""
    resolved = config.load_recipe(recipe, set_ or ())
    if resolved.search is None:
        raise ValueError(f"{recipe} has no section `search`: nothing to do.")
    folder = _run_folder(output, f"{resolved.name}_search")
    progress = Progress(quiet=quiet_)
    # A process that works for another shares its folder.
    alone = "KERASTUNER_ORACLE_IP" not in os.environ
    with run_folder.locked(folder, writes=alone):
        opened = run_folder.open_run(
            resolved,
            folder,
            progress,
            fresh=fresh,
            # What is measured chooses among the trials.
            changeable=("export", "benchmark", "data.max_skipped_fraction"),
        )
        quiet.import_tensorflow()
        from keras_distil.search import processes as search_processes
        from keras_distil.search import results

        found = search_processes.run_search(opened, count=processes, port=port)
    if found is None:
        return
    if json_:
        printing.print_json({**found, "folder": str(folder)})
        return
    rich.console.Console().print(results.make_table(found))
    for line in results.summary(found):
        printing.say(line)
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


def _run_or_recipe(
    given: str, overrides: list[str] | None
) -> tuple[config.Recipe, Path]:
    """A recipe, and the folder of its run."""
    run_path = Path(given)
    if run_path.is_dir():
        given = str(run_path / "recipe.yaml")
    recipe = config.load_recipe(given, overrides or ())
    if not run_path.is_dir():
        run_path = Path("saved_models") / recipe.name
    return recipe, run_path


@app.command(
    epilog="Example: keras-distil report saved_models/glue",
)
def report(
    run_folder_: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run.")
    ],
    json_: AsJson = False,
) -> None:
    """Show the report of a finished run again; make its page anew."""
    path = run_folder_ / "report.json"
    if not path.is_file():
        raise ValueError(
            f"{run_folder_} holds no finished run: {path.name} is missing."
        )
    run_folder.check_report(path)
    found = json.loads(run_folder.read_text(path))
    quiet.import_tensorflow()
    from keras_distil.runs.report import write_page

    page = write_page(run_folder_, found)
    if json_:
        printing.print_json(found)
        return
    printing.print_report(found)
    printing.say(f"Report: {page}")


def _check_prepare(
    recipe: config.Recipe,
    output: str | None,
    workers: int | None,
    beam: str | None,
) -> None:
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


def main() -> None:
    """Runs the command line; bad input ends in one line and status 1."""
    for number in quiet.WORDS:
        signal.signal(number, _end)
    try:
        app()
    except _AskedToEndError as asked:
        number = asked.args[0]
        # What is asked once more may not cut the line in two.
        for each in quiet.WORDS:
            signal.signal(each, signal.SIG_IGN)
        _fail(f"{quiet.WORDS[number]}. {_GO_ON}", status=128 + number)
    except config.RecipeError as error:
        # One line for each mistake in the recipe.
        _fail(str(error))
    except _EXPECTED as error:
        _fail(_in_one_line(error))


def _end(number: int, frame: Any) -> None:
    raise _AskedToEndError(signal.Signals(number))


def _in_one_line(error: Exception) -> str:
    text = str(error)
    # Python's own words begin with a number that says nothing to a reader.
    if isinstance(error, OSError) and error.strerror:
        names = [x for x in (error.filename, error.filename2) if x is not None]
        text = ": ".join([error.strerror, " -> ".join(map(str, names))])
        text = text.removesuffix(": ")
    return " ".join(text.split()) or type(error).__name__


def _fail(message: str, status: int = 1) -> None:
    print(f"keras-distil: {message}", file=sys.stderr)
    sys.exit(status)


def _find_workers(
    recipe: config.Recipe, workers: str | None, index: int | None
) -> tuple[int, int]:
    """The place of this process among its workers, and their number."""
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
    quiet.import_tensorflow(errors=errors)
    from keras_distil.runs import stages

    return stages


if __name__ == "__main__":
    main()
