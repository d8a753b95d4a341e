"""The encoders and task models that our forward pass and step support.

Our forward pass reads the variables of KerasHub's layers and never calls the
layers, so it must know everything that changes a layer's computation. The
lists are positive: an encoder with anything else in it is called as Keras
calls it, and a student that cannot be trained exactly is refused.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import keras_hub
from keras_hub.models import Backbone, MaskedLM, Task

from keras_distil.models import encoder_weights
from keras_distil.models.architectures import (
    FAMILIES,
    is_text_classifier,
    pooler_of,
)
from keras_distil.models.weights import is_quantized
from keras_distil.utils.private_api import flatten_layers

_BACKBONES = tuple(c for family in FAMILIES.values() for c in family.encoders)
# Compute dtypes of the pass; layer normalisation always uses float32.
_COMPUTE_DTYPES = ("float32", "bfloat16")
# Float32 weights: an update in half precision would round to nothing.
_STUDENT_POLICIES = ("float32", "mixed_bfloat16")
_INPUTS = {"token_ids", "padding_mask", "segment_ids"}
_REVERSIBLE = (
    keras.layers.ReversibleEmbedding,
    keras_hub.layers.ReversibleEmbedding,
)
_LINEAR = keras.activations.linear
# Layer classes, with the settings that the pass assumes.
_SETTINGS: dict[type, dict[str, Any]] = {
    keras.layers.Add: {},
    keras.layers.Dense: {"use_bias": True},
    keras.layers.Dropout: {"noise_shape": None},
    keras.layers.EinsumDense: {"activation": _LINEAR},
    keras.layers.Embedding: {"mask_zero": False},
    keras.layers.LayerNormalization: {
        "center": True,
        "scale": True,
        "rms_scaling": False,
    },
    keras.layers.MultiHeadAttention: {
        "_use_bias": True,
        "_use_gate": False,
        "_output_shape": None,
        "_attention_axes": (1,),
        "_sliding_window": None,
    },
    keras.layers.Softmax: {},
    keras_hub.layers.PositionEmbedding: {},
    keras_hub.layers.TokenAndPositionEmbedding: {},
    keras_hub.layers.TransformerEncoder: {"normalize_first": False},
    **dict.fromkeys(_REVERSIBLE, {"mask_zero": False}),
}
# Keras sets these on every instance.
_SET_BY_KERAS = {"build", "quantize", "loss"}
_LIBRARIES = ("keras", "keras_hub", "keras_distil")


# === The forward pass of encoders ===


def unknown_to_pass(backbone: Backbone) -> str | None:
    """Names the first thing in an encoder that our pass does not support.

    Args:
        backbone: any KerasHub encoder.

    Returns:
        A phrase that names it, or None if there is none.
    """
    if type(backbone) not in _BACKBONES:
        return f"an encoder of class {type(backbone).__name__}"
    if is_patched(backbone):
        return f"the encoder {backbone.name!r} with a replaced method"
    parts = [
        *encoder_weights.read_embeddings(backbone).called,
        *backbone.transformer_layers,
    ]
    called = {id(operation) for operation in backbone.operations}
    for part in parts:
        if id(part) not in called:
            return f"the layer {part.name!r}, which the encoder does not call"
    if _transformer_layers(backbone) != list(backbone.transformer_layers):
        return "transformer layers in another order than the encoder's graph"
    for part in parts:
        for layer in flatten_layers(part):
            unknown = _unknown_in_layer(layer, backbone.compute_dtype)
            if unknown is not None:
                return f"the layer {layer.name!r} with {unknown}"
    return None


def _transformer_layers(backbone: Backbone) -> list[keras.layers.Layer]:
    """Returns the functional graph's transformer layers, in order."""
    return [
        operation
        for operation in backbone.operations
        if isinstance(operation, keras_hub.layers.TransformerEncoder)
    ]


def _unknown_in_layer(
    layer: keras.layers.Layer, compute_dtype: str
) -> str | None:
    kind = type(layer)
    if kind not in _SETTINGS:
        return f"the class {kind.__name__}"
    if is_patched(layer):
        return "a replaced method"
    if is_quantized(layer):
        return f"the dtype policy {layer.dtype_policy.name!r}"
    if (
        layer.compute_dtype != compute_dtype
        or compute_dtype not in _COMPUTE_DTYPES
    ):
        return f"the compute dtype {layer.compute_dtype}"
    for name, value in _SETTINGS[kind].items():
        # Versions of Keras without the setting have nothing to check.
        if getattr(layer, name, value) != value:
            return f"{name.lstrip('_')}={getattr(layer, name)!r}"
    return _unknown_setting(layer)


