"""Building models from a seed, and copying and merging their weights."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any, TypeVar

import keras
import numpy as np
from keras_hub.models import Task

from keras_distil.models.origin import inherit_folder
from keras_distil.utils.private_api import flatten_layers

AnyTask = TypeVar("AnyTask", bound=Task)


@contextlib.contextmanager
def seeded_build(seed: int) -> Iterator[None]:
    """Makes models built in this context depend on `seed` alone.

    Keras draws the default seed of every initializer and dropout layer from
    Python's global generator, whose state is restored on exit.

    Args:
        seed: int.
    """
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def variables_by_path(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns the weights of `model` by path, as named in `checkpoints`."""
    return {variable.path: variable for variable in model.weights}


def assign(variable: keras.Variable, value: object) -> None:
    """Assigns an array or another variable, whatever its float type."""
    # Via float32, because NumPy's bfloat16 is not accepted everywhere.
    array = keras.ops.convert_to_numpy(value).astype("float32")
    variable.assign(np.ascontiguousarray(array))


def merged_weights(layer: keras.Layer) -> list[object]:
    """Returns the weights that a layer effectively computes with.

    Low-rank changes (`enable_lora`) are added to the kernels and embeddings
    that they change, and are not listed as weights.

    Args:
        layer: a layer or a model.

    Returns:
        Arrays and variables in the order of `layer.weights`.

    Raises:
        ValueError: if Keras has quantised the layer.
    """
    merged: dict[int, object] = {}
    factors: set[int] = set()
    for part in flatten_layers(layer):
        check_not_quantized(part)
        if not getattr(part, "lora_enabled", False):
            continue
        for kind in ("kernel", "embeddings"):
            if hasattr(part, f"lora_{kind}_a"):
                changed = getattr(part, f"_{kind}")
                left = getattr(part, f"lora_{kind}_a")
                right = getattr(part, f"lora_{kind}_b")
                factors |= {id(left), id(right)}
                merged[id(changed)] = _add_change(
                    changed, left, right, part.lora_alpha / part.lora_rank
                )
    return [
        merged.get(id(variable), variable)
        for variable in layer.weights
        if id(variable) not in factors
    ]


def _add_change(
    changed: keras.Variable,
    left: keras.Variable,
    right: keras.Variable,
    scale: float,
) -> object:
    # Always in float32, like the factors.
    change = keras.ops.matmul(left.value, right.value)
    return keras.ops.cast(changed.value, "float32") + scale * change


def is_quantized(layer: keras.layers.Layer) -> bool:
    """Checks whether Keras has quantised this very layer."""
    return isinstance(
        layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy
    )


def check_not_quantized(layer: keras.Layer) -> None:
    """Raises ValueError if Keras has quantised this layer.

    Its kernels are integers, useless without their scales as the weights of
    another model.
    """
    if is_quantized(layer):
        raise ValueError(
            "Weights quantised by Keras cannot be copied or exported. Use the "
            "model as it was before `quantize`; `export.export_litert` "
            f"quantises by itself. Received: the layer {layer.name!r} of "
            f"dtype policy {layer.dtype_policy.name!r}."
        )


def check_all_not_quantized(model: keras.Model) -> None:
    """Raises ValueError if Keras has quantised a layer of the model."""
    for layer in flatten_layers(model):
        check_not_quantized(layer)


def has_low_rank_changes(model: keras.Model) -> bool:
    """Checks whether `enable_lora` was called on a layer of the model."""
    return any(
        getattr(layer, "lora_enabled", False) for layer in flatten_layers(model)
    )


def copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """Copies the weights of a layer to another of the same class.

    Low-rank changes of `source` are merged, see `merged_weights`.
    """
    for old, new in zip(merged_weights(source), target.weights, strict=True):
        assign(new, old)


def with_dtype(
    model: AnyTask, dtype: str | keras.DTypePolicy | None
) -> AnyTask:
    """Rebuilds a KerasHub task model under another dtype policy.

    In mixed precision, a frozen teacher is best held in the compute
    precision, `with_dtype(teacher, "bfloat16")`, once the student has been
    made from it: half the memory, and no cast in every step.

    Args:
        model: a KerasHub task model; it is not changed.
        dtype: Keras dtype policy, or None for Keras's global policy.

    Returns:
        A model of the same class, with its weights in that precision.
    """
    config = model.get_config()
    policy = keras.dtype_policies.get(dtype)
    config["backbone"]["config"]["dtype"] = keras.dtype_policies.serialize(
        policy
    )
    return _rebuild(model, config)


def with_logits(model: AnyTask) -> AnyTask:
    """Rebuilds a task model so that it returns logits instead of a softmax.

    Args:
        model: the model of a task; it is not changed.

    Returns:
        A model of the same class, with the same weights.
    """
    config = model.get_config()
    if "activation" in config:
        config["activation"] = "linear"
    return _rebuild(model, config)


def _rebuild(model: AnyTask, config: dict[str, Any]) -> AnyTask:
    """Rebuilds a model with another configuration and the same weights."""
    # A tokenizer in it is not part of the configuration.
    config["preprocessor"] = model.preprocessor
    with seeded_build(0):
        converted = type(model).from_config(config)
    copy_weights(model, converted)
    inherit_folder(model, converted)
    return converted
