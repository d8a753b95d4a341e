"""Loads any supported model, whatever its format and task."""

from pathlib import Path
from typing import Any

import keras_hub

from keras_distil.models.checkpoints import read_config
from keras_distil.models.checkpoints.sentence_transformers import MODULES_FILE
from keras_distil.models.embedding_model import is_embedder
from keras_distil.models.keras_archive import load_archive
from keras_distil.models.load_embedding_model import load_embedding_model
from keras_distil.models.load_teacher import load_teacher
from keras_distil.models.model_paths import check_model_path, is_preset
from keras_distil.models.task_model import kind_of, load_task_model
from keras_distil.utils.disk import read_json


def load_model(path: Path) -> keras_hub.models.Task:
    """Loads a masked-LM model, a model of a task, or a sentence embedder.

    Args:
        path: a `.keras` file, a local Hugging Face directory, or the
            directory of a KerasHub preset; of sentence-transformers for an
            embedder.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it is damaged or holds another kind of model.
    """
    check_model_path(path)
    if path.is_file():
        model = load_archive(path, keras_hub.models.Task, "task")
        is_masked_lm = isinstance(model, keras_hub.models.MaskedLM)
        if kind_of(model) or is_masked_lm or is_embedder(model):
            return model
        raise ValueError(
            f"`{path}` must hold a masked-LM model, one of a task, or an "
            "embedding model. "
            f"Received: {type(model).__name__}."
        )
    if _is_embedder(path):
        return load_embedding_model(path)
    return load_teacher(path) if _is_masked_lm(path) else load_task_model(path)


def _is_embedder(directory: Path) -> bool:
    if (directory / MODULES_FILE).is_file():
        return True
    return "TextEmbedder" in str(_task_class(directory))


def _is_masked_lm(directory: Path) -> bool:
    if not is_preset(directory):
        return read_config(directory).task is None
    name = _task_class(directory)
    # If there is no task, the teacher's loader explains what is missing.
    return name is None or "MaskedLM" in str(name)


def _task_class(directory: Path) -> Any:
    """Name of the class of a preset's task; None without one."""
    path = directory / "task.json"
    return read_json(path).get("class_name") if path.is_file() else None
