"""The last stage of a run: exporting students for other programs."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_hub.models import MaskedLM, Task

from keras_distil import config, data, export
from keras_distil.models.architectures import family_of
from keras_distil.models.embedding_model import is_embedder, text_length
from keras_distil.models.labels import divide_outputs, labels_of
from keras_distil.models.load_model import load_model
from keras_distil.models.task_model import kind_of
from keras_distil.runs.corpus import (
    load_corpus,
    load_tokenizer,
    make_held_out_batches,
    make_training_batches,
)
from keras_distil.runs.details.schema import temperature_of
from keras_distil.runs.embeddings.examples import make_examples
from keras_distil.runs.run_folder import STUDENT_FILE, Run
from keras_distil.runs.task_results import find_best_student
from keras_distil.runs.tasks import BuiltTask, load_task
from keras_distil.utils.progress import Progress

# Number of held-out sequences on which exports are compared, and of training
# sequences used to calibrate 8-bit weights.
_SEQUENCES = 64
_REPRESENTATIVE = 128
_LITERT = "litert_"
_STATIC_TABLE = "static_table"


def export_run(run: Run) -> list[dict[str, Any]]:
    """Exports the students of a finished run, in its folder.

    The distilled student's exports go beside its file, and so do those of each
    task's best student.

    Args:
        run: the run.

    Returns:
        A JSON report for each export; nothing for a recipe without `export`, or
        for a worker that does not write.
    """
    settings = run.recipe.export
    if settings is None or not run.writes:
        return []
    files: dict[str | None, Path] = {}
    if run.recipe.distill is not None:
        files[None] = run.folder / STUDENT_FILE
    finetune = run.recipe.finetune
    if finetune is not None and "student" in finetune.rows:
        for name in finetune.task_names:
            files[name] = find_best_student(run, name)
    made = []
    for task, path in files.items():
        for report in export_file(
            run.recipe,
            path,
            path.parent,
            settings.formats,
            task=task,
            # The data has just been read.
            scored=task is not None,
            # Replaces what an interrupted start of this run has left.
            overwrite=True,
            progress=run.progress,
        ):
            shown = str(report.path.relative_to(run.folder))
            made.append(
                {
                    **report.to_json(),
                    "path": shown,
                    "temperature": _temperature(settings, path),
                }
            )
    return made


def rehearse_export(run: Run, student: MaskedLM) -> None:
    """Exports a student as the run will do at its end, and keeps nothing."""
    settings = run.recipe.export
    if settings is None or not run.writes:
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, STUDENT_FILE)
        student.save(path)
        export_file(
            run.recipe,
            path,
            path.parent,
            settings.formats,
            overwrite=False,
            progress=Progress(quiet=True),
        )


def export_file(
    recipe: config.Recipe,
    path: Path,
    folder: Path,
    formats: Sequence[str],
    *,
    task: str | None = None,
    scored: bool = False,
    overwrite: bool,
    progress: Progress,
) -> list[export.ExportReport]:
    """Exports one model, each format to its own folder.

    The student of a run's task is exported with its temperature in the output
    layer, so the exports are compared with that model; its file stays as it
    is.

    Args:
        recipe: names the tokenizer and the held-out text.
        path: the model: a `.keras` file, or a directory as Hugging Face or
            KerasHub writes it, which brings its own vocabulary.
        folder: where the formats' folders go.
        formats: from `config.EXPORT_FORMATS`. Formats that the model does not
            support are left out, and a line says so.
        task: the task that the model's outputs are for, as in `finetune.tasks`.
        scored: whether to read the task's development set and also compare
            scores on it.
        overwrite: whether earlier exports may be replaced.
        progress: where to report to.

    Returns:
        A report for each export.
    """
    model = load_model(path)
    # An embedder has its own.
    tokenizer = None
    if not is_embedder(model):
        tokenizer = load_tokenizer(recipe, model=path)
    settings = recipe.export or config.ExportSection()
    temperature = _temperature(settings, path)
    if temperature != 1.0:
        progress.say(f"Calibrated: the outputs of {path} by {temperature:.3f}")
        divide_outputs(model, temperature)
    held_out: Any
    if scored and task is not None:
        held_out, representative = _task_examples(recipe, task)
    elif is_embedder(model):
        held_out, representative = make_examples(
            recipe,
            model,
            progress,
            compared=_SEQUENCES,
            fitted=_REPRESENTATIVE,
        )
    else:
        held_out, representative = _text_examples(recipe, model, progress)
    offered = {
        "max_length": settings.max_length,
        "lengths": _lengths(recipe, model, task),
        "labels": None if labels_of(model) else _labels(task),
    }
    reports = []
    for name in formats:
        without = _lacks(model, name)
        if without:
            progress.say(f"No {name} of {path}: {without}")
            continue
        progress.say(f"Export {folder / name}")
        format_, options = _options(name, offered, representative)
        reports.append(
            export.export(
                model,
                folder / name,
                tokenizer,
                format=format_,
                overwrite=overwrite,
                held_out=_without_score(held_out, model, name),
                **options,
            )
        )
    return reports


def _temperature(settings: config.ExportSection, path: Path) -> float:
    """The temperature that all exports of a model carry."""
    return temperature_of(path) if settings.calibrate else 1.0


def _options(
    name: str,
    offered: Mapping[str, Any],
    representative: export.Examples | None,
) -> tuple[str, dict[str, Any]]:
    """Translates a recipe's format into one of `export.export`.

    Args:
        name: from `config.EXPORT_FORMATS`.
        offered: options from the recipe; a format takes those that it has.
        representative: examples for calibrating 8-bit weights.

    Returns:
        The format and its options.
    """
    special: dict[str, Any] = {}
    if name.startswith(_LITERT):
        special["precision"] = name.removeprefix(_LITERT)
        if special["precision"] in export.FITTED:
            special["representative"] = representative
    name = _base(name)
    taken = export.find_exporter(name).options()
    return name, special | {k: v for k, v in offered.items() if k in taken}


def _without_score(
    examples: export.Examples | None, model: Task, name: str
) -> export.Examples | None:
    """Drops an embedder's score where vectors are compared to 4 digits."""
    is_rounded = "int" in name or name == _STATIC_TABLE
    if examples is None or not is_embedder(model) or is_rounded:
        return examples
    return dataclasses.replace(examples, score=None)


