"""Checks of the arguments of `fit`, `evaluate` and `predict`."""

from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss
from keras_distil.training.metrics import find_metric


def check_steps(argument: str, steps: int | None, dataset: Any) -> None:
    """Raises ValueError for an endless dataset without a number of steps.

    Args:
        argument: name of the argument with the number of steps.
        steps: its value.
        dataset: the data; anything but a `tf.data.Dataset` passes.
    """
    if steps is not None or not isinstance(dataset, tf.data.Dataset):
        return
    if int(dataset.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            f"`{argument}` is needed with an endless dataset. "
            f"Received: {argument}=None."
        )


def set_modes(
    callbacks: Any,
    own_names: Collection[str],
    losses: Collection[DistillationLoss],
) -> None:
    """Sets the mode of callbacks with mode "auto".

    Keras determines it only from the metrics of `compile`, after an epoch,
    and raises an error for other metrics.

    Args:
        callbacks: as for `fit`.
        own_names: names of values that the Distiller logs.
        losses: the Distiller's losses.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    for callback in keras.tree.flatten(callbacks) if callbacks else []:
        if getattr(callback, "mode", None) != "auto":
            continue
        name = str(getattr(callback, "monitor", "")).removeprefix("val_")
        better = find_metric(name, losses).better
        if name in own_names and better is not None:
            callback.mode = "min" if better == "down" else "max"


def check_class_weight(
    class_weight: Any, kind: str, *, resumable: bool, distributed: bool
) -> None:
    """Raises ValueError unless `class_weight` can have its usual effect.

    Args:
        class_weight: as for `keras.Model.fit`.
        kind: kind of the task.
        resumable: whether a `TrainingState` is among the callbacks.
        distributed: whether replicas read shares of the dataset.
    """
    if class_weight is None:
        return
    task = kind.replace("_", " ")
    if kind != "classification":
        raise ValueError(
            "`class_weight` weighs the examples of a classification. "
            f"Received: class_weight={class_weight!r} for {task}. Give "
            "weights as the third part of a batch."
        )
    for name, has in (
        ("with a `TrainingState`", resumable),
        ("with a keras_distil dataset under several replicas", distributed),
    ):
        if has:
            raise ValueError(
                f"`class_weight` cannot be used {name}. Give weights as the "
                "third part of a batch. "
                f"Received: class_weight={class_weight!r}."
            )
