"""Frees the memory of finished trials."""

import contextlib
import gc
from collections.abc import Iterator

from keras_distil.utils import private_api

# TensorFlow's name for the gradients of `tf.custom_gradient`.
_PREFIX = "CustomGradient-"


@contextlib.contextmanager
def forget_trial() -> Iterator[None]:
    """Frees what TensorFlow keeps of graphs created in this context.

    TensorFlow 2.21 permanently registers the gradient of every
    `tf.custom_gradient` in a graph by name; it holds the graph, and the graph
    holds its variables. Keras and keras_distil have such gradients in every
    training step, so without this the student and its optimizer's moments stay
    in memory after each trial. Gradients through these graphs cannot be
    computed later.
    """
    registered = private_api.gradient_registry()
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith(_PREFIX):
                del registered[name]
        # Models contain reference cycles.
        gc.collect()