def _unknown_setting(layer: keras.layers.Layer) -> str | None:
    """Names a setting whose value alone does not tell if it is supported."""
    if isinstance(layer, keras.layers.LayerNormalization):
        if layer.axis not in (-1, [-1], [2]):
            return f"axis={layer.axis!r}"
    elif isinstance(layer, keras.layers.EinsumDense):
        if layer.bias is None:
            return "no bias"
    elif isinstance(layer, keras.layers.MultiHeadAttention):
        size = layer._key_dim
        if layer._value_dim != size:
            return f"value_dim={layer._value_dim}"
        if layer._inverse_sqrt_key_dim != 1.0 / math.sqrt(float(size)):
            return "another scale of its scores"
    elif isinstance(layer, keras_hub.layers.TransformerEncoder):
        parts = encoder_weights.read_layer(layer)
        inner = parts.inner.activation
        if not _is_of_libraries(inner) or isinstance(inner, keras.Layer):
            return f"the activation {inner!r}"
        if parts.outer.activation is not _LINEAR:
            return "an activation after its feed-forward part"
    return None


def is_patched(layer: keras.layers.Layer) -> bool:
    """Checks whether a layer's method was replaced from outside its library."""
    kind = type(layer)
    replaced = any(
        callable(getattr(kind, name, None))
        for name in vars(layer)
        if name not in _SET_BY_KERAS
    )
    return replaced or not _is_of_libraries(kind.call)


