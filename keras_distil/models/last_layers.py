"""Finds out whether the outputs of any Keras model are logits.

The losses read logits. A softmax at the end is read before it, which does not
change its meaning and loses no digits.
"""

from typing import Any

import keras

from keras_distil.models.supported import is_patched
from keras_distil.models.taps import BEFORE_ACTIVATION, INPUT, Tap
from keras_distil.utils import private_api

Tensor = Any

# Layers whose `activation` is the last thing they compute, over the last axis.
_WITH_ACTIVATION = (
    keras.layers.Conv1D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3D,
    keras.layers.Conv3DTranspose,
    keras.layers.Dense,
    keras.layers.EinsumDense,
)
_REMEDY = "Build it with activation=None, so that its outputs are logits."


def last_layer(model: keras.Model) -> keras.layers.Layer | None:
    """Returns the layer whose output is the model's; None if unknown.

    Args:
        model: any model. The last layer of a subclassed one is unknown.
    """
    if is_patched(model):
        return None
    try:
        outputs = keras.tree.flatten(model.outputs)
    except AttributeError:
        return None
    if len(outputs) != 1:
        return None
    layer = private_api.operation_of(outputs[0])
    if isinstance(layer, keras.Model):
        return last_layer(layer)
    return layer if isinstance(layer, keras.layers.Layer) else None


def logits_tap(
    model: keras.Model, role: str, from_logits: bool | None
) -> Tap | None:
    """Returns where the logits of a classifier are read before a softmax.

    Args:
        model: the model.
        role: the argument's name, for messages.
        from_logits: what the user says of a model whose last layer does not
            tell.

    Returns:
        The place; None if the outputs are what `from_logits` says, or logits.

    Raises:
        ValueError: if the outputs are neither logits nor a softmax of them,
            or it is not known which.
    """
    layer = last_layer(model)
    activation = _activation_of(layer)
    if layer is None or activation is None:
        if from_logits is None:
            raise ValueError(_unknown(model, role, layer))
        return None
    if activation is keras.activations.linear:
        return None
    if activation is keras.activations.softmax:
        own = isinstance(layer, _WITH_ACTIVATION)
        return Tap(layer, BEFORE_ACTIVATION if own else INPUT)
    name = getattr(activation, "__name__", activation)
    raise ValueError(
        f"The outputs of `{role}` must be logits of classes that exclude each "
        f"other, or a softmax of them. {_REMEDY} For outputs that are numbers "
        "use the squared errors of labels and soft targets. Received: "
        f"{role}={model.name!r}, whose last layer {layer.name!r} has "
        f"activation={name!r}."
    )


def tells_logits(model: keras.Model) -> bool:
    """Checks whether the model's last layer tells if outputs are logits."""
    return _activation_of(last_layer(model)) is not None


def _activation_of(layer: keras.layers.Layer | None) -> Any:
    """Returns the activation that a last layer ends with; None if unknown."""
    if layer is None or is_patched(layer):
        return None
    if isinstance(layer, keras.layers.Softmax):
        return keras.activations.softmax if layer.axis == -1 else None
    if isinstance(layer, (*_WITH_ACTIVATION, keras.layers.Activation)):
        return layer.activation or keras.activations.linear
    return None


def _unknown(
    model: keras.Model, role: str, layer: keras.layers.Layer | None
) -> str:
    why = "it is a subclass with its own `call`"
    if layer is not None:
        why = f"its last layer is {layer.name!r} ({type(layer).__name__})"
    return (
        f"Whether the outputs of `{role}` are logits cannot be read off it: "
        f"{why}. Say `Distiller(..., from_logits=True)` for logits, or False "
        f"for probabilities. Received: {role}={model.name!r}, "
        "from_logits=None."
    )