def _base(name: str) -> str:
    """Returns the format of `export.export` for a recipe's format."""
    return "litert" if name.startswith(_LITERT) else name


def _text_examples(
    recipe: config.Recipe, model: Task, progress: Progress
) -> tuple[export.Examples | None, export.Examples | None]:
    """Held-out and training text of the recipe, for a masked-LM model."""
    has_text = recipe.data.sources or recipe.data.prepared
    if not isinstance(model, MaskedLM) or not has_text:
        return None, None
    with progress.bar("Prepare corpus (units)") as bar:
        prepared = load_corpus(recipe, progress=bar.update_of)
    train = make_training_batches(
        recipe,
        prepared,
        batch_size=min(_REPRESENTATIVE, prepared.train_sequences),
    )
    return (
        export.Examples.from_dataset(
            make_held_out_batches(recipe, prepared), _SEQUENCES
        ),
        export.Examples.from_dataset(train, _REPRESENTATIVE),
    )


def _task_examples(
    recipe: config.Recipe, name: str
) -> tuple[export.Examples | None, export.Examples | None]:
    """The task's development set, with its score, and training examples."""
    task = load_task(recipe, name)
    held_out = export.Examples.from_inputs(task.evaluator.inputs(), _SEQUENCES)
    train = data.padded_batches(task.train, batch_size=_REPRESENTATIVE)
    return (
        dataclasses.replace(
            held_out,
            score=task.evaluator.score,
            scored=_count_scored(task),
            is_error=task.counts_errors,
        ),
        export.Examples.from_inputs(
            (inputs for _, inputs in train), _REPRESENTATIVE
        ),
    )


def _count_scored(task: BuiltTask) -> int | None:
    """Examples that a score is a share of; None for errors, correlations."""
    if task.kind == "regression" or task.counts_errors:
        return None
    return sum(map(len, task.evaluator.labels.values()))


def _lengths(recipe: config.Recipe, model: Task, task: str | None) -> list[int]:
    """Sequence lengths, in tokens, of a LiteRT file."""
    if recipe.export is not None and recipe.export.lengths is not None:
        return recipe.export.lengths
    length = recipe.data.sequence_length
    if task is not None and recipe.finetune is not None:
        length = recipe.finetune.max_length
    if is_embedder(model):
        return [min(length, text_length(model))]
    return [min(length, model.backbone.max_sequence_length)]


def _labels(task: str | None) -> Sequence[str] | None:
    """Class names of a task; None if it has no classes."""
    # Models of other tasks have their labels with them.
    known = data.GLUE_TASKS.get(task or "")
    return None if known is None else known.labels


def _lacks(model: Task, name: str) -> str | None:
    """Why a model does not support a format; None if it does."""
    is_static = is_embedder(model) and family_of(model) is None
    if is_static and not export.find_exporter(_base(name)).takes_tables:
        return "a static table has no encoder."
    if name == _STATIC_TABLE and not is_static:
        return "it is for a student that is a static table of vectors."
    if isinstance(model, MaskedLM):
        return None
    kind = kind_of(model)
    if name == "preset" and kind in ("span", "token_classification"):
        return f"KerasHub has no class for a {kind} model."
    return None
