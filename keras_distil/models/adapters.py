"""Low-rank adapters: what a teacher has learnt, in a few megabytes.

An adapter is one safetensors file. It holds low-rank factors for the changes
of every kernel and of the token embeddings, the new values of all biases and
layer normalisations, and the masked-LM head. Its metadata names the weights
it belongs to.
"""

import json
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors
from safetensors.numpy import save_file

from keras_distil.models import encoder_weights
from keras_distil.utils import disk

_FORMAT_VERSION = "1"
_FACTORS = ("kernel", "embeddings")


def enable_adapter(model: keras.Model, rank: int) -> None:
    """Freezes kernels and embeddings and adds trainable low-rank changes.

    Biases, layer normalisations and the masked-LM head stay trainable;
    position and token-type embeddings are frozen.

    Args:
        model: a KerasHub masked-LM task model.
        rank: int >= 1, the rank of every change.

    Raises:
        ValueError: if `rank` is below 1.

    Reference:
        Hu et al. 2022, arXiv:2106.09685. Differs: token embeddings too.
    """
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1. Received: rank={rank}.")
    embeddings = encoder_weights.read_embeddings(model.backbone)
    embeddings.positions.trainable = False
    if embeddings.segments is not None:
        embeddings.segments.trainable = False
    for _, layer in _low_rank_layers(model):
        layer.enable_lora(rank)


def save_adapter(
    model: keras.Model,
    filepath: str | os.PathLike,
    *,
    base_sha256: str,
) -> None:
    """Writes what `enable_adapter` made trainable.

    Args:
        model: the trained model.
        filepath: the file to write, ending in `.safetensors`.
        base_sha256: hash of the weights that the model started from.
    """
    arrays = {}
    for path, variable in _adapter_variables(model):
        value = np.asarray(variable)
        # Half precision for the large arrays keeps the file small. Its
        # rounding is far smaller than the effect of the factors.
        large = value.ndim > 1
        arrays[path] = value.astype(np.float16 if large else np.float32)
    scales = {
        path: layer.lora_alpha / layer.lora_rank
        for path, layer in _low_rank_layers(model)
    }
    _write(
        Path(filepath),
        arrays,
        {
            "format_version": _FORMAT_VERSION,
            "base_sha256": base_sha256,
            "scales": json.dumps(scales),
            "details": "{}",
        },
    )


def merge_adapter(
    model: keras.Model, filepath: str | os.PathLike, *, base_sha256: str
) -> dict[str, Any]:
    """Adds an adapter to the weights it belongs to, in place.

    Args:
        model: a model with the base weights and a masked-LM head, without
            low-rank layers.
        filepath: the adapter.
        base_sha256: hash of the weights file that the model came from.

    Returns:
        The entries added by `annotate_adapter`, such as scores.

    Raises:
        ValueError: if the file cannot be read, is of a newer format, belongs
            to other weights or does not fit the model.
    """
    header, arrays = _read_checked(filepath, base_sha256)
    scales = _entries(filepath, header, "scales")
    details = _entries(filepath, header, "details")
    for path, layer in _low_rank_layers(model):
        kind = _factor_kind(layer)
        left = arrays.pop(f"{path}/lora_{kind}_a", None)
        right = arrays.pop(f"{path}/lora_{kind}_b", None)
        variable = getattr(layer, f"_{kind}")
        if left is None or right is None:
            raise ValueError(
                f"The adapter {filepath} has no change for {path!r}."
            )
        scale = scales.get(path)
        if type(scale) not in (int, float):
            raise ValueError(
                f"The adapter {filepath} lacks a scale of {path!r}."
            )
        # Check before multiplying: the product can be far larger.
        expected = tuple(variable.shape)
        rank = left.shape[-1:]
        _check_shape(filepath, path, left.shape, (*expected[:-1], *rank))
        _check_shape(filepath, path, right.shape, (*rank, expected[-1]))
        change = scale * np.matmul(
            left.astype(np.float32), right.astype(np.float32)
        )
        _check_shape(filepath, path, change.shape, expected)
        variable.assign_add(change)
    _assign_stored(filepath, arrays, model)
    return details


def restore_adapter(
    model: keras.Model, filepath: str | os.PathLike, *, base_sha256: str
) -> None:
    """Loads an adapter into a model with adapters, to train it further.

    Args:
        model: a model with the base weights, after `enable_adapter` with the
            adapter's rank.
        filepath: the adapter.
        base_sha256: hash of the weights that the model came from.

    Raises:
        ValueError: as for `merge_adapter`.
    """
    _, arrays = _read_checked(filepath, base_sha256)
    _assign_stored(filepath, arrays, model)


def annotate_adapter(
    filepath: str | os.PathLike, details: dict[str, Any]
) -> None:
    """Adds entries, such as scores, to an adapter's metadata.

    Args:
        filepath: the adapter.
        details: entries that JSON can hold.
    """
    header, arrays = _read(filepath)
    existing = _entries(filepath, header, "details")
    header["details"] = json.dumps({**existing, **details})
    _write(Path(filepath), arrays, header)


