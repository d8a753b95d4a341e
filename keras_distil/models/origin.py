"""The folder that a model was loaded from, where its tokenizer lies."""

import os
from pathlib import Path
from typing import Any

_ATTRIBUTE = "_keras_distil_folder"


def remember_folder(model: Any, directory: str | os.PathLike) -> None:
    """Notes the folder that a model was loaded from."""
    setattr(model, _ATTRIBUTE, str(Path(directory).absolute()))


def folder_of(model: Any) -> Path | None:
    """Returns the folder that a model, or its teacher, was loaded from.

    It is not saved with the model: a `.keras` file has none.
    """
    folder = getattr(model, _ATTRIBUTE, None)
    return None if folder is None else Path(folder)


def inherit_folder(source: Any, target: Any) -> None:
    """Notes that a model was made from another, and reads texts alike."""
    folder = folder_of(source)
    if folder is not None:
        remember_folder(target, folder)
