"""The layers of an encoder and of its masked-LM head, by what they do.

KerasHub keeps the parts of its layers in private attributes. Only this module
reads them; the forward pass, adapters, students and exports ask it.
"""

import dataclasses
from typing import Any

import keras
import keras_hub
from keras_hub.models import Backbone, MaskedLM


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What turns token ids into the input of the first layer.

    Attributes:
        tokens: token embedding, (vocabulary, width).
        positions: position embedding, (positions, width).
        segments: token-type embedding, (types, width); None if the encoder
            has no token types.
        add: layer that adds them; None if none of its own does.
        joined: layer that holds both tokens and positions; None if they are
            separate layers.
        norm: normalisation of the sum.
        dropout: dropout after it.
    """

    tokens: keras.layers.Layer
    positions: keras.layers.Layer
    segments: keras.layers.Layer | None
    add: keras.layers.Layer | None
    joined: keras.layers.Layer | None
    norm: keras.layers.LayerNormalization
    dropout: keras.layers.Dropout

    @property
    def called(self) -> list[keras.layers.Layer]:
        """The layers that the encoder's graph calls, in order."""
        parts = [self.tokens, self.positions, self.segments, self.add]
        if self.joined is not None:
            parts = [self.joined]
        parts += [self.norm, self.dropout]
        return [part for part in parts if part is not None]


@dataclasses.dataclass(frozen=True)
class TransformerLayer:
    """The parts of one transformer layer.

    Attributes:
        layer: the layer itself.
        attention: attention with its projections.
        query: projection to queries; kernel (width, heads, size).
        key: projection to keys.
        value: projection to values.
        attention_output: projection of the context; kernel (heads, size,
            width).
        attention_dropout: dropout after it.
        attention_norm: normalisation after attention.
        inner: first product of the feed-forward part, with its activation.
        outer: second product, back to the model's width.
        feedforward_dropout: dropout after it.
        norm: normalisation after the feed-forward part.
    """

    layer: keras_hub.layers.TransformerEncoder
    attention: keras.layers.MultiHeadAttention
    query: keras.layers.EinsumDense
    key: keras.layers.EinsumDense
    value: keras.layers.EinsumDense
    attention_output: keras.layers.EinsumDense
    attention_dropout: keras.layers.Dropout
    attention_norm: keras.layers.LayerNormalization
    inner: keras.layers.Dense
    outer: keras.layers.Dense
    feedforward_dropout: keras.layers.Dropout
    norm: keras.layers.LayerNormalization

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.layer.name

    @property
    def projection_shape(self) -> tuple[int, int, int]:
        """Width, number of heads, and size of a head."""
        width, heads, size = self.query.kernel.shape
        return width, heads, size

    @property
    def attention_shape(self) -> tuple[int, int] | None:
        """Number of heads and size of a head; None without the usual form.

        In that form, the layer's input itself is projected, and queries, keys
        and values are of one size.
        """
        size = self.attention.key_dim
        if self.layer.normalize_first or self.attention.value_dim != size:
            return None
        return self.attention.num_heads, size

    def drop_weights(self, weights: Any, *, training: bool) -> Any:
        """Applies the dropout of attention weights."""
        if self.attention._dropout > 0:
            return self.attention._dropout_layer(weights, training=training)
        return weights


@dataclasses.dataclass(frozen=True)
class MaskedLMHead:
    """The parts of a masked-LM head.

    Attributes:
        layer: the head itself.
        dense: product before the decoder, with its activation.
        norm: normalisation after it.
        embedding: token embedding, which the decoder shares.
        bias: bias of the logits, (vocabulary,).
    """

    layer: keras.layers.Layer
    dense: keras.layers.Dense
    norm: keras.layers.LayerNormalization
    embedding: keras.layers.Layer
    bias: keras.Variable


def read_embeddings(backbone: Backbone) -> Embeddings:
    """Returns the embeddings of an encoder.

    Args:
        backbone: a KerasHub encoder whose tokens and positions are embedded
            by separate layers or by one `TokenAndPositionEmbedding`.
    """
    joined = getattr(backbone, "embeddings", None)
    held_by = backbone if joined is None else joined
    return Embeddings(
        held_by.token_embedding,
        held_by.position_embedding,
        getattr(backbone, "segment_embedding", None),
        getattr(backbone, "embeddings_add", None),
        joined,
        backbone.embeddings_layer_norm,
        backbone.embeddings_dropout,
    )


def read_layers(backbone: Backbone) -> list[TransformerLayer]:
    """Returns the transformer layers of an encoder, in order."""
    return [read_layer(layer) for layer in backbone.transformer_layers]


def read_layer(layer: keras_hub.layers.TransformerEncoder) -> TransformerLayer:
    """Returns the parts of one transformer layer."""
    attention = layer._self_attention_layer
    return TransformerLayer(
        layer,
        attention,
        attention._query_dense,
        attention._key_dense,
        attention._value_dense,
        attention._output_dense,
        layer._self_attention_dropout,
        layer._self_attention_layer_norm,
        layer._feedforward_intermediate_dense,
        layer._feedforward_output_dense,
        layer._feedforward_dropout,
        layer._feedforward_layer_norm,
    )


def read_masked_lm_head(model: MaskedLM) -> MaskedLMHead:
    """Returns the parts of a model's masked-LM head."""
    head = model.masked_lm_head
    return MaskedLMHead(
        head,
        head._intermediate_dense,
        head._intermediate_layer_norm,
        head.token_embedding,
        head._bias,
    )


def set_activation(
    layer: keras_hub.layers.TransformerEncoder, activation: Any
) -> None:
    """Gives a layer's feed-forward part an activation, after it was built.

    A functional model calls its layers every time it runs, so this is enough.
    """
    layer.activation = activation
    layer._feedforward_intermediate_dense.activation = activation


def set_epsilon(
    layer: keras_hub.layers.TransformerEncoder, epsilon: float
) -> None:
    """Gives a layer's normalisations an epsilon, after it was built."""
    layer.layer_norm_epsilon = epsilon
    layer._self_attention_layer_norm.epsilon = epsilon
    layer._feedforward_layer_norm.epsilon = epsilon


def set_head(
    model: MaskedLM, *, epsilon: float, activation: Any = None
) -> None:
    """Gives a masked-LM head an epsilon, and an activation if not None."""
    head = model.masked_lm_head
    head.layer_norm_epsilon = epsilon
    head._intermediate_layer_norm.epsilon = epsilon
    if activation is not None:
        head.intermediate_activation = activation
        head._intermediate_dense.activation = activation
