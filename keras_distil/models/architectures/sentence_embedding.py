"""From the states of a text's tokens to its vector."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_distil.losses import functional
from keras_distil.utils.checks import check_count

Tensor = Any

POOLING_MODES = ("mean", "cls", "max")
# Of the dense layer, by name, as sentence-transformers' folders have them.
DENSE_ACTIVATIONS = {
    "linear": keras.activations.linear,
    "tanh": keras.activations.tanh,
}


def pool(states: Tensor, padding_mask: Tensor, pooling_mode: str) -> Tensor:
    """Returns one vector per text from the states of its tokens.

    Args:
        states: float, (batch, length, width). Values at padding do not matter.
        padding_mask: int, (batch, length), above 0 at tokens.
        pooling_mode: "mean" or "max" over the tokens, or "cls", the state of
            the first one.

    Returns:
        float32, (batch, width); 0 for a text without tokens.
    """
    states = ops.cast(states, "float32")
    real = ops.expand_dims(ops.cast(padding_mask, "bool"), axis=-1)
    if pooling_mode == "cls":
        return ops.where(real[:, 0], states[:, 0], 0.0)
    if pooling_mode == "max":
        largest = ops.max(ops.where(real, states, float("-inf")), axis=1)
        return ops.where(ops.any(real, axis=1), largest, 0.0)
    total = ops.sum(ops.where(real, states, 0.0), axis=1)
    count = ops.sum(ops.cast(real, "float32"), axis=1)
    return total / ops.maximum(count, 1.0)


@keras.saving.register_keras_serializable(package="keras_distil")
class SentenceEmbedding(keras.layers.Layer):
    """From the states of tokens to a text's vector, in float32.

    Formula:
        v = pool(states)
        v = activation(v @ kernel + bias)         # with a dimension
        v = v / |v|                               # with normalize

    Args:
        pooling_mode: "mean" or "max" over the tokens, or "cls", the first
            token's state.
        normalize: bool, whether vectors are scaled to length 1.
        dimension: int >= 1, size of the vectors by a dense layer; None for
            the encoder's width, without one.
        activation: "linear" or "tanh", of that layer.
        **kwargs: arguments of `keras.layers.Layer`.

    Call arguments:
        states: float, (batch, length, width).
        padding_mask: int, (batch, length), above 0 at tokens.

    Returns:
        float32, (batch, dimension or width).

    Raises:
        TypeError: if `dimension` is not an integer.
        ValueError: if it is below 1, or a name is unknown.

    Reference:
        Reimers and Gurevych 2019, arXiv:1908.10084, section 3. Differs: none.
    """

    def __init__(
        self,
        pooling_mode: str = "mean",
        normalize: bool = True,
        dimension: int | None = None,
        activation: str = "linear",
        **kwargs: Any,
    ) -> None:
        # Few numbers, whose rounding would be that of every similarity.
        super().__init__(autocast=False, **kwargs)
        if pooling_mode not in POOLING_MODES:
            raise ValueError(
                f"`pooling_mode` must be one of {list(POOLING_MODES)}. "
                f"Received: pooling_mode={pooling_mode!r:.60}."
            )
        if activation not in DENSE_ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {list(DENSE_ACTIVATIONS)}. "
                f"Received: activation={activation!r:.60}."
            )
        if dimension is not None:
            dimension = check_count("dimension", dimension)
        self.pooling_mode = pooling_mode
        self.normalize = bool(normalize)
        self.dimension = dimension
        self.activation = activation

    def build(self, states_shape: Sequence[int | None]) -> None:
        """Makes the weights of the dense layer, if there is one."""
        if self.dimension is None:
            return
        self.kernel = self.add_weight(
            name="kernel",
            shape=(states_shape[-1], self.dimension),
            initializer="glorot_uniform",
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(self.dimension,),
            initializer="zeros",
            autocast=False,
        )

    def call(self, states: Tensor, padding_mask: Tensor) -> Tensor:
        """Returns the vectors of texts; see the class."""
        vectors = pool(states, padding_mask, self.pooling_mode)
        if self.dimension is not None:
            product = ops.matmul(vectors, ops.cast(self.kernel, "float32"))
            product += ops.cast(self.bias, "float32")
            vectors = DENSE_ACTIVATIONS[self.activation](product)
        return functional.unit(vectors) if self.normalize else vectors

    def compute_output_spec(
        self, states: Any, padding_mask: Any
    ) -> keras.KerasTensor:
        """Returns the shape of the vectors, which are always float32."""
        width = self.dimension or states.shape[-1]
        return keras.KerasTensor((states.shape[0], width), "float32")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {
            **super().get_config(),
            "pooling_mode": self.pooling_mode,
            "normalize": self.normalize,
            "dimension": self.dimension,
            "activation": self.activation,
        }
