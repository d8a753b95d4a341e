"""The forward pass of encoders in few, large operations.

KerasHub's layers hold the weights and define the computation. This module
computes the same from the same variables, but without padding, with the three
projections of attention in one matrix product, and without `einsum`, whose
gradient transposes every operand.
"""

import math
from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf
from keras_hub.models import Backbone

from keras_distil.losses.layers import EMBEDDINGS, LAST, Attention, Layer
from keras_distil.models import compact_ops, encoder_weights
from keras_distil.models.encoder_weights import Embeddings, TransformerLayer
from keras_distil.models.supported import unknown_to_pass

Tensor = Any

# Added to the scores of padding; its `exp` is 0 in every precision.
_NEVER = -1e9


def is_supported(backbone: Backbone) -> bool:
    """Whether `hidden_states` can replace the encoder's own pass."""
    return unknown_to_pass(backbone) is None


def sequence_output(
    backbone: Backbone, features: dict[str, Tensor], *, training: bool
) -> Tensor:
    """Returns the last hidden states; see `hidden_states`."""
    return hidden_states(backbone, features, (), training=training)[LAST]


def hidden_states(
    backbone: Backbone,
    features: dict[str, Tensor],
    layers: Collection[Layer | Attention],
    *,
    training: bool,
) -> dict[Layer | Attention, Tensor]:
    """Returns hidden states, equal to those of the encoder itself.

    Args:
        backbone: an encoder that `is_supported`.
        features: "token_ids", "padding_mask" and, if the encoder has token
            types, "segment_ids", int32, (batch, length).
        layers: layers to return besides the last: numbers from 0, and
            "embeddings" for the input of the first layer; `Attention` for the
            queries, keys and values of a layer.
        training: whether dropout is active.

    Returns:
        States by layer, the last as "last": float in the compute precision,
        (batch, length, width), and (batch, length, 3, heads, size) of
        attention. Values at padding are meaningless.
    """
    packing = _Packing(features["padding_mask"])
    embeddings = encoder_weights.read_embeddings(backbone)
    states = packing.pack(_embedded(embeddings, features))
    states = _normalized(embeddings.norm, states)
    states = embeddings.dropout(states, training=training)
    packed: dict[Layer, Tensor] = {EMBEDDINGS: states}
    found: dict[Layer | Attention, Tensor] = {}
    vectors = None
    for index, layer in enumerate(encoder_weights.read_layers(backbone)):
        vectors = _attention_vectors(layer, states, packing)
        states = _transformer_layer(layer, states, vectors, packing, training)
        packed[index] = states
        found[Attention(index)] = vectors
    packed[LAST], found[Attention(LAST)] = states, vectors
    wanted = {LAST, *layers}
    return {
        **{name: found[name] for name in found if name in wanted},
        **{
            name: packing.unpack(packed[name])
            for name in packed
            if name in wanted
        },
    }


class _Packing:
    """Packs real tokens into the rows of a matrix, and back."""

    def __init__(self, padding_mask: Tensor) -> None:
        real = padding_mask > 0
        self.shape = tf.shape(padding_mask)
        flat = tf.reshape(real, [-1])
        # The very first token is always kept, so there is at least one row.
        flat |= tf.range(tf.size(flat)) == 0
        self._kept = tf.cast(tf.where(flat)[:, 0], tf.int32)
        self._places = tf.where(
            flat, tf.cumsum(tf.cast(flat, tf.int32)) - 1, -1
        )
        self.score_bias = tf.where(real, 0.0, _NEVER)[:, None, None, :]

    def pack(self, values: Tensor) -> Tensor:
        """Converts (batch, length, width) to (tokens, width)."""
        rows = tf.reshape(values, [-1, values.shape[-1]])
        return compact_ops.pack_rows(rows, self._kept, self._places)

    def unpack(self, rows: Tensor) -> Tensor:
        """Converts (tokens, width) to (batch, length, width)."""
        flat = compact_ops.unpack_rows(rows, self._kept, self._places)
        return tf.reshape(flat, [self.shape[0], self.shape[1], rows.shape[-1]])


def _embedded(embeddings: Embeddings, features: dict[str, Tensor]) -> Tensor:
    tokens = embeddings.tokens(features["token_ids"])
    states = tokens + embeddings.positions(tokens)
    if embeddings.segments is None:
        return states
    return states + embeddings.segments(features["segment_ids"])


def _transformer_layer(
    layer: TransformerLayer,
    states: Tensor,
    vectors: Tensor,
    packing: _Packing,
    training: bool,
) -> Tensor:
    attended = _attention(layer, vectors, packing, training)
    attended = layer.attention_dropout(attended, training=training)
    states = _normalized(layer.attention_norm, attended + states)
    inner, outer = layer.inner, layer.outer
    hidden = _activated(
        inner.activation, _dense(states, inner.kernel, inner.bias)
    )
    hidden = _dense(hidden, outer.kernel, outer.bias)
    hidden = layer.feedforward_dropout(hidden, training=training)
    return _normalized(layer.norm, hidden + states)


def _attention_vectors(
    layer: TransformerLayer, states: Tensor, packing: _Packing
) -> Tensor:
    """Queries, keys and values, (batch, length, 3, heads, size)."""
    width, heads, size = layer.projection_shape
    parts = (layer.query, layer.key, layer.value)
    kernel = tf.concat(
        [tf.reshape(part.kernel, [width, heads * size]) for part in parts], 1
    )
    bias = tf.concat([tf.reshape(part.bias, [-1]) for part in parts], 0)
    projected = packing.unpack(_dense(states, kernel, bias))
    batch, length = packing.shape[0], packing.shape[1]
    return tf.reshape(projected, [batch, length, 3, heads, size])


def _attention(
    layer: TransformerLayer,
    vectors: Tensor,
    packing: _Packing,
    training: bool,
) -> Tensor:
    width, heads, size = layer.projection_shape
    batch, length = packing.shape[0], packing.shape[1]
    # Each (batch, heads, length, size).
    query, key, value = tf.unstack(tf.transpose(vectors, [2, 0, 3, 1, 4]))
    query *= tf.cast(1.0 / math.sqrt(size), query.dtype)
    scores = tf.matmul(query, key, transpose_b=True)
    weights = tf.nn.softmax(scores + tf.cast(packing.score_bias, scores.dtype))
    weights = layer.drop_weights(weights, training=training)
    context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
    context = tf.reshape(context, [batch, length, heads * size])
    output = layer.attention_output
    return _dense(
        packing.pack(context),
        tf.reshape(output.kernel, [heads * size, width]),
        output.bias,
    )


def _dense(rows: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    product = tf.matmul(rows, tf.cast(kernel, rows.dtype))
    return tf.nn.bias_add(product, tf.cast(bias, rows.dtype))


def _activated(activation: Any, values: Tensor) -> Tensor:
    if activation is keras.activations.gelu:
        return compact_ops.gelu(values)
    return activation(values)


def _normalized(layer: keras.layers.LayerNormalization, rows: Tensor) -> Tensor:
    return compact_ops.layer_norm(
        rows,
        tf.cast(layer.gamma, tf.float32),
        tf.cast(layer.beta, tf.float32),
        layer.epsilon,
    )
