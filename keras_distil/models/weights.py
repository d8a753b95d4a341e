"""Building models from a seed, and filling their variables with arrays."""

import contextlib
import random
from collections.abc import Iterator

import keras
import numpy as np


@contextlib.contextmanager
def seeded_build(seed: int) -> Iterator[None]:
    """Makes the models built inside depend on `seed` alone.

    Keras draws the default seed of every initializer and dropout layer from
    Python's global generator, which is put back as it was on leaving.

    Args:
        seed: int.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def variables_by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the weights of `model` by path, as `checkpoints` names them."""
    return {variable.path: variable for variable in model.weights}


def assign(variable: keras.Variable, value: object) -> None:
    """Assigns an array or another variable, whatever its float type."""
    # Through float32: NumPy's bfloat16 is not accepted everywhere.
    array = keras.ops.convert_to_numpy(value).astype("float32")
    variable.assign(np.ascontiguousarray(array))


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Copies the weights of a layer to another of the same class."""
    for old, new in zip(source.weights, target.weights, strict=True):
        assign(new, old)