def _is_of_libraries(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    return module.split(".")[0] in _LIBRARIES


def quantized_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model that Keras has quantised."""
    return [layer for layer in _layers(model) if is_quantized(layer)]


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.Layer):
            yield layer


# === The head ===


def has_plain_decoder(model: MaskedLM) -> bool:
    """Checks whether logits are just `features @ embeddings^T + bias`."""
    embedding = model.masked_lm_head.token_embedding
    return (
        type(embedding) in _REVERSIBLE
        and not is_patched(embedding)
        and not is_quantized(embedding)
        and embedding.tie_weights
        and embedding.logit_soft_cap is None
        and embedding.reverse_dtype is None
        and embedding.compute_dtype in _COMPUTE_DTYPES
    )


def check_task_model(model: Task, role: str) -> None:
    """Raises TypeError unless a task model is an encoder and a known head.

    Encoder and head are called separately, so a layer between or after them,
    or another `call`, would be skipped.

    Args:
        model: a KerasHub task model, masked-LM or from `models.task_model`.
        role: the argument's name, for the message.

    Raises:
        TypeError: naming what is not supported.
    """
    check_inputs(model, role)
    head = _head(model)
    known_ids = {id(model.backbone), *(id(layer) for layer in head)}
    strange = [
        operation
        for operation in model.operations
        if id(operation) not in known_ids
        and not isinstance(operation, keras.layers.InputLayer)
        # Classifiers pick the first token by an operation.
        and type(operation).__name__ != "GetItem"
    ]
    called = {id(operation) for operation in model.operations}
    strange += [x for x in (model.backbone, *head) if id(x) not in called]
    strange += [x for x in (model, *head) if is_patched(x)]
    if strange:
        raise TypeError(
            f"`{role}` must compute its outputs only by its encoder and the "
            "head of its class. Received: "
            f"{role}={model.name!r} with another {strange[0].name!r} (of type "
            f"{type(strange[0]).__name__}). Build it again from its encoder."
        )


def check_inputs(model: Task, role: str) -> None:
    """Raises TypeError unless an encoder reads only what batches have."""
    inputs = model.backbone.input
    names = sorted(inputs) if isinstance(inputs, dict) else [repr(inputs)]
    if not set(names) <= _INPUTS or "token_ids" not in names:
        raise TypeError(
            f"The encoder of `{role}` must read only {sorted(_INPUTS)}, "
            f"which batches have. Received: {role}={model.name!r}, which "
            f"reads {names}."
        )


def _head(model: Task) -> list[keras.layers.Layer]:
    if isinstance(model, MaskedLM):
        return [model.masked_lm_head]
    head = [model.output_dropout, model.output_dense]
    if not is_text_classifier(model):
        return head
    # A pooler may also belong to the encoder.
    inside = {id(layer) for layer in model.backbone.operations}
    pooler = [x for x in pooler_of(model) if id(x) not in inside]
    return [*pooler, *head]


# === The student's training ===


def check_student(student: Task) -> None:
    """Raises ValueError for a student that cannot be trained exactly.

    Args:
        student: a KerasHub task model.

    Raises:
        ValueError: if it is quantised, has a dtype policy that loses updates,
            or adds losses (regularisers).
    """
    quantized = quantized_layers(student)
    if quantized:
        raise ValueError(
            "A student quantised by Keras cannot be trained. Received: "
            f"student={student.name!r} with the layer {quantized[0].name!r}, "
            f"quantised as {quantized[0].quantization_mode!r}. Train it first, "
            "then call `quantize`."
        )
    _check_policies(student)
    _check_decoder(student)
    _check_own_losses(student)
    for variable in student.variables:
        if getattr(variable, "overwrite_with_gradient", False):
            raise ValueError(
                "Variables that take their gradient as their new value "
                "(`overwrite_with_gradient`) cannot be trained here. "
                f"Received: student={student.name!r} with "
                f"{variable.path!r}."
            )


def _check_policies(student: Task) -> None:
    policies = {
        _policy(layer)
        for layer in _layers(student)
        if layer.weights and not isinstance(layer, keras.Model)
    }
    wrong = sorted(policies - set(_STUDENT_POLICIES))
    if wrong:
        reason = "their updates would be rounded away, or need loss scaling"
        if "float64" in wrong:
            reason = "losses and gradients are computed in float32"
        raise ValueError(
            f"`{wrong[0]}` is not supported for a student: {reason}. Use "
            "'mixed_bfloat16' or 'float32'. Received: student="
            f"{student.name!r} of dtype policy {wrong[0]!r}."
        )
    if len(policies) > 1:
        raise ValueError(
            "All layers of a student must have one dtype policy. Received: "
            f"student={student.name!r} with {sorted(policies)}."
        )


def _policy(layer: keras.layers.Layer) -> str:
    """Returns the name of a layer's dtype policy, even from a policy map."""
    variable, compute = layer.variable_dtype, layer.compute_dtype
    return compute if variable == compute else f"mixed_{compute}"


def _check_decoder(student: Task) -> None:
    if isinstance(student, MaskedLM) and not has_plain_decoder(student):
        raise ValueError(
            "A student's decoder must be the plain product with its token "
            "embeddings: no `logit_soft_cap`, no `reverse_dtype`, no layer "
            f"of another class. Received: student={student.name!r}."
        )


def _check_own_losses(student: Task) -> None:
    """Refuses losses in the student, because the step would ignore them."""
    owners = [
        f"the activity regulariser of {layer.name!r}"
        for layer in _layers(student)
        if getattr(layer, "activity_regularizer", None) is not None
    ]
    owners += [
        f"the regulariser of {variable.path!r}"
        for variable in student.trainable_variables
        if variable.regularizer is not None
    ]
    if owners:
        raise ValueError(
            "A student's own losses (regularisers, `add_loss`) are not part "
            "of the distillation loss. Remove them; against large weights "
            "there is the optimizer's `weight_decay`. Received: student="
            f"{student.name!r} with {owners[0]}."
        )


def check_added_losses(student: Task) -> None:
    """Raises ValueError if the last forward pass has called `add_loss`."""
    if student.losses:
        raise ValueError(
            "A student's own losses (regularisers, `add_loss`) are not part "
            "of the distillation loss. Remove them. Received: student="
            f"{student.name!r} with {len(student.losses)} of them."
        )


def check_trainable(student: Task, variables: Sequence[keras.Variable]) -> None:
    """Raises ValueError if training would not change the student.

    Args:
        student: a KerasHub task model.
        variables: the variables that the step computes gradients for.
    """
    reached = {id(variable) for variable in variables}
    if not any(id(v) in reached for v in student.trainable_variables):
        raise ValueError(
            "The student has no trainable weights that a loss reaches. Set "
            "`trainable` of the model or of some layers to True. Received: "
            f"student={student.name!r}."
        )


def check_nothing_shared(teacher: Task, student: Task) -> None:
    """Raises ValueError if two models have weights in common.

    Training would change the teacher, and freezing the teacher the student.
    """
    theirs = {id(variable) for variable in teacher.weights}
    shared = [v.path for v in student.weights if id(v) in theirs]
    if shared:
        raise ValueError(
            "`teacher` and `student` must not share weights: the teacher is "
            f"frozen. Received: {student.name!r} with {len(shared)} of "
            f"{teacher.name!r}, such as {shared[0]!r}. Build one of them from "
            "a copy, as `models.initialize_student` does."
        )
