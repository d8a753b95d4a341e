"""Distil large transformer encoders into small, fast ones, in Keras.

Everything is loaded when first used: importing `keras_distil.config` imports
neither TensorFlow nor Keras. Keras must run on TensorFlow, which is checked at
once.
"""

import importlib
from typing import Any

from keras_distil.utils.backend import check_backend, is_command
from keras_distil.utils.saved_classes import register_with_keras
from keras_distil.utils.version import __version__

# The command line checks it too, and prints one line in place of a traceback.
if not is_command():
    check_backend()
    register_with_keras()

_MODULES = (
    "callbacks",
    "config",
    "data",
    "evaluation",
    "export",
    "losses",
    "models",
    "schedules",
    "search",
    "teachers",
)

__all__ = ["Distiller", "__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name == "Distiller":
        return importlib.import_module(
            "keras_distil.training.distiller"
        ).Distiller
    if name in _MODULES:
        return importlib.import_module(f"keras_distil.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
