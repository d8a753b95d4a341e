"""Keras's backend, which must be TensorFlow."""

import importlib.util
import json
import os
import sys
from pathlib import Path

_COMMAND = "keras-distil"


def check_backend() -> None:
    """Raises ImportError if Keras uses, or would use, another backend.

    Neither Keras nor TensorFlow is imported: the name is read from where
    Keras reads it, `KERAS_BACKEND` and then `keras.json`.

    Raises:
        ImportError: naming the backend and where it was chosen.
    """
    if not _has_keras():
        # `keras_distil.edge` needs no backend.
        return
    name, source = _find_backend()
    if name != "tensorflow":
        raise ImportError(
            "keras_distil needs Keras's TensorFlow backend. Set "
            "KERAS_BACKEND=tensorflow before Keras is first imported. "
            f"Received: {name!r}, from {source}."
        )


def _has_keras() -> bool:
    try:
        return importlib.util.find_spec("keras") is not None
    # An import hook may already raise here.
    except ImportError:
        return False


def is_command() -> bool:
    """Checks whether this process is the command line."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    if program.removesuffix(".exe") == _COMMAND:
        return True
    # While a package is imported for `python -m`, `argv[0]` is "-m".
    words = sys.orig_argv
    return program == "-m" and _find_module(words) == "keras_distil"


def _find_module(words: list[str]) -> str | None:
    for word, following in zip(words, words[1:], strict=False):
        if word == "-m":
            return following.split(".")[0]
    return None


def _find_backend() -> tuple[str, str]:
    """Returns the name of the backend, and what chose it."""
    backend = getattr(sys.modules.get("keras"), "backend", None)
    if backend is not None:
        return backend.backend(), "the Keras that is already imported"
    # As in keras/src/backend/config.py.
    name = os.environ.get("KERAS_BACKEND")
    if name:
        return name, "the variable KERAS_BACKEND"
    path = _settings_file()
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        settings = {}
    if isinstance(settings, dict) and "backend" in settings:
        return settings["backend"], str(path)
    return "tensorflow", "Keras's default"


def _settings_file() -> Path:
    folder = os.environ.get("KERAS_HOME")
    if folder is None:
        home = os.path.expanduser("~")
        folder = os.path.join(
            home if os.access(home, os.W_OK) else "/tmp", ".keras"
        )
    return Path(os.path.expanduser(folder)) / "keras.json"
