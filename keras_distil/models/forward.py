"""The forward pass of a task model, split where the losses need it.

KerasHub's task models go from token ids to the logits of given positions in
one call. Distillation also needs the last hidden states, and the logits one
chunk at a time; these functions stop at both points.
"""

import weakref
from collections.abc import Collection, MutableMapping
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops
from keras_hub.models import Backbone, MaskedLM, Task

from keras_distil.losses.chunked import VocabularyProjection
from keras_distil.losses.layers import EMBEDDINGS, LAST, Attention, Layer
from keras_distil.models import encoder_pass, encoder_weights, heads
from keras_distil.models.architectures import is_text_classifier, pooler_of
from keras_distil.models.supported import has_plain_decoder, is_patched

Tensor = Any


def encode(model: Task, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
    """Returns the last hidden states of the encoder.

    Args:
        model: a KerasHub task model.
        inputs: "token_ids" and "padding_mask", int32, (batch, length), and
            optionally "segment_ids". Without them, all tokens are of the first
            segment, if the encoder has token types.
        training: whether dropout is active.

    Returns:
        float in the compute precision, (batch, length, width). Values at
        padding are meaningless.
    """
    return hidden_states(model, inputs, training=training)[LAST]


def hidden_states(
    model: Task,
    inputs: dict[str, Tensor],
    layers: Collection[Layer | Attention] = (),
    *,
    training: bool,
) -> dict[Layer | Attention, Tensor]:
    """Returns hidden states after some layers of the encoder, in one pass.

    Args:
        model: a KerasHub task model.
        inputs: as for `encode`.
        layers: layers to return besides the last: numbers from 0, and
            "embeddings" for the input of the first layer; `Attention` for the
            queries, keys and values of a layer, (batch, length, 3, heads,
            size).
        training: whether dropout is active.

    Returns:
        States as from `encode`, by layer; the last layer is "last".

    Raises:
        ValueError: if a method of the encoder is replaced, so that only its
            last hidden states are available.
    """
    features = encoder_inputs(model, inputs)
    backbone = model.backbone
    if encoder_pass.is_supported(backbone):
        return encoder_pass.hidden_states(
            backbone, features, layers, training=training
        )
    if not set(layers) - {LAST}:
        return {LAST: _own_states(model, features, training=training)}
    if is_patched(backbone):
        raise ValueError(
            f"The encoder {backbone.name!r} has a replaced method: only its "
            "last hidden states can be had. Use layers='last'."
        )
    inputs_of = {
        layer: _input_of(model, layer)
        for layer in layers
        if isinstance(layer, Attention)
    }
    needed = {x for x in layers if not isinstance(x, Attention)}
    needed |= set(inputs_of.values())
    states = _cut(model, frozenset(needed) - {LAST})(
        features, training=training
    )
    vectors = {
        layer: _attention_vectors(model, layer, states[name])
        for layer, name in inputs_of.items()
    }
    return {
        **{x: states[x] for x in states if x == LAST or x in layers},
        **vectors,
    }


def layer_count(model: Task) -> int | None:
    """Number of layers with available states; None if only the last."""
    layers = getattr(model.backbone, "transformer_layers", None)
    return None if layers is None else len(layers)


def attention_shape(model: Task, layer: Layer) -> tuple[int, int]:
    """Number of heads and size of a head in a layer of an encoder.

    Args:
        model: a KerasHub task model.
        layer: number of the layer, or "last".

    Raises:
        ValueError: if the layer's queries, keys and values cannot be had.
    """
    number = -1 if layer == LAST else int(layer)
    found = getattr(model.backbone, "transformer_layers", [None])[number]
    shape = None
    if isinstance(found, keras_hub.layers.TransformerEncoder):
        shape = encoder_weights.read_layer(found).attention_shape
    if shape is None:
        raise ValueError(
            "Losses on attention need layers with queries, keys and values "
            "of their input, of one size. Received: the encoder "
            f"{model.backbone.name!r} with {type(found).__name__}."
        )
    return shape


# For each encoder, its graphs up to the states of some layers.
_CUTS: MutableMapping[Backbone, dict[frozenset, keras.Model]] = (
    weakref.WeakKeyDictionary()
)


def _cut(model: Task, layers: frozenset[Layer]) -> keras.Model:
    """Returns the encoder as a model of some layers' and the last states."""
    cuts = _CUTS.setdefault(model.backbone, {})
    if layers not in cuts:
        names = (EMBEDDINGS, *range(layer_count(model) or 0))
        states = dict(zip(names, states_by_layer(model).values(), strict=True))
        output = model.backbone.output
        last = output["sequence_output"] if isinstance(output, dict) else output
        cuts[layers] = keras.Model(
            model.backbone.input,
            {LAST: last, **{layer: states[layer] for layer in layers}},
        )
    return cuts[layers]


def _number(model: Task, attention: Attention) -> int:
    """Returns the number of the layer that a model's attention is of."""
    if attention.layer == LAST:
        return (layer_count(model) or 0) - 1
    return int(attention.layer)


def _input_of(model: Task, attention: Attention) -> Layer:
    """Returns the layer whose states this attention reads."""
    number = _number(model, attention)
    return number - 1 if number else EMBEDDINGS


def _attention_vectors(
    model: Task, attention: Attention, inputs: Tensor
) -> Tensor:
    """Returns queries, keys and values, (batch, length, 3, heads, size)."""
    layer = encoder_weights.read_layers(model.backbone)[
        _number(model, attention)
    ]
    parts = (layer.query, layer.key, layer.value)
    return ops.stack([part(inputs) for part in parts], axis=2)


def states_by_layer(model: Task) -> dict[str, Tensor]:
    """Returns symbolic hidden states, for building a model that returns them.

    Returns:
        The states after the embeddings, as "embeddings", and after every
        layer, by its name, in order.
    """
    backbone = model.backbone
    return {
        "embeddings": encoder_weights.read_embeddings(backbone).dropout.output,
        **{layer.name: layer.output for layer in backbone.transformer_layers},
    }


def encoder_inputs(model: Task, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the inputs that the encoder of a task model reads."""
    features = {
        name: ops.convert_to_tensor(inputs[name])
        for name in ("token_ids", "padding_mask")
        # FNet mixes all tokens and does not read a mask.
        if name in model.backbone.input
    }
    if "segment_ids" in model.backbone.input:
        features["segment_ids"] = (
            ops.convert_to_tensor(inputs["segment_ids"])
            if "segment_ids" in inputs
            else ops.zeros_like(features["token_ids"])
        )
    return features


def _own_states(
    model: Task, features: dict[str, Tensor], *, training: bool
) -> Tensor:
    """Last hidden states by the encoder's own pass, including padding."""
    outputs = model.backbone(features, training=training)
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


def encode_task(
    model: Task, inputs: dict[str, Tensor], *, training: bool
) -> tuple[Tensor, Tensor]:
    """Returns the last hidden states of a task model, and its outputs.

    Args:
        model: as `task_model` returns it.
        inputs: as for `encode`.
        training: whether dropout is active.

    Returns:
        Hidden states as from `encode`, and float32 outputs: (batch, classes),
        (batch, length, classes) or, for a span, (batch, length, 2).
    """
    states = encode(model, inputs, training=training)
    return states, task_outputs(model, states, training=training)


def task_outputs(model: Task, states: Tensor, *, training: bool) -> Tensor:
    """Returns the outputs of a task model's head: logits, without a softmax.

    Args:
        model: as `task_model` returns it.
        states: float, (batch, length, width), last hidden states.
        training: whether dropout is active.

    Returns:
        float32, like the outputs of `encode_task`.
    """
    features = states
    if is_text_classifier(model):
        features = states[:, 0, :]
        for layer in pooler_of(model):
            features = layer(features, training=training)
    features = model.output_dropout(features, training=training)
    found = heads.logits_of(model.output_dense, features)
    return ops.cast(found, "float32")


def project(model: MaskedLM, hidden_rows: Tensor) -> VocabularyProjection:
    """Runs the masked-LM head, except the product that computes the logits.

    Args:
        model: a KerasHub masked-LM task model with a tied decoder.
        hidden_rows: float, (rows, width), last hidden states.

    Returns:
        The `VocabularyProjection` of these rows.
    """
    head = encoder_weights.read_masked_lm_head(model)
    dtype = head.layer.compute_dtype
    features = ops.cast(head.norm(head.dense(hidden_rows)), dtype)
    if not has_plain_decoder(model):
        return VocabularyProjection(
            features=features,
            kernel=None,
            bias=ops.cast(head.bias, "float32"),
            decoder=lambda rows: head.embedding(rows, reverse=True),
        )
    return VocabularyProjection(
        features=features,
        kernel=ops.cast(head.embedding.embeddings, dtype),
        bias=ops.cast(head.bias, "float32"),
    )


def decoder_variables(model: MaskedLM) -> tuple[keras.Variable, keras.Variable]:
    """Returns the variables of the product that computes the logits.

    Args:
        model: a KerasHub masked-LM task model with a tied decoder.

    Returns:
        The token embeddings, (vocabulary, width), and the bias, (vocabulary,).
    """
    head = encoder_weights.read_masked_lm_head(model)
    return head.embedding.embeddings, head.bias


def logits(
    model: MaskedLM,
    inputs: dict[str, Tensor],
    *,
    training: bool = False,
) -> Tensor:
    """Returns vocabulary logits.

    Args:
        model: a KerasHub masked-LM task model.
        inputs: as for `encode`; with "mask_positions", int32, (batch,
            positions), the logits of these positions only.
        training: whether dropout is active.

    Returns:
        float32, (batch, length or positions, vocabulary).
    """
    features = encoder_inputs(model, inputs)
    hidden_states = _own_states(model, features, training=training)
    if "mask_positions" in inputs:
        positions = ops.expand_dims(inputs["mask_positions"], axis=-1)
        hidden_states = ops.take_along_axis(hidden_states, positions, axis=1)
    projection = project(model, hidden_states)
    if projection.decoder is not None:
        product = projection.decoder(projection.features)
    else:
        kernel = ops.transpose(projection.kernel)
        product = ops.matmul(projection.features, kernel)
    return ops.cast(product, "float32") + projection.bias


def check_masked_lm(model: keras.Model, role: str) -> None:
    """Raises TypeError unless `model` is a masked-LM task model.

    Args:
        model: the model to check.
        role: name of the argument, for the message.

    Raises:
        TypeError: if it is anything else, or has layers besides its encoder
            and its head.
        ValueError: if its decoder is not tied to the token embeddings, or
            its outputs are neither logits nor a softmax of them.
    """
    if not isinstance(model, MaskedLM):
        raise TypeError(
            f"`{role}` must be a keras_hub masked-LM task model, such as "
            "`models.load_teacher` and `models.initialize_student` return. "
            f"Received: {role}={model!r} (of type {type(model).__name__})."
        )
    heads.check_masked_lm_head(model, role)


def gather_rows(hidden_states: Tensor, rows: Tensor) -> Tensor:
    """Selects tokens from a batch.

    Args:
        hidden_states: float, (batch, length, width).
        rows: int, (rows,), indices into the batch * length tokens.

    Returns:
        float, (rows, width).
    """
    width = hidden_states.shape[-1]
    return tf.gather(tf.reshape(hidden_states, [-1, width]), rows)
