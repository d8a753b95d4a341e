"""Commands that take a trained student."""

from pathlib import Path
from typing import Annotated

import rich.console
import typer

from keras_distil import config
from keras_distil.cli import printing
from keras_distil.cli.options import (
    AsJson,
    ModelFile,
    Overrides,
    Quiet,
    RecipePath,
    load_recipe,
    load_run_or_recipe,
)
from keras_distil.runs import run_folder
from keras_distil.utils import quiet
from keras_distil.utils.progress import Progress


def evaluate(
    recipe: RecipePath,
    model: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A model that a run has fine-tuned."),
    ],
    task: Annotated[
        str, typer.Option(metavar="TASK", help="One of the recipe's tasks.")
    ],
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
    resolved = load_recipe(recipe, set_)
    quiet.import_tensorflow()
    from keras_distil.evaluation.task_metrics import ERRORS
    from keras_distil.runs import task_evaluation

    scores = task_evaluation.evaluate_file(resolved, task, model, submission)
    if json_:
        printing.print_json(scores)
        return
    for split, metrics in scores.items():
        for name, value in metrics.items():
            shown = f"{value:.4f}" if name in ERRORS else f"{100 * value:.2f}"
            printing.say(f"{task} {split} {name}: {shown}")
    if submission is not None:
        printing.say(f"To hand in: {submission}")


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", hidden=True)],
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    output: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The JSONL file to write."),
    ],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="A recipe or run that has the model's tokenizer, or the "
            "columns and lengths of the file.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help="The task of --recipe."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=NAME",
            help="A column of FILE, such as text=body. May be repeated.",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(metavar="N", min=8, help="Tokens per text. Default: 128."),
    ] = None,
    quiet_: Quiet = False,
) -> None:
    """Write a fine-tuned model's predictions for a file of a task."""
    resolved, found = None, recipe
    if recipe is None:
        found, task = run_folder.find_run_of_model(Path(model), task)
    if found is not None:
        resolved, _ = load_run_or_recipe(found, None)
    quiet.import_tensorflow()
    from keras_distil.runs import predict as predictions

    count = predictions.predict_file(
        model,
        file,
        output,
        recipe=resolved,
        task=task,
        columns=column or (),
        max_length=max_length,
        progress=Progress(quiet=quiet_),
    )
    printing.say(f"Predictions: {output} ({count:,} rows)")


def export(
    recipe: RecipePath,
    model: ModelFile = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="The model's task, which names its classes."
        ),
    ] = None,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="saved_model, hugging_face, preset, onnx, static_table "
            "or litert_ with float32, float16, dynamic_int8, full_int8, int4. "
            "May be repeated. Default: those of the recipe, else saved_model, "
            "hugging_face and preset.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where each format gets a folder. Default: beside the model.",
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
    """Write a student for LiteRT, TensorFlow, ONNX or Hugging Face."""
    resolved, run_path = load_run_or_recipe(recipe, set_)
    formats = check_formats(resolved, format_)
    quiet.import_tensorflow()
    from keras_distil.runs import exports

    path, task = _find_student(resolved, run_path, model, task)
    if score and task is None:
        raise ValueError("`--score` needs the model's task: add --task.")
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


def _find_student(
    recipe: config.Recipe, folder: Path, model: Path | None, task: str | None
) -> tuple[Path, str | None]:
    """Returns the file that is asked for, or a run's student, and its task."""
    if model is not None:
        return model, task
    from keras_distil.runs import task_results

    run = run_folder.Run(recipe, folder, Progress(quiet=True))
    found, path = task_results.find_student(run, task)
    return path, found


def check_formats(recipe: config.Recipe, wanted: list[str] | None) -> list[str]:
    """Returns the requested formats, checked like those of a recipe."""
    if wanted is None:
        return list((recipe.export or config.ExportSection()).formats)
    known = config.EXPORT_FORMATS
    for name in wanted:
        if name == config.EARLIER_FORMAT:
            raise ValueError(f"`--format` {config.EARLIER_FORMAT_MESSAGE}.")
        if name not in known:
            raise ValueError(
                f"`--format` must be one of {', '.join(known)}. "
                f"Received: {name!r}."
            )
    return wanted


def benchmark(
    recipe: RecipePath,
    model: ModelFile = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK", help="The task whose best student is measured."
        ),
    ] = None,
    set_: Overrides = None,
    quiet_: Quiet = False,
    json_: AsJson = False,
) -> None:
    """Measure a student, its exports, its teacher and other runtimes."""
    resolved, run_path = load_run_or_recipe(recipe, set_)
    quiet.import_tensorflow()
    from keras_distil.benchmark import chart
    from keras_distil.runs import benchmarks

    path, _ = _find_student(resolved, run_path, model, task)
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
