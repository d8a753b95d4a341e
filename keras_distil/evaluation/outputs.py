"""A task model as a function from NumPy arrays to NumPy arrays."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf
from keras_hub.models import Task

from keras_distil.models import forward, heads

Inputs: TypeAlias = dict[str, np.ndarray]
OutputFunction: TypeAlias = Callable[[Inputs], np.ndarray]

_NAMES = ("token_ids", "padding_mask", "segment_ids")


def output_function(model: Task | OutputFunction) -> OutputFunction:
    """Returns a function that computes a model's outputs.

    Args:
        model: a model from `models.task_model`, or already such a function,
            for example of an exported model.

    Returns:
        A function from "token_ids", "padding_mask" and "segment_ids", int32,
        (batch, length), to the outputs, float32; see `forward.encode_task`.
        It is traced once for all shapes.

    Raises:
        ValueError: if the model's outputs are neither logits nor a softmax.
    """
    if not isinstance(model, Task):
        return model
    heads.check_task_head(model, "model")
    matrix = tf.TensorSpec([None, None], tf.int32)

    @tf.function(
        autograph=False, input_signature=[dict.fromkeys(_NAMES, matrix)]
    )
    def run(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return forward.encode_task(model, inputs, training=False)[1]

    return lambda inputs: run(
        tf.nest.map_structure(tf.constant, inputs)
    ).numpy()
