"""Building models from a seed, and filling their variables with arrays."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any, TypeVar

import keras
import numpy as np
from keras_hub.models import Task

from keras_distil.models.supported import is_quantized

AnyTask = TypeVar("AnyTask", bound=Task)


@contextlib.contextmanager
def seeded_build(seed: int) -> Iterator[None]:
    """Makes the models built inside depend on `seed` alone.

    Keras draws the default seed of every initializer and dropout layer from
    Python's global generator, which is put back as it was on leaving.

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
    """Returns the weights of `model` by path, as `checkpoints` names them."""
    return {variable.path: variable for variable in model.weights}


def assign(variable: keras.Variable, value: object) -> None:
    """Assigns an array or another variable, whatever its float type."""
    # Through float32: NumPy's bfloat16 is not accepted everywhere.
    array = keras.ops.convert_to_numpy(value).astype("float32")
    variable.assign(np.ascontiguousarray(array))


def merged_weights(layer: keras.Layer) -> list[object]:
    """The weights of a layer as it computes with them.

    Low-rank changes (`enable_lora`) are added to the kernels and embeddings
    that they change, and are not weights of their own here.

    Args:
        layer: a layer or a model.

    Returns:
        Arrays and variables in the order of `layer.weights`.

    Raises:
        ValueError: if Keras has quantised the layer.
    """
    merged: dict[int, object] = {}
    factors: set[int] = set()
    for part in layer._flatten_layers():
        check_not_quantized(part)
        if not getattr(part, "lora_enabled", False):
            continue
        for kind in ("kernel", "embeddings"):
            if hasattr(part, f"lora_{kind}_a"):
                changed = getattr(part, f"_{kind}")
                left = getattr(part, f"lora_{kind}_a")
                right = getattr(part, f"lora_{kind}_b")
                factors |= {id(left), id(right)}
                merged[id(changed)] = _with_change(
                    changed, left, right, part.lora_alpha / part.lora_rank
                )
    return [
        merged.get(id(variable), variable)
        for variable in layer.weights
        if id(variable) not in factors
    ]


def _with_change(
    changed: keras.Variable,
    left: keras.Variable,
    right: keras.Variable,
    scale: float,
) -> object:
    # In float32 whatever the compute precision, as the factors are.
    change = keras.ops.matmul(left.value, right.value)
    return keras.ops.cast(changed.value, "float32") + scale * change


def check_not_quantized(layer: keras.Layer) -> None:
    """Raises ValueError if Keras has quantised this layer.

    Its kernels are integers without their scales: they are not the weights
    of another model.
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
    for layer in model._flatten_layers():
        check_not_quantized(layer)


def has_low_rank_changes(model: keras.Model) -> bool:
    """Whether `enable_lora` was called on a layer of the model."""
    return any(
        getattr(layer, "lora_enabled", False)
        for layer in model._flatten_layers()
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
    """Builds a KerasHub task model anew under another dtype policy.

    A frozen teacher of a training in mixed precision is best held in the
    compute precision, `with_dtype(teacher, "bfloat16")`, once the student was
    made from it: half the memory, and no cast in every step.

    Args:
        model: a KerasHub task model; it stays as it is.
        dtype: Keras dtype policy, or None for Keras's global policy.

    Returns:
        A model of the same class, with its weights in that precision.
    """
    config = model.get_config()
    policy = keras.dtype_policies.get(dtype)
    config["backbone"]["config"]["dtype"] = keras.dtype_policies.serialize(
        policy
    )
    return _with_config(model, config)


def with_logits(model: AnyTask) -> AnyTask:
    """Builds a task model anew that returns logits in place of a softmax.

    Args:
        model: of a task; it stays as it is.

    Returns:
        A model of the same class, with the same weights.
    """
    config = model.get_config()
    if "activation" in config:
        config["activation"] = "linear"
    return _with_config(model, config)


def _with_config(model: AnyTask, config: dict[str, Any]) -> AnyTask:
    """A model of the same class and weights with another configuration."""
    with seeded_build(0):
        converted = type(model).from_config(config)
    copy_weights(model, converted)
    return converted
