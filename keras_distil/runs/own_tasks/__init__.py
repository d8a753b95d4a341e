"""The tasks that a recipe reads from one's own files."""

from pathlib import Path

import tokenizers

from keras_distil import config
from keras_distil.config.own_task import OwnTask
from keras_distil.runs.own_tasks.files import Loader, OwnData
from keras_distil.runs.own_tasks.spans import SpanLoader
from keras_distil.runs.own_tasks.texts import TextLoader
from keras_distil.runs.own_tasks.words import WordLoader

_LOADERS: dict[str, type[Loader]] = {
    "classification": TextLoader,
    "multi_label": TextLoader,
    "regression": TextLoader,
    "token_classification": WordLoader,
    "span": SpanLoader,
}


def load_own_task(
    recipe: config.Recipe,
    entry: OwnTask,
    tokenizer: tokenizers.Tokenizer,
    *,
    folder: Path | None = None,
) -> OwnData:
    """Reads, checks and encodes a task from files.

    Args:
        recipe: the recipe.
        entry: the task.
        tokenizer: tokenizer of the models that read the task.
        folder: where to write the training set's token ids, which are then read
            from disk; None to keep them in memory.

    Raises:
        ValueError: if a file or a row is invalid.
        FileNotFoundError: if there is no such file.
    """
    return _LOADERS[entry.kind](recipe, entry).load(tokenizer, folder)


def read_own_task(recipe: config.Recipe, entry: OwnTask) -> list[str]:
    """Reads a task's files only to check them.

    Returns:
        What the user should know of them, one line each.

    Raises:
        ValueError: if a file or a row is invalid.
        FileNotFoundError: if there is no such file.
    """
    loader = _LOADERS[entry.kind](recipe, entry)
    loader.read()
    return loader.remarks
