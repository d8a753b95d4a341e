"""A student's forward pass in the operators that LiteRT runs fastest.

The same as the encoder's own pass, padding included: every projection a
product of two matrices, a mask that is added, and token ids looked up as a
flat list, so that the table of embeddings and the decoder of a masked-LM,
which share their weights, can be stored once. With a batch and a length that
are numbers, no shape is dynamic.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras_hub.models import BertBackbone

from keras_distil.export.student import MASKED_LM, SENTENCE_EMBEDDING, Student
from keras_distil.models import forward

Tensor = Any

# Added to the scores of padding. `exp` of it is 0 in float32, and it is a
# number in float16, too.
MASKED_SCORE = -1e4


# Scopes of operators' names.
HEAD = "student_head"
DECODER = "decoder"


def outputs(
    student: Student,
    inputs: Mapping[str, Tensor],
    masked_score: float = MASKED_SCORE,
) -> dict[str, Tensor]:
    """The outputs of `Student.outputs`.

    Args:
        student: what is exported.
        inputs: of `Student.input_names`, int32, (batch, length).
        masked_score: what is added to the scores of padding.

    Returns:
        float32 outputs by name.
    """
    rows = _encode(student, inputs, masked_score)[-1][1]
    # The quantiser finds the small layers of the head by this name.
    with tf.name_scope(HEAD):
        if student.kind == MASKED_LM:
            return _masked_lm_outputs(student, rows, inputs)
        shape = _shape(inputs["token_ids"])
        states = tf.reshape(rows, [*shape, rows.shape[-1]])
        if student.kind == SENTENCE_EMBEDDING:
            mean = _mean(student, states, inputs["padding_mask"])
            return {"embedding": mean}
        found = forward.task_outputs(student.model, states, training=False)
        return student.named_outputs(found)


def _masked_lm_outputs(
    student: Student,
    rows: Tensor,
    inputs: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    head = student.model.masked_lm_head
    features = _activated(head._intermediate_dense, rows)
    features = _normalized(head._intermediate_layer_norm, features)
    table, bias = forward.decoder_variables(student.model)
    # Its name is its own: the large product is no part of what stays exact.
    with tf.name_scope(DECODER):
        logits = tf.matmul(features, table.value, transpose_b=True)
        logits = logits + bias.value
    shape = [*_shape(inputs["token_ids"]), logits.shape[-1]]
    return {"logits": tf.reshape(logits, shape)}


def layers(
    student: Student,
    inputs: Mapping[str, Tensor],
    masked_score: float = MASKED_SCORE,
) -> dict[str, Tensor]:
    """Hidden states by layer, as `Student.layers` names them."""
    shape = _shape(inputs["token_ids"])
    return {
        name: tf.reshape(rows, [*shape, rows.shape[-1]])
        for name, rows in _encode(student, inputs, masked_score)
    }


def _encode(
    student: Student, inputs: Mapping[str, Tensor], masked_score: float
) -> list[tuple[str, Tensor]]:
    """Hidden states by layer, (batch * length, width) each."""
    backbone = student.model.backbone
    shape = _shape(inputs["token_ids"])
    rows = _normalized(
        backbone.embeddings_layer_norm, _embeddings(backbone, inputs, shape)
    )
    padding = 1.0 - tf.cast(inputs["padding_mask"], tf.float32)
    score_bias = masked_score * padding[:, None, None, :]
    found = [("embeddings", rows)]
    for layer in backbone.transformer_layers:
        rows = _transformer_layer(layer, rows, score_bias, shape)
        found.append((layer.name, rows))
    return found


def _shape(token_ids: Tensor) -> tuple[Any, Any]:
    batch, length = token_ids.shape
    dynamic = tf.shape(token_ids)
    return (
        dynamic[0] if batch is None else batch,
        dynamic[1] if length is None else length,
    )


def _embeddings(
    backbone: keras.Model, inputs: Mapping[str, Tensor], shape: tuple[Any, Any]
) -> Tensor:
    batch, length = shape
    flat = tf.reshape(inputs["token_ids"], [-1])
    layer = backbone
    if not isinstance(backbone, BertBackbone):
        layer = backbone.embeddings
    positions = layer.position_embedding.position_embeddings.value
    # `identity`: a slice of a variable would be one of its handle.
    added = tf.identity(positions)[:length]
    if isinstance(backbone, BertBackbone):
        segments = tf.reshape(inputs["segment_ids"], [-1])
        # There are two: a sum, not a second table to look up.
        first, second = tf.unstack(
            backbone.segment_embedding.embeddings.value[:2]
        )
        share = tf.cast(segments, tf.float32)[:, None]
        tokens = tf.gather(backbone.token_embedding.embeddings.value, flat)
        tokens += first + share * (second - first)
    else:
        tokens = tf.gather(layer.token_embedding.embeddings.value, flat)
    width = tokens.shape[-1]
    tokens = tf.reshape(tokens, [batch, length, width]) + added
    return tf.reshape(tokens, [-1, width])


def _normalized(layer: keras.layers.LayerNormalization, rows: Tensor) -> Tensor:
    centred = rows - tf.reduce_mean(rows, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    # In this order: a scale by itself would be moved into the weights of what
    # follows, and so would the table's own copy be.
    scale = tf.math.rsqrt(variance + layer.epsilon) * layer.gamma.value
    return centred * scale + layer.beta.value


def _transformer_layer(
    layer: keras.layers.Layer,
    rows: Tensor,
    score_bias: Tensor,
    shape: tuple[Any, Any],
) -> Tensor:
    attended = _attention(layer._self_attention_layer, rows, score_bias, shape)
    rows = _normalized(layer._self_attention_layer_norm, attended + rows)
    hidden = _activated(layer._feedforward_intermediate_dense, rows)
    outer = layer._feedforward_output_dense
    hidden = _dense(hidden, outer.kernel.value, outer.bias.value)
    return _normalized(layer._feedforward_layer_norm, hidden + rows)


def _attention(
    layer: keras.layers.MultiHeadAttention,
    rows: Tensor,
    score_bias: Tensor,
    shape: tuple[Any, Any],
) -> Tensor:
    width, heads, size = layer._query_dense.kernel.shape
    batch, length = shape

    def project(part: Any, scale: float = 1.0) -> Tensor:
        kernel = tf.reshape(part.kernel.value, [width, heads * size])
        bias = tf.reshape(part.bias.value, [heads * size])
        found = _dense(rows, scale * kernel, scale * bias)
        split = tf.reshape(found, [batch, length, heads, size])
        return tf.transpose(split, [0, 2, 1, 3])

    query = project(layer._query_dense, 1.0 / math.sqrt(size))
    key = project(layer._key_dense)
    value = project(layer._value_dense)
    scores = tf.matmul(query, key, transpose_b=True) + score_bias
    context = tf.matmul(tf.nn.softmax(scores), value)
    context = tf.reshape(
        tf.transpose(context, [0, 2, 1, 3]), [-1, heads * size]
    )
    output = layer._output_dense
    kernel = tf.reshape(output.kernel.value, [heads * size, width])
    return _dense(context, kernel, output.bias.value)


def _activated(layer: keras.layers.Dense, rows: Tensor) -> Tensor:
    found = _dense(rows, layer.kernel.value, layer.bias.value)
    if layer.activation is keras.activations.gelu:
        # LiteRT has an operator for it.
        return tf.nn.gelu(found, approximate=False)
    return layer.activation(found)


def _dense(rows: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    return tf.nn.bias_add(tf.matmul(rows, kernel), bias)


def _mean(student: Student, states: Tensor, padding_mask: Tensor) -> Tensor:
    """Mean over the tokens that are no padding, as an embedding."""
    weights = tf.cast(padding_mask, tf.float32)[:, :, None]
    count = tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
    mean = tf.reduce_sum(states * weights, axis=1) / count
    if not student.normalize:
        return mean
    squares = tf.reduce_sum(tf.square(mean), axis=-1, keepdims=True)
    return mean * tf.math.rsqrt(tf.maximum(squares, 1e-12))
