import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_distil.models.checkpoints import list_tensors

VALUES = np.array([1.0, -0.5, 3.0], "float32")


def write_shards(directory, shards, weight_map=None):
    """Writes one file per shard, and the index."""
    for name, tensors in shards.items():
        save_file(tensors, directory / name)
    if weight_map is None:
        weight_map = {
            tensor: name
            for name, tensors in shards.items()
            for tensor in tensors
        }
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16]
)
def test_every_float_type_is_read_as_float32(tmp_path, dtype):
    save_file({"a": VALUES.astype(dtype)}, tmp_path / "model.safetensors")
    tensor = list_tensors(tmp_path)["a"]
    assert tensor.shape == (3,)
    assert tensor.read().dtype == np.float32
    # Exact in all four types.
    np.testing.assert_array_equal(tensor.read(), VALUES)


def test_integers_are_refused(tmp_path):
    save_file({"a": np.arange(3)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="`a` in .*must be one of.*I64"):
        list_tensors(tmp_path)["a"].read()


def test_shards_are_joined(tmp_path):
    write_shards(
        tmp_path,
        {
            "model-00001-of-00002.safetensors": {"a": VALUES},
            "model-00002-of-00002.safetensors": {"b": 2 * VALUES},
        },
    )
    tensors = list_tensors(tmp_path)
    np.testing.assert_array_equal(tensors["a"].read(), VALUES)
    np.testing.assert_array_equal(tensors["b"].read(), 2 * VALUES)


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors",
        "/secret.safetensors",
        "sub/a.safetensors",
        "a.bin",
    ],
)
def test_shards_stay_beside_the_index(tmp_path, shard):
    write_shards(tmp_path, {}, {"a": shard})
    with pytest.raises(
        ValueError, match=r"must name .*in its folder.*Received"
    ):
        list_tensors(tmp_path)


def test_missing_shard(tmp_path):
    write_shards(tmp_path, {}, {"a": "model-1.safetensors"})
    with pytest.raises(ValueError, match="`model-1.safetensors`, which is mis"):
        list_tensors(tmp_path)


def test_tensor_missing_from_its_shard(tmp_path):
    write_shards(
        tmp_path,
        {"model-1.safetensors": {"a": VALUES}},
        {"a": "model-1.safetensors", "b": "model-1.safetensors"},
    )
    with pytest.raises(ValueError, match="places `b` in `model-1.safet"):
        list_tensors(tmp_path)


def test_tensor_in_two_shards(tmp_path):
    write_shards(
        tmp_path,
        {"1.safetensors": {"a": VALUES}, "2.safetensors": {"a": VALUES}},
        {"a": "1.safetensors", "b": "2.safetensors"},
    )
    with pytest.raises(ValueError, match="`a` is in two shards"):
        list_tensors(tmp_path)


def test_index_without_a_map(tmp_path):
    write_shards(tmp_path, {}, {})
    with pytest.raises(ValueError, match="has no `weight_map`"):
        list_tensors(tmp_path)


def test_truncated_file(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": VALUES}, file)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match="safetensors` is damaged or trunc"):
        list_tensors(tmp_path)


@pytest.mark.parametrize(
    "files, message",
    [
        (
            ["pytorch_model.bin"],
            "only `pytorch_model.bin`, a pickle.*python -c",
        ),
        (
            ["pytorch_model.bin.index.json", "pytorch_model-1.bin"],
            "only `pytorch_model.bin.index.json`, a pickle.*python -c",
        ),
        (
            ["pytorch_model.bin.index.json"],
            "names `pytorch_model-1.bin`, which is missing",
        ),
        (["tf_model.h5"], "TensorFlow's `tf_model.h5`.*python -c"),
        (["flax_model.msgpack"], "Flax's `flax_model.msgpack`.*python -c"),
        (
            ["model.onnx", "notes.txt"],
            "neither .* has: config.json, model.onnx, notes.txt",
        ),
    ],
)
def test_other_formats_are_refused_with_the_remedy(tmp_path, files, message):
    (tmp_path / "config.json").write_text(
        '{"architectures": ["BertForMaskedLM"]}'
    )
    weight_map = {"weight_map": {"a": "pytorch_model-1.bin"}}
    for name in files:
        (tmp_path / name).write_text(json.dumps(weight_map))
    with pytest.raises(ValueError, match=message) as refused:
        list_tensors(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_format_of_an_unknown_class_is_not_converted_blindly(tmp_path):
    (tmp_path / "tf_model.h5").write_text("")
    with pytest.raises(ValueError, match="`architectures` in .* must name"):
        list_tensors(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(ValueError, match="neither `model.safetensors` nor"):
        list_tensors(tmp_path)
