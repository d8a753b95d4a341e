"""Vectors of words from their characters."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_distil.data.characters import MAX_CHARACTERS, NUM_CHARACTERS
from keras_distil.models.elmo.projected_lstm import check_positive

Tensor = Any
Shape = tuple[int | None, ...]

# (width in characters, number of filters) of the released model.
FILTERS = (
    (1, 32),
    (2, 32),
    (3, 64),
    (4, 128),
    (5, 256),
    (6, 512),
    (7, 1024),
)


@keras.saving.register_keras_serializable(package="keras_distil")
class CharacterEncoder(keras.layers.Layer):
    """Encodes words from characters by convolutions, highways, a projection.

    Formula:
        x = concatenate(relu(max over positions(convolution_k(embedding))))
        x = g * x + (1 - g) * relu(x W + b), g = sigmoid(x V + c)  # highway
        word = x projection_kernel + projection_bias

    Args:
        character_dim: int >= 1, width of a character's embedding.
        filters: pairs of a width in characters and a number of filters.
        num_highways: int >= 0, highway layers.
        units: int >= 1, width of a word.
        **kwargs: see `keras.layers.Layer`.

    Call arguments:
        character_ids: int, (batch, words, 50); see `data.character_ids`.

    Returns:
        (batch, words, units).

    Raises:
        ValueError: if a size is not positive, or there is no filter, or one
            is wider than the 50 characters of a word.

    Reference:
        Kim et al. 2015, arXiv:1508.06615, sections 2.2 and 2.3.
        Differs: relu instead of tanh, and a projection, as in ELMo.
    """

    def __init__(
        self,
        character_dim: int = 16,
        filters: Sequence[Sequence[int]] = FILTERS,
        num_highways: int = 2,
        units: int = 512,
        **kwargs: Any,
    ) -> None:
        check_positive(character_dim=character_dim, units=units)
        _check_filters(filters)
        super().__init__(**kwargs)
        self.character_dim = character_dim
        self.filters = [list(pair) for pair in filters]
        self.num_highways = num_highways
        self.units = units
        self.width = sum(number for _, number in filters)
        self.embedding = keras.layers.Embedding(
            NUM_CHARACTERS,
            character_dim,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.convolutions = [
            keras.layers.Conv1D(
                number, width, dtype=self.dtype_policy, name=f"convolution_{k}"
            )
            for k, (width, number) in enumerate(filters)
        ]
        self.highways = [
            # First the transformed values, then the gates.
            keras.layers.Dense(
                2 * self.width,
                bias_initializer=_highway_bias,
                dtype=self.dtype_policy,
                name=f"highway_{k}",
            )
            for k in range(num_highways)
        ]
        self.projection = keras.layers.Dense(
            units, dtype=self.dtype_policy, name="projection"
        )

    def build(self, character_ids_shape: Shape) -> None:
        """Builds the weights, whose shapes follow from the arguments."""
        del character_ids_shape
        self.embedding.build((None, MAX_CHARACTERS))
        for convolution in self.convolutions:
            convolution.build((None, MAX_CHARACTERS, self.character_dim))
        for layer in [*self.highways, self.projection]:
            layer.build((None, self.width))

    def call(self, character_ids: Tensor) -> Tensor:
        """Returns one vector per word."""
        batch, words, _ = ops.shape(character_ids)
        x = ops.reshape(character_ids, (-1, MAX_CHARACTERS))
        x = self.embedding(x)
        # The relu of the maximum is the maximum of the relu, and cheaper.
        pooled = [ops.max(layer(x), axis=1) for layer in self.convolutions]
        x = ops.relu(ops.concatenate(pooled, axis=-1))
        for layer in self.highways:
            new, gate = ops.split(layer(x), 2, axis=-1)
            gate = ops.sigmoid(gate)
            x = gate * x + (1 - gate) * ops.relu(new)
        return ops.reshape(self.projection(x), (batch, words, self.units))

    def compute_output_shape(self, character_ids_shape: Shape) -> Shape:
        """Returns (batch, words, units)."""
        return (*character_ids_shape[:2], self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the layer."""
        return {
            **super().get_config(),
            "character_dim": self.character_dim,
            "filters": self.filters,
            "num_highways": self.num_highways,
            "units": self.units,
        }


def _highway_bias(shape: tuple[int], dtype: str | None = None) -> Tensor:
    """Opens the gates for the input at first, as in the authors' code."""
    half = shape[0] // 2
    return ops.concatenate([ops.zeros(half, dtype), ops.ones(half, dtype)])


def _check_filters(filters: Sequence[Sequence[int]]) -> None:
    widths = [width for width, number in filters if number > 0]
    if len(widths) < max(len(filters), 1) or not all(
        1 <= width <= MAX_CHARACTERS for width in widths
    ):
        raise ValueError(
            "`filters` must be pairs (width, number), with a width from 1 to "
            f"{MAX_CHARACTERS} and a positive number. "
            f"Received: filters={filters}."
        )
