"""A student's weights in the form that plain graphs multiply by."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_distil.export.student import MASKED_LM, Student
from keras_distil.models import encoder_weights, forward
from keras_distil.models.encoder_weights import TransformerLayer

# A variable, an array or a tensor.
Tensor = Any


@dataclasses.dataclass(frozen=True)
class Linear:
    """A matrix product and a bias.

    Attributes:
        kernel: a tensor that flattens to (inputs, outputs).
        bias: a tensor that flattens to (outputs,).
        scale: float, a factor of both.
    """

    kernel: Tensor
    bias: Tensor
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Norm:
    """A layer normalisation.

    Attributes:
        gamma: (width,).
        beta: (width,).
        epsilon: float.
    """

    gamma: Tensor
    beta: Tensor
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Layer:
    """A transformer layer.

    Attributes:
        name: name of the layer.
        heads: int, number of attention heads.
        query: projection to queries, scaled by one over the square root of
            the head size.
        key: projection to keys.
        value: projection to values.
        attention: projection of the context.
        attention_norm: normalisation after attention.
        inner: first product of the feed-forward part, to the inner width.
        outer: second product, back to the model's width.
        norm: normalisation after the feed-forward part.
        activation: activation between the two products.
        divisors: divisors of the inputs of the products: of query, key and
            value, (width,); of `inner`, (width,); of `outer`, (inner width,).
            None for no division.
    """

    name: str
    heads: int
    query: Linear
    key: Linear
    value: Linear
    attention: Linear
    attention_norm: Norm
    inner: Linear
    outer: Linear
    norm: Norm
    activation: Any
    divisors: tuple[Tensor, Tensor, Tensor] | None = None


@dataclasses.dataclass(frozen=True)
class Weights:
    """All weights that a plain graph reads.

    Attributes:
        table: (vocabulary, width), the embedding table, which a masked-LM's
            decoder shares.
        decoder_bias: (vocabulary,); None without a decoder.
        embeddings_norm: normalisation after the embeddings.
        layers: the layers in order.
    """

    table: Tensor
    decoder_bias: Tensor | None
    embeddings_norm: Norm
    layers: tuple[Layer, ...]


def weights_of(student: Student) -> Weights:
    """Returns the student's variables, without copies."""
    backbone = student.model.backbone
    bias = None
    if student.kind == MASKED_LM:
        bias = forward.decoder_variables(student.model)[1].value
    embeddings = encoder_weights.read_embeddings(backbone)
    return Weights(
        embeddings.tokens.embeddings.value,
        bias,
        norm_of(embeddings.norm),
        tuple(map(_layer, encoder_weights.read_layers(backbone))),
    )


def norm_of(layer: keras.layers.LayerNormalization) -> Norm:
    """Returns the variables of a normalisation layer."""
    return Norm(layer.gamma.value, layer.beta.value, layer.epsilon)


def _layer(layer: TransformerLayer) -> Layer:
    _, heads, size = layer.projection_shape
    return Layer(
        layer.name,
        heads,
        linear_of(layer.query, 1.0 / math.sqrt(size)),
        linear_of(layer.key),
        linear_of(layer.value),
        linear_of(layer.attention_output),
        norm_of(layer.attention_norm),
        linear_of(layer.inner),
        linear_of(layer.outer),
        norm_of(layer.norm),
        layer.inner.activation,
    )


def linear_of(layer: keras.layers.Layer, scale: float = 1.0) -> Linear:
    """Returns the variables of a product."""
    return Linear(layer.kernel.value, layer.bias.value, scale)


def variables(weights: Weights) -> list[tf.Variable]:
    """Returns those of the weights that are variables."""
    return [leaf for leaf in _leaves(weights) if isinstance(leaf, tf.Variable)]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name))
    else:
        yield value
