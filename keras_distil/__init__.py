"""Distil large transformer encoders into small, fast ones, in Keras.

Everything is loaded when first used: importing `keras_distil.config` imports
neither TensorFlow nor Keras.
"""

import importlib
from typing import Any

from keras_distil._version import __version__

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
        return importlib.import_module("keras_distil.distiller").Distiller
    if name in _MODULES:
        return importlib.import_module(f"keras_distil.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
