"""Size of models."""

import math

import keras


def parameter_count(model: keras.Model) -> int:
    """Returns the number of weights, counting shared ones once.

    Args:
        model: a built Keras model.

    Example:
        >>> import keras
        >>> parameter_count(keras.Sequential([keras.Input((3,)),
        ...                                   keras.layers.Dense(2)]))
        8
    """
    unique = {id(variable): variable for variable in model.weights}
    return sum(math.prod(variable.shape) for variable in unique.values())


def size_mb(model: keras.Model) -> float:
    """Returns the size of the weights in float32, in megabytes (1e6 bytes).

    Args:
        model: a built Keras model.
    """
    return 4 * parameter_count(model) / 1e6
