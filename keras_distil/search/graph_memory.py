"""Lets the memory of finished trials go."""

import contextlib
import gc
from collections.abc import Iterator

from tensorflow.python.framework import ops

# How TensorFlow calls the gradients of `tf.custom_gradient`.
_PREFIX = "CustomGradient-"


@contextlib.contextmanager
def trial_forgotten() -> Iterator[None]:
    """Frees what TensorFlow keeps of the graphs that are made inside.

    TensorFlow 2.21 registers the gradient of every `tf.custom_gradient` in a
    graph by a name, for good; it holds the graph, and the graph its variables.
    Keras and keras_distil have such gradients in every training step: without
    this, the student and its optimizer's moments stay in memory for each
    trial. Gradients through these graphs cannot be taken afterwards.
    """
    registered = ops.gradient_registry._registry
    before = set(registered)
    try:
        yield
    finally:
        for name in set(registered) - before:
            if name.startswith(_PREFIX):
                del registered[name]
        # Models are cycles of references.
        gc.collect()
