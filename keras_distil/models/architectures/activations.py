"""Activations by the names that Hugging Face's configurations give them."""

from collections.abc import Callable, Mapping
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_distil")
def gelu_tanh(x: Any) -> Any:
    """The tanh approximation of GELU.

    Args:
        x: float tensor of any shape.

    Returns:
        A tensor of the same shape.

    Reference:
        Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
    """
    return keras.activations.gelu(x, approximate=True)


# Several names of one function differ in how it was written down, by no more
# than its rounding.
ACTIVATIONS: Mapping[str, Callable] = {
    "gelu": keras.activations.gelu,
    "gelu_python": keras.activations.gelu,
    "gelu_new": gelu_tanh,
    "gelu_fast": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": keras.activations.relu,
    "relu6": keras.activations.relu6,
    "silu": keras.activations.silu,
    "swish": keras.activations.silu,
    "mish": keras.activations.mish,
    "sigmoid": keras.activations.sigmoid,
    "tanh": keras.activations.tanh,
    "linear": keras.activations.linear,
}
DEFAULT = "gelu"