def _assign_stored(
    filepath: str | os.PathLike,
    arrays: dict[str, np.ndarray],
    model: keras.Model,
) -> None:
    """Assigns all of `arrays` to their variables."""
    for path, variable in _adapter_variables(model):
        if path not in arrays:
            raise ValueError(f"The adapter {filepath} lacks {path!r}.")
        value = arrays.pop(path)
        _check_shape(filepath, path, value.shape, variable.shape)
        variable.assign(value.astype(np.float32))
    if arrays:
        raise ValueError(
            f"The adapter {filepath} holds tensors for which the model has no "
            f"variable: {reprlib.repr(sorted(arrays)[:3])}."
        )


def _write(
    target: Path, arrays: dict[str, np.ndarray], header: dict[str, str]
) -> None:
    """Replaces the file atomically."""
    partial = target.with_name(target.name + ".partial")
    with disk.replacing(target, partial):
        save_file(arrays, partial, metadata=header)


def _low_rank_layers(
    model: keras.Model,
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Returns the layers whose matrix an adapter changes, by path."""
    backbone = model.backbone
    yield "token_embedding", encoder_weights.read_embeddings(backbone).tokens
    for index, block in enumerate(encoder_weights.read_layers(backbone)):
        layers = {
            "query": block.query,
            "key": block.key,
            "value": block.value,
            "attention_output": block.attention_output,
            "feedforward_intermediate": block.inner,
            "feedforward_output": block.outer,
        }
        for name, layer in layers.items():
            yield f"transformer_layer_{index}/{name}", layer


def _adapter_variables(
    model: keras.Model,
) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the variables that an adapter stores, by name."""
    for path, layer in _low_rank_layers(model):
        if layer.lora_enabled:
            kind = _factor_kind(layer)
            for side in "ab":
                name = f"lora_{kind}_{side}"
                yield f"{path}/{name}", getattr(layer, name)
        if getattr(layer, "bias", None) is not None:
            yield f"{path}/bias", layer.bias
    backbone = model.backbone
    embeddings = encoder_weights.read_embeddings(backbone)
    norms = {"embeddings_layer_norm": embeddings.norm}
    for index, block in enumerate(encoder_weights.read_layers(backbone)):
        prefix = f"transformer_layer_{index}"
        norms[f"{prefix}/attention_norm"] = block.attention_norm
        norms[f"{prefix}/feedforward_norm"] = block.norm
    head = encoder_weights.read_masked_lm_head(model)
    norms["masked_lm_head/layer_norm"] = head.norm
    for path, norm in norms.items():
        yield f"{path}/gamma", norm.gamma
        yield f"{path}/beta", norm.beta
    yield "masked_lm_head/dense/kernel", head.dense.kernel
    yield "masked_lm_head/dense/bias", head.dense.bias
    yield "masked_lm_head/output_bias", head.bias


def _factor_kind(layer: keras.layers.Layer) -> str:
    return next(kind for kind in _FACTORS if hasattr(layer, f"_{kind}"))


def _check_shape(
    filepath: str | os.PathLike, path: str, actual: Any, expected: Any
) -> None:
    if tuple(actual) != tuple(expected):
        raise ValueError(
            f"The adapter {filepath} does not fit at {path!r}: it has shape "
            f"{tuple(actual)}, the model {tuple(expected)}."
        )


def _entries(
    filepath: str | os.PathLike, header: dict[str, str], name: str
) -> dict[str, Any]:
    """Reads a JSON object from an adapter's metadata."""
    try:
        content = json.loads(header[name])
    except (KeyError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"The adapter {filepath} is damaged: `{name}` in its metadata must "
            "be a JSON object."
        )
    return content


def _read_checked(
    filepath: str | os.PathLike, base_sha256: str
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Reads an adapter and checks that it belongs to these weights."""
    header, arrays = _read(filepath)
    if header.get("format_version") != _FORMAT_VERSION:
        raise ValueError(
            f"The adapter {filepath} has format version "
            f"{header.get('format_version')!r:.40}; this version of "
            f"keras_distil reads {_FORMAT_VERSION!r}."
        )
    if header.get("base_sha256") != base_sha256:
        raise ValueError(
            f"The adapter {filepath} belongs to other weights: it was made "
            f"for sha256 {str(header.get('base_sha256'))[:64]}, the teacher's "
            f"is {base_sha256}."
        )
    return header, arrays


def _read(
    filepath: str | os.PathLike,
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    try:
        with safetensors.safe_open(filepath, framework="numpy") as file:
            names = list(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
            return file.metadata() or {}, arrays
    # The last three: a number type that NumPy lacks.
    except (
        OSError,
        safetensors.SafetensorError,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"The adapter {filepath} cannot be read: {str(error)[:200]}."
        ) from error
