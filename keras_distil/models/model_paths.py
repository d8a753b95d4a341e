"""Checks of paths that should hold a model."""

import itertools
import zipfile
from pathlib import Path

from keras_distil.models.hub import HUB_SCHEME
from keras_distil.utils.disk import read_json

# The form into which `pathlib` turns `hf://`.
_HUB_PATH = HUB_SCHEME.replace("//", "/")
# Formats that can only be run, by a file in the folder.
_EXPORTS = {
    "saved_model.pb": "a SavedModel",
    "student.tflite": "a LiteRT model",
    "model.onnx": "an ONNX model",
}
_MOST_MODELS = 3


def check_model_path(path: Path) -> None:
    """Raises if a path is neither a `.keras` file nor a model's directory.

    The content is checked when it is loaded.

    Args:
        path: any path.

    Raises:
        FileNotFoundError: if nothing is there.
        ValueError: saying what is there and what to pass instead.
    """
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(_describe_folder(path))
    elif path.is_file():
        _check_file(path)
    elif str(path).startswith(_HUB_PATH):
        repository = str(path).removeprefix(_HUB_PATH)
        folder = path.name
        raise FileNotFoundError(
            f"A model on the Hugging Face Hub must be downloaded first: "
            f"`hf download {repository} --local-dir {folder}`. Then give "
            f"{folder}."
        )
    else:
        raise FileNotFoundError(f"There is no model {path}.")


def is_preset(directory: Path) -> bool:
    """Checks whether KerasHub wrote a directory with a `config.json`."""
    return "registered_name" in read_json(directory / "config.json")


def _check_file(path: Path) -> None:
    if zipfile.is_zipfile(path):
        return
    if path.suffix == ".keras":
        raise ValueError(f"`{path}` is not a `.keras` file, or a damaged one.")
    if (path.parent / "config.json").is_file():
        raise ValueError(
            f"`{path}` is a file of a model's directory. Give the directory: "
            f"`{path.parent}`."
        )
    raise ValueError(
        f"`{path}` is not a `.keras` file, nor a directory with `config.json`."
    )


def _describe_folder(path: Path) -> str:
    for name, what in _EXPORTS.items():
        if (path / name).is_file():
            return (
                f"`{path}` holds {what}, which is not read back. Give the "
                "`.keras` file that it was exported from."
            )
    start = f"`{path}` is not a model's directory: it has no `config.json`."
    keras_files = itertools.islice(sorted(path.rglob("*.keras")), _MOST_MODELS)
    models = ", ".join(f"`{model}`" for model in keras_files)
    if not models:
        return f"{start} Nor is there a `.keras` file in it."
    return f"{start} Give a model in it, such as {models}."
