"""Loads any supported model, whatever its format and task."""

from pathlib import Path

import keras_hub

from keras_distil.models.checkpoints import read_config
from keras_distil.models.keras_archive import load_archive
from keras_distil.models.load_teacher import load_teacher
from keras_distil.models.model_paths import check_model_path, is_preset
from keras_distil.models.task_model import kind_of, load_task_model
from keras_distil.utils.disk import read_json


def load_model(path: Path) -> keras_hub.models.Task:
    """Loads a masked-LM model or a model of a task.

    Args:
        path: a `.keras` file, a local Hugging Face directory, or the
            directory of a KerasHub preset.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it is damaged or holds another kind of model.
    """
    check_model_path(path)
    if path.is_file():
        model = load_archive(path, keras_hub.models.Task, "task")
        if kind_of(model) or isinstance(model, keras_hub.models.MaskedLM):
            return model
        raise ValueError(
            f"`{path}` must hold a masked-LM model or one of a task. "
            f"Received: {type(model).__name__}."
        )
    return load_teacher(path) if _is_masked_lm(path) else load_task_model(path)


def _is_masked_lm(directory: Path) -> bool:
    if not is_preset(directory):
        return read_config(directory).task is None
    path = directory / "task.json"
    name = read_json(path).get("class_name") if path.is_file() else None
    # If there is no task, the teacher's loader explains what is missing.
    return name is None or "MaskedLM" in str(name)
