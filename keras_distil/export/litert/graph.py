"""A student's forward pass in the operators that LiteRT runs fastest.

It equals the encoder's own pass, including padding. Every projection is a
product of two matrices, the mask is added, and token ids are looked up as a
flat list, so that the embedding table and the decoder of a masked-LM, which
share their weights, are stored once. If batch size and length are fixed, no
shape is dynamic.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.export import plain_weights
from keras_distil.export.plain_weights import (
    Layer,
    Linear,
    Norm,
    Tensor,
    Weights,
)
from keras_distil.export.student import MASKED_LM, SENTENCE_EMBEDDING, Student
from keras_distil.models import encoder_weights, forward
from keras_distil.models.embedding_model import vectors_of

# A callback that receives the name and the inputs of a product.
Watch = Callable[[str, Tensor], None]

# Added to the scores of padding. Its `exp` is 0 in float32, and it is finite
# in float16 as well.
MASKED_SCORE = -1e4


# Name scopes of operators.
HEAD = "student_head"
DECODER = "decoder"

# Products of a layer that have separate inputs.
PROJECTIONS = "projections"
ATTENTION = "attention"
INNER = "inner"
OUTER = "outer"


def outputs(
    student: Student,
    inputs: Mapping[str, Tensor],
    masked_score: float = MASKED_SCORE,
    weights: Weights | None = None,
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """Computes the outputs of `Student.outputs`.

    Args:
        student: the model to export.
        inputs: tensors by `Student.input_names`, int32, (batch, length).
        masked_score: number added to the attention scores of padding.
        weights: weights to compute with. Defaults to the student's.
        watch: called with "LAYER/PRODUCT" or "decoder" and the inputs of that
            product, (batch * length, width).

    Returns:
        Outputs by name, float32.
    """
    weights = weights or plain_weights.weights_of(student)
    encoder = _Encoder(student, weights, masked_score, watch)
    rows = encoder.layers(inputs)[-1][1]
    # The quantiser finds the small layers of the head by this name.
    with tf.name_scope(HEAD):
        if student.kind == MASKED_LM:
            return _masked_lm_outputs(encoder, rows, inputs)
        shape = _shape(inputs["token_ids"])
        states = tf.reshape(rows, [*shape, rows.shape[-1]])
        if student.kind == SENTENCE_EMBEDDING:
            mask = inputs["padding_mask"]
            return {"embedding": vectors_of(student.model, states, mask)}
        found = forward.task_outputs(student.model, states, training=False)
        return student.named_outputs(found)


def layers(
    student: Student,
    inputs: Mapping[str, Tensor],
    masked_score: float = MASKED_SCORE,
    weights: Weights | None = None,
) -> dict[str, Tensor]:
    """Hidden states by layer, as `Student.layers` names them."""
    shape = _shape(inputs["token_ids"])
    weights = weights or plain_weights.weights_of(student)
    encoder = _Encoder(student, weights, masked_score)
    return {
        name: tf.reshape(rows, [*shape, rows.shape[-1]])
        for name, rows in encoder.layers(inputs)
    }


class _Encoder:
    """The encoder's pass with one set of weights."""

    def __init__(
        self,
        student: Student,
        weights: Weights,
        masked_score: float,
        watch: Watch | None = None,
    ) -> None:
        self.student = student
        self.weights = weights
        self._masked_score = masked_score
        self.watch = watch or (lambda name, rows: None)

    def layers(self, inputs: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """Hidden states by layer, (batch * length, width) each."""
        shape = _shape(inputs["token_ids"])
        mask = inputs["padding_mask"]
        rows = _Normalized(
            self.weights.embeddings_norm, self._embeddings(inputs, shape)
        )
        padding = 1.0 - tf.cast(mask, tf.float32)
        score_bias = self._masked_score * padding[:, None, None, :]
        found = [("embeddings", rows.all())]
        for layer in self.weights.layers:
            rows = self._layer(layer, rows, score_bias, mask)
            found.append((layer.name, rows.all()))
        return found

    def _embeddings(
        self, inputs: Mapping[str, Tensor], shape: tuple[Any, Any]
    ) -> Tensor:
        batch, length = shape
        embeddings = encoder_weights.read_embeddings(
            self.student.model.backbone
        )
        flat = tf.reshape(inputs["token_ids"], [-1])
        tokens = tf.gather(self.weights.table, flat)
        if embeddings.segments is not None:
            segments = tf.reshape(inputs["segment_ids"], [-1])
            # There are only two segments, so a sum replaces the lookup.
            first, second = tf.unstack(embeddings.segments.embeddings.value[:2])
            share = tf.cast(segments, tf.float32)[:, None]
            tokens += first + share * (second - first)
        positions = embeddings.positions.position_embeddings.value
        # Without `identity`, the slice would be one of the variable's handle.
        added = tf.identity(positions)[:length]
        width = tokens.shape[-1]
        tokens = tf.reshape(tokens, [batch, length, width]) + added
        return tf.reshape(tokens, [-1, width])

    def _layer(
        self,
        layer: Layer,
        rows: "_Normalized",
        score_bias: Tensor,
        mask: Tensor,
    ) -> "_Normalized":
        before, between, within = layer.divisors or (None, None, None)
        context = self._context(layer, rows.all(before), score_bias, mask)
        self.watch(f"{layer.name}/{ATTENTION}", context)
        attended = _product(context, layer.attention)
        rows = _Normalized(layer.attention_norm, attended + rows.all())
        read = rows.all(between)
        self.watch(f"{layer.name}/{INNER}", read)
        hidden = _activated(layer.activation, _product(read, layer.inner))
        if within is not None:
            # The converter would fold a constant factor back into the weights
            # that follow, so it is multiplied by ones that depend on an input.
            ones = tf.cast(tf.reshape(mask, [-1, 1]) >= 0, tf.float32)
            hidden = hidden * (ones * (1.0 / within))
        self.watch(f"{layer.name}/{OUTER}", hidden)
        hidden = _product(hidden, layer.outer)
        return _Normalized(layer.norm, hidden + rows.all())

    def _context(
        self, layer: Layer, rows: Tensor, score_bias: Tensor, mask: Tensor
    ) -> Tensor:
        self.watch(f"{layer.name}/{PROJECTIONS}", rows)
        batch, length = _shape(mask)

        def project(linear: Linear) -> Tensor:
            found = _product(rows, linear)
            size = found.shape[-1] // layer.heads
            split = tf.reshape(found, [batch, length, layer.heads, size])
            return tf.transpose(split, [0, 2, 1, 3])

        query, key = project(layer.query), project(layer.key)
        value = project(layer.value)
        scores = tf.matmul(query, key, transpose_b=True) + score_bias
        context = tf.matmul(tf.nn.softmax(scores), value)
        context = tf.transpose(context, [0, 2, 1, 3])
        return tf.reshape(context, [-1, rows.shape[-1]])


class _Normalized(NamedTuple):
    """Rows to normalise, for products with different divisors."""

    norm: Norm
    rows: Tensor

    def all(self, divisor: Tensor | None = None) -> Tensor:
        """Returns the normalised rows, with each column divided by a number."""
        norm, rows = self
        centred = rows - tf.reduce_mean(rows, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        gamma, beta = norm.gamma, norm.beta
        if divisor is not None:
            gamma, beta = gamma / divisor, beta / divisor
        # In this order, because the converter would fold a separate scale into
        # the weights that follow, and the decoder would need a copy of the
        # embedding table.
        scale = tf.math.rsqrt(variance + norm.epsilon) * gamma
        return centred * scale + beta


def _masked_lm_outputs(
    encoder: _Encoder, rows: Tensor, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    head = encoder_weights.read_masked_lm_head(encoder.student.model)
    linear = plain_weights.linear_of(head.dense)
    features = _activated(head.dense.activation, _product(rows, linear))
    features = _Normalized(plain_weights.norm_of(head.norm), features).all()
    encoder.watch(DECODER, features)
    weights = encoder.weights
    # A separate scope, since the large product does not stay in float32.
    with tf.name_scope(DECODER):
        logits = tf.matmul(features, weights.table, transpose_b=True)
        logits = logits + weights.decoder_bias
    shape = [*_shape(inputs["token_ids"]), logits.shape[-1]]
    return {"logits": tf.reshape(logits, shape)}


def _shape(token_ids: Tensor) -> tuple[Any, Any]:
    batch, length = token_ids.shape
    dynamic = tf.shape(token_ids)
    return (
        dynamic[0] if batch is None else batch,
        dynamic[1] if length is None else length,
    )


def _activated(activation: Any, rows: Tensor) -> Tensor:
    if activation is keras.activations.gelu:
        # LiteRT has an operator for the exact GELU.
        return tf.nn.gelu(rows, approximate=False)
    return activation(rows)


def _product(rows: Tensor, linear: Linear) -> Tensor:
    kernel = tf.reshape(linear.kernel, [rows.shape[-1], -1])
    bias = tf.reshape(linear.bias, [-1])
    if linear.scale != 1.0:
        kernel, bias = linear.scale * kernel, linear.scale * bias
    return tf.nn.bias_add(tf.matmul(rows, kernel), bias)
