"""The last stage of a run: students as others load them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_hub.models import MaskedLM, Task

from keras_distil import config, data, export
from keras_distil.models.labels import labels_of
from keras_distil.models.load_model import load_model
from keras_distil.models.task_model import kind_of
from keras_distil.runs.corpus import (
    load_corpus,
    load_tokenizer,
    make_held_out_batches,
    make_training_batches,
)
from keras_distil.runs.run_folder import STUDENT_FILE, Run
from keras_distil.runs.task_results import find_best_student
from keras_distil.runs.tasks import load_task
from keras_distil.utils.progress import Progress

# Sequences that exports are compared on, and those of training that weights
# in 8 bits are fitted to.
_SEQUENCES = 64
_REPRESENTATIVE = 128
_LITERT = "litert_"


def export_run(run: Run) -> list[dict[str, Any]]:
    """Exports the students of a finished run, in its folder.

    The distilled student goes beside its file, and so does the best student
    of each task.

    Args:
        run: the run.

    Returns:
        A report of each, as JSON; nothing for a recipe without `export`, or
        for a worker that writes nothing.
    """
    settings = run.recipe.export
    if settings is None or not run.writes:
        return []
    files: dict[str | None, Path] = {}
    if run.recipe.distill is not None:
        files[None] = run.folder / STUDENT_FILE
    finetune = run.recipe.finetune
    if finetune is not None and "student" in finetune.rows:
        for name in finetune.tasks:
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
            # What an interrupted start of this run has left.
            overwrite=True,
            progress=run.progress,
        ):
            shown = str(report.path.relative_to(run.folder))
            made.append({**report.to_json(), "path": shown})
    return made


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
    """Exports one model, in a folder of its own for each format.

    Args:
        recipe: names the tokenizer and the held-out text.
        path: the model, a `.keras` file or a directory as Hugging Face or
            KerasHub writes it, which brings its own vocabulary.
        folder: where the formats' folders go.
        formats: of `config.EXPORT_FORMATS`. What the model has no form of is
            left out, and a line says so.
        task: whose classes the outputs are, as in `finetune.tasks`.
        scored: whether the task's development set is read, and scores on it
            are compared, too.
        overwrite: whether earlier exports may be replaced.
        progress: where to report to.

    Returns:
        A report of each.
    """
    model = load_model(path)
    tokenizer = load_tokenizer(recipe, model=path)
    settings = recipe.export or config.ExportSection()
    if scored and task is not None:
        held_out, representative = _task_examples(recipe, task)
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
                held_out=held_out,
                **options,
            )
        )
    return reports


def _options(
    name: str,
    offered: Mapping[str, Any],
    representative: export.Examples | None,
) -> tuple[str, dict[str, Any]]:
    """Translates a recipe's format into one of `export.export`.

    Args:
        name: of `config.EXPORT_FORMATS`.
        offered: what the recipe says, by option; a format takes what it has.
        representative: what weights in 8 bits are fitted to.

    Returns:
        The format and its options.
    """
    special: dict[str, Any] = {}
    if name == "sentence_embedding":
        name = "saved_model"
        special = {"sentence_embedding": True, "normalize": True}
    elif name.startswith(_LITERT):
        special["precision"] = name.removeprefix(_LITERT)
        if special["precision"] in export.FITTED:
            special["representative"] = representative
        name = "litert"
    taken = export.find_exporter(name).options()
    return name, special | {k: v for k, v in offered.items() if k in taken}


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
        dataclasses.replace(held_out, score=task.evaluator.score),
        export.Examples.from_inputs(
            (inputs for _, inputs in train), _REPRESENTATIVE
        ),
    )


def _lengths(recipe: config.Recipe, model: Task, task: str | None) -> list[int]:
    """Tokens that a LiteRT file takes."""
    if recipe.export is not None and recipe.export.lengths is not None:
        return recipe.export.lengths
    length = recipe.data.sequence_length
    if task is not None and recipe.finetune is not None:
        length = recipe.finetune.max_length
    return [min(length, model.backbone.max_sequence_length)]


def _labels(task: str | None) -> Sequence[str] | None:
    """Names of a task's classes; None if it has no classes."""
    if task is None or task.startswith("squad"):
        return None
    return data.glue_task(task).labels


def _lacks(model: Task, name: str) -> str | None:
    """Why a model has no form in a format; None if it has one."""
    if isinstance(model, MaskedLM):
        return None
    kind = kind_of(model)
    if name == "preset" and kind in ("span", "token_classification"):
        return f"KerasHub has no class for a {kind} model."
    if name == "sentence_embedding":
        return "sentence embeddings are made of the distilled student."
    return None
