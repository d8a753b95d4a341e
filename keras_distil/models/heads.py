"""The supported heads of task models, and their logits.

The losses, scores and exports read logits. A head that ends in a softmax is
read before it, which does not change its meaning. Anything else that changes
the meaning of an output is refused by the checks of this module when a model
is passed in.
"""

from typing import Any

import keras
import keras_hub
from keras import ops

from keras_distil.models.supported import check_task_model

Tensor = Any

_REMEDY = (
    "Build it with activation=None: the weights are the same, and its outputs "
    "are logits."
)


def logits_of(layer: keras.layers.Dense, features: Tensor) -> Tensor:
    """Returns the output of a dense layer before its activation.

    Args:
        layer: a layer that `check_task_head` has accepted.
        features: float, (..., inputs).

    Returns:
        float, (..., outputs).
    """
    if _is_linear(layer.activation):
        return layer(features)
    features = ops.cast(features, layer.compute_dtype)
    product = ops.matmul(features, ops.cast(layer.kernel, layer.compute_dtype))
    if layer.bias is None:
        return product
    return product + ops.cast(layer.bias, layer.compute_dtype)


def is_linear(model: keras.Model) -> bool:
    """Checks whether a task's model returns logits when it is called."""
    return _is_linear(model.output_dense.activation)


def check_task_head(model: keras.Model, role: str) -> None:
    """Raises an error unless the outputs of a task's model are supported.

    Args:
        model: a model whose kind `task_model.kind_of` recognises.
        role: the argument's name, for the message.

    Raises:
        TypeError: if it has layers besides its encoder and its head.
        ValueError: if its outputs are neither logits nor a softmax of them.
    """
    check_task_model(model, role)
    layer = model.output_dense
    _check_activation(layer.activation, model, role)
    if _is_linear(layer.activation):
        return
    received = f"Received: {role}={model.name!r} with activation='softmax'."
    if layer.units == 1:
        raise ValueError(
            f"The softmax of a single output is always 1, so `{role}` has "
            f"no information. {_REMEDY} {received}"
        )
    if layer.quantization_mode is not None:
        raise ValueError(
            f"The logits of `{role}` cannot be read from a quantized layer "
            f"with a softmax. {_REMEDY} {received}"
        )


def check_masked_lm_head(model: keras_hub.models.MaskedLM, role: str) -> None:
    """Raises an error unless a masked-LM model's logits are supported.

    Args:
        model: a KerasHub masked-LM task model.
        role: the argument's name, for the message.

    Raises:
        TypeError: if it has layers besides its encoder and its head.
        ValueError: if its decoder is not tied to the token embeddings, or
            its outputs are neither logits nor a softmax of them.
    """
    check_task_model(model, role)
    head = model.masked_lm_head
    table = head.token_embedding
    if table is None or not table.tie_weights:
        raise ValueError(
            f"The decoder of `{role}` must be tied to its token embeddings. "
            f"Received: {role}={model.name!r} with an untied decoder."
        )
    _check_activation(head.activation, model, role)


def _check_activation(activation: Any, model: keras.Model, role: str) -> None:
    if _is_linear(activation) or activation is keras.activations.softmax:
        return
    name = getattr(activation, "__name__", activation)
    raise ValueError(
        f"The outputs of `{role}` must be logits, or a softmax of them over "
        f"several classes. {_REMEDY} Received: {role}={model.name!r} with "
        f"activation={name!r}."
    )


def _is_linear(activation: Any) -> bool:
    return activation is None or activation is keras.activations.linear
