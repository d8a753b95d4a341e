"""Distillation losses, the paper's triple loss and those of tasks.

Classes are loaded when first used, so that `registry`, with the settings of
losses in recipes, does not need TensorFlow.
"""

import importlib

from keras_distil.losses.registry import ROWS
from keras_distil.losses.registry import TASK_KINDS as TASK_KINDS
from keras_distil.losses.registry import make_losses as make_losses

_HOMES = {
    "AttentionLoss": "base",
    "DistillationLoss": "base",
    "HiddenStateLoss": "base",
    "LogitsLoss": "base",
    "VectorLoss": "vectors",
    "task_loss": "combinations",
    "triple_loss": "combinations",
    **{row.class_name: row.module for row in ROWS},
}

__all__ = sorted([*_HOMES, "TASK_KINDS", "make_losses"])


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # All are imported, because Keras finds only imported classes when it
    # loads a model.
    modules = {
        home: importlib.import_module(f"{__name__}.{home}")
        for home in _HOMES.values()
    }
    return getattr(modules[_HOMES[name]], name)


def __dir__() -> list[str]:
    return __all__
