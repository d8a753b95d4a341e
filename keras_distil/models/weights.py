"""Building models from a seed, and filling their variables with arrays."""

import contextlib
import random
from collections.abc import Iterator
from typing import TypeVar

import keras
import numpy as np
from keras_hub.models import Task

AnyTask = TypeVar("AnyTask", bound=Task)


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


def with_dtype(
    model: AnyTask, dtype: str | keras.DTypePolicy | None
) -> AnyTask:
    """Builds a KerasHub task model anew under another dtype policy.

    A frozen teacher of a training in mixed precision is best held in the
    compute precision, `with_dtype(teacher, "bfloat16")`, once the student was
    made from it: half the memory, and no cast in every step.

    Args:
        model: a KerasHub task model; it stays as it is.
        dtype: Keras dtype policy, or None for Keras's global policy.

    Returns:
        A model of the same class, with its weights in that precision.
    """
    config = model.get_config()
    policy = keras.dtype_policies.get(dtype)
    config["backbone"]["config"]["dtype"] = keras.dtype_policies.serialize(
        policy
    )
    with seeded_build(0):
        converted = type(model).from_config(config)
    copy_weights(model, converted)
    return converted
