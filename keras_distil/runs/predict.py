"""Writes a model's predictions for a file, for `teacher.predictions`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from keras_hub.models import Task

from keras_distil import config, data, models
from keras_distil.config.own_task import OwnTask
from keras_distil.data.tasks.batches import EncodedExamples, padded_batches
from keras_distil.evaluation.outputs import OutputFunction, output_function
from keras_distil.models.labels import labels_of
from keras_distil.models.task_model import kind_of
from keras_distil.runs.corpus import load_tokenizer, model_directory
from keras_distil.runs.prediction_files import (
    Reading,
    check_file,
    parse_columns,
    read_parts,
)
from keras_distil.runs.sections import finetune_section
from keras_distil.runs.task_evaluation import check_tokenizer
from keras_distil.teachers.predictions.lines import prediction_lines
from keras_distil.utils import disk
from keras_distil.utils.progress import Progress

_BATCH = 64


def predict_file(
    source: str,
    path: Path,
    output: Path,
    *,
    recipe: config.Recipe | None = None,
    task: str | None = None,
    columns: Sequence[str] = (),
    max_length: int | None = None,
    progress: Progress,
) -> int:
    """Writes a model's predictions for a file.

    Args:
        source: the model, as for `models.load_task_model`.
        path: a file of its task, with or without labels.
        output: the JSONL file to write.
        recipe: has the tokenizer, if the model's folder has none, and perhaps
            the task's columns and lengths.
        task: name of the recipe's task.
        columns: `KEY=NAME` each, in place of the recipe's.
        max_length: tokens per text, in place of the recipe's.
        progress: where to report to.

    Returns:
        The number of rows.

    Raises:
        ValueError: if the model, the file or an option is invalid, or there
            is no tokenizer.
        OSError: if a file is missing, or `output` exists.
    """
    model = models.load_task_model(source)
    kind = str(kind_of(model))
    check_file(path, kind)
    tokenizer = _tokenizer_of(model, source, recipe)
    reading = Reading()
    if recipe is not None and recipe.finetune is not None:
        entry = choose_task(recipe, kind, task)
        reading = Reading() if entry is None else reading_of(recipe, entry)
    if columns:
        given = {**reading.columns, **parse_columns(columns, kind)}
        reading = dataclasses.replace(reading, columns=given)
    longest = model.backbone.max_sequence_length
    length = max_length or min(reading.max_length, longest)
    if length > longest:
        raise ValueError(
            f"`--max-length` must be at most {longest}, the positions of the "
            f"model. Received: {length}."
        )
    reading = dataclasses.replace(reading, max_length=length)
    return write_predictions(
        model, tokenizer, path, output, reading, progress=progress
    )


def _tokenizer_of(
    model: Task, source: str, recipe: config.Recipe | None
) -> tokenizers.Tokenizer:
    """Loads a model's own tokenizer, or that of a recipe."""
    if recipe is not None:
        tokenizer = load_tokenizer(recipe, model=Path(source))
        if not Path(source).is_dir():
            check_tokenizer(model, tokenizer, Path(source))
        return tokenizer
    directory = model_directory(source)
    if directory is None:
        raise ValueError(
            f"`{source}` has no tokenizer beside it: add --recipe, the recipe "
            "or the run that trained it."
        )
    return data.load_tokenizer(directory)


def reading_of(recipe: config.Recipe, entry: OwnTask) -> Reading:
    """Returns how a recipe reads the files of a task."""
    settings = finetune_section(recipe)
    stride = entry.stride
    if entry.kind == "span":
        stride = entry.stride or settings.stride
    return Reading(
        columns=entry.columns,
        encoding=entry.encoding,
        max_length=settings.max_length,
        stride=stride,
        max_question=settings.max_question,
    )


def choose_task(
    recipe: config.Recipe, kind: str, name: str | None
) -> OwnTask | None:
    """Returns the recipe's task of one's own that a model is for.

    Args:
        recipe: the recipe.
        kind: kind of the model.
        name: name of the task; None for the only one of the kind.

    Returns:
        The task; None if the recipe has no such task and none is named.

    Raises:
        ValueError: if the named one does not exist or is of another kind, or
            there are several.
    """
    tasks = finetune_section(recipe).tasks
    own = {x.name: x for x in tasks if isinstance(x, OwnTask)}
    known = [
        x for x in own.values() if x.kind == kind and name in (None, x.name)
    ]
    if len(known) == 1:
        return known[0]
    if name is None and not known:
        return None
    kinds = {x.name: x.kind for x in own.values()}
    raise ValueError(
        f"`--task` must name one of the recipe's tasks with files, of the kind "
        f"{kind}. Received: {name}, and the recipe has {kinds}."
    )


def write_predictions(
    model: Task,
    tokenizer: tokenizers.Tokenizer,
    path: Path,
    output: Path,
    reading: Reading,
    *,
    progress: Progress,
) -> int:
    """Writes a line of JSON for each row of a file.

    A line has `id`, if the row has one, `row` and `hash`, and the model's
    outputs: `logits`, or for numbers `scores`. Rows without a text are left
    out.

    Args:
        model: a model of a task.
        tokenizer: its tokenizer.
        path: a file of the task, with or without labels.
        output: the file to write.
        reading: how the file is read.
        progress: where to report to.

    Returns:
        The number of lines.

    Raises:
        ValueError: if the file is invalid.
        FileExistsError: if there is a file already.
    """
    if output.exists():
        raise FileExistsError(
            f"{output} is there already. Remove it, or give another --output."
        )
    kind = str(kind_of(model))
    run = output_function(model)
    names = _names(model, kind)
    partial = output.with_name(f".{output.name}.partial")
    count = cut = skipped = 0
    with (
        disk.replacing(output, partial),
        partial.open("w", encoding="utf-8") as file,
        progress.bar(f"Predict {path.name} (rows)") as bar,
    ):
        for part in read_parts(path, kind, tokenizer, reading):
            outputs = _outputs(run, part.examples)
            for line in prediction_lines(
                outputs,
                part.keys,
                kind,
                names,
                rows=part.rows,
                ids=part.ids,
            ):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += len(part.keys)
            cut += part.examples.cut
            skipped += part.skipped
            bar.update_of(count, count)
        if not count:
            raise ValueError(
                f"{path} must have a row with a text. Received: none."
            )
    if skipped:
        progress.warn(f"{skipped:,} rows of {path.name} have no text.")
    if cut:
        progress.warn(
            f"{cut:,} of the {count:,} texts are longer than "
            f"{reading.max_length} tokens and lose their ends: give them a "
            "--max-length, or the `stride` of a --recipe."
        )
    return count


def _outputs(
    run: OutputFunction, examples: EncodedExamples
) -> list[np.ndarray]:
    """Returns the outputs of each example, without those of padding."""
    found: list[np.ndarray] = [np.zeros(0)] * len(examples)
    lengths = examples.lengths
    for rows, inputs in padded_batches(examples, batch_size=_BATCH):
        for row, value in zip(rows, run(inputs), strict=True):
            found[row] = value if value.ndim == 1 else value[: lengths[row]]
    return found


def _names(model: Task, kind: str) -> Sequence[str]:
    labels = labels_of(model)
    if labels is None and kind not in ("regression", "span"):
        labels = tuple(f"LABEL_{i}" for i in range(model.num_classes))
    return labels or ()
