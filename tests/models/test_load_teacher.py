import json
import logging
import os
import random
import sys
import zipfile

import keras
import keras_hub
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_distil import models

# The submodule; `models.load_teacher` is the function of the same name.
MODULE = sys.modules["keras_distil.models.load_teacher"]


def golden_outputs(directory):
    with np.load(directory / "outputs.npz", allow_pickle=False) as file:
        outputs = dict(file)
    expected = {k: outputs.pop(k) for k in ("logits", "hidden_states")}
    return outputs, expected


def bare(tensors):
    """The tensors of an encoder without its masked-LM head."""
    head = ("cls.", "vocab_")
    return {k: v for k, v in tensors.items() if not k.startswith(head)}


def fresh_like_initializer(kernel):
    """Whether values look drawn from a truncated normal of 0.02."""
    # Truncated at two standard deviations.
    return 0.01 < np.std(kernel) < 0.03 and np.abs(kernel).max() <= 0.04


# === Hugging Face directories ===


@pytest.mark.parametrize("name", ["golden_bert", "golden_distil_bert"])
def test_outputs_equal_hugging_face(name, request, all_logits):
    directory = request.getfixturevalue(name)
    inputs, expected = golden_outputs(directory)
    teacher = models.load_teacher(directory)
    hidden_states = teacher.backbone(inputs)
    if isinstance(hidden_states, dict):
        hidden_states = hidden_states["sequence_output"]
    # Another library's float32 sums; the values are of order 1 to 10.
    tolerance = {"atol": 1e-4, "rtol": 1e-5}
    np.testing.assert_allclose(
        hidden_states, expected["hidden_states"], **tolerance
    )
    np.testing.assert_allclose(
        all_logits(teacher, inputs), expected["logits"], **tolerance
    )


@pytest.mark.parametrize("convert", [str, os.fspath, lambda path: path])
def test_source_may_be_a_string_or_a_path(golden_bert, convert):
    teacher = models.load_teacher(convert(golden_bert))
    assert type(teacher) is models.ExactBertMaskedLM
    assert teacher.preprocessor is None


def test_half_precision_weights(golden_bert, edit_checkpoint):
    def halved(tensors):
        return {k: v.astype("float16") for k, v in tensors.items()}

    directory = edit_checkpoint(golden_bert, tensors=halved)
    teacher = models.load_teacher(directory)
    stored = load_file(directory / "model.safetensors")
    embeddings = teacher.backbone.token_embedding.embeddings
    assert embeddings.dtype == "float32"
    np.testing.assert_array_equal(
        embeddings, stored["bert.embeddings.word_embeddings.weight"]
    )


@pytest.mark.parametrize(
    "dtype, compute, variable",
    [
        ("mixed_bfloat16", "bfloat16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_dtype_reaches_every_layer(golden_bert, dtype, compute, variable):
    teacher = models.load_teacher(golden_bert, dtype=dtype)
    assert teacher.backbone.compute_dtype == compute
    assert teacher.masked_lm_head.compute_dtype == compute
    assert {v.dtype for v in teacher.weights} == {variable}


def test_missing_pooler_is_zero_and_logged(golden_bert, caplog):
    with caplog.at_level(logging.INFO, "keras_distil"):
        teacher = models.load_teacher(golden_bert)
    for value in teacher.backbone.pooled_dense.get_weights():
        np.testing.assert_array_equal(value, np.zeros_like(value))
    assert "has no pooler" in caplog.text


def test_stored_pooler_is_loaded(golden_bert, edit_checkpoint, caplog):
    kernel = np.arange(256, dtype="float32").reshape(16, 16)
    directory = edit_checkpoint(
        golden_bert,
        tensors=lambda tensors: (
            tensors
            | {
                "bert.pooler.dense.weight": kernel,
                "bert.pooler.dense.bias": np.ones(16, "float32"),
            }
        ),
    )
    with caplog.at_level(logging.INFO, "keras_distil"):
        teacher = models.load_teacher(directory)
    pooler = teacher.backbone.pooled_dense
    np.testing.assert_array_equal(pooler.kernel, kernel.T)
    np.testing.assert_array_equal(pooler.bias, np.ones(16))
    assert caplog.text == ""


@pytest.mark.parametrize("name", ["golden_bert", "golden_distil_bert"])
def test_no_head_is_an_error(name, request, edit_checkpoint):
    directory = edit_checkpoint(request.getfixturevalue(name), tensors=bare)
    with pytest.raises(ValueError, match="no masked-LM head.*allow_new_head="):
        models.load_teacher(directory)


def test_new_head(golden_bert, edit_checkpoint, caplog):
    directory = edit_checkpoint(golden_bert, tensors=bare)
    with caplog.at_level(logging.INFO, "keras_distil"):
        teacher = models.load_teacher(directory, allow_new_head=True)
    assert "no masked-LM head: it gets a new one" in caplog.text
    head = teacher.masked_lm_head
    kernel, bias = head._intermediate_dense.get_weights()
    assert fresh_like_initializer(kernel)
    gamma, beta = head._intermediate_layer_norm.get_weights()
    np.testing.assert_array_equal(gamma, np.ones(16))
    for zero in (bias, beta, np.asarray(head._bias)):
        np.testing.assert_array_equal(zero, np.zeros_like(zero))


def test_new_head_depends_on_the_seed_alone(golden_bert, edit_checkpoint):
    directory = edit_checkpoint(golden_bert, tensors=bare)

    def kernel(seed):
        teacher = models.load_teacher(directory, allow_new_head=True, seed=seed)
        return np.asarray(teacher.masked_lm_head._intermediate_dense.kernel)

    keras.utils.set_random_seed(1)
    first = kernel(7)
    keras.utils.set_random_seed(2)
    state = random.getstate()
    np.testing.assert_array_equal(kernel(7), first)
    assert random.getstate() == state
    assert np.abs(kernel(8) - first).max() > 1e-3


# === Hugging Face Hub ===


def test_hub_source(golden_bert, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, allow_patterns: str(golden_bert),
    )
    teacher = models.load_teacher("hf://someone/tiny-bert")
    assert teacher.backbone.num_layers == 2
    assert models.checkpoint_directory("hf://someone/tiny") == golden_bert


def test_hub_source_of_keras_hub(toy_bert, tmp_path, monkeypatch):
    toy_bert.save_to_preset(tmp_path / "preset")
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, allow_patterns: str(tmp_path / "preset"),
    )
    asked = []

    def load_preset(source, **options):
        asked.append(source)

    monkeypatch.setattr(MODULE, "_load_preset", load_preset)
    models.load_teacher("hf://someone/preset")
    assert asked == ["hf://someone/preset"]


# === KerasHub presets ===


@pytest.fixture
def stock_preset(tmp_path):
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=32,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=12,
    )
    model = keras_hub.models.BertMaskedLM(backbone)
    model.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset", model


def test_preset_keeps_the_stock_classes(stock_preset, all_logits, bert_inputs):
    directory, saved = stock_preset
    teacher = models.load_teacher(directory)
    assert type(teacher) is keras_hub.models.BertMaskedLM
    assert type(teacher.backbone) is keras_hub.models.BertBackbone
    np.testing.assert_array_equal(
        all_logits(teacher, bert_inputs), all_logits(saved, bert_inputs)
    )
    assert models.checkpoint_directory(directory) == directory


def test_preset_of_our_classes(toy_distil_bert, tmp_path, all_logits, inputs):
    toy_distil_bert.save_to_preset(tmp_path / "preset")
    teacher = models.load_teacher(tmp_path / "preset")
    assert type(teacher) is models.ExactDistilBertMaskedLM
    np.testing.assert_array_equal(
        all_logits(teacher, inputs), all_logits(toy_distil_bert, inputs)
    )


def test_preset_of_a_distil_bert_backbone(toy_distil_bert, tmp_path):
    toy_distil_bert.backbone.save_to_preset(tmp_path / "preset")
    teacher = models.load_teacher(tmp_path / "preset", allow_new_head=True)
    assert type(teacher) is keras_hub.models.DistilBertMaskedLM


@pytest.mark.parametrize("missing", ["task.weights.h5", "task.json"])
def test_preset_without_a_head(stock_preset, missing, caplog):
    directory, _ = stock_preset
    (directory / missing).unlink()
    with pytest.raises(ValueError, match="no masked-LM head.*allow_new_head="):
        models.load_teacher(directory)
    with caplog.at_level(logging.INFO, "keras_distil"):
        teacher = models.load_teacher(directory, allow_new_head=True)
    assert type(teacher) is keras_hub.models.BertMaskedLM
    assert "gets a new one" in caplog.text


def test_preset_of_another_task(toy_bert, tmp_path):
    classifier = keras_hub.models.BertTextClassifier(
        toy_bert.backbone, num_classes=2
    )
    classifier.save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match="no masked-LM head"):
        models.load_teacher(tmp_path / "preset")


def test_preset_in_bfloat16(stock_preset):
    directory, _ = stock_preset
    teacher = models.load_teacher(directory, dtype="mixed_bfloat16")
    assert teacher.backbone.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "source", ["bert_tiny_en_uncased", "kaggle://keras/bert/keras/absent"]
)
def test_preset_that_can_not_be_downloaded(source, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host\nmore lines")

    monkeypatch.setattr(keras_hub.models.MaskedLM, "from_preset", fail)
    message = f"Could not load the preset '{source}': no route to host. Check"
    with pytest.raises(ConnectionError, match=message):
        models.load_teacher(source)


def test_a_preset_that_is_downloaded_but_broken(monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("a layer has no weights")

    monkeypatch.setattr(keras_hub.models.MaskedLM, "from_preset", fail)
    message = "`bert_tiny_en_uncased` cannot be loaded: a layer has no weights."
    with pytest.raises(ValueError, match=message) as raised:
        models.load_teacher("bert_tiny_en_uncased")
    assert "network" not in str(raised.value)


def test_a_broken_local_preset_is_reported(stock_preset):
    directory, _ = stock_preset
    (directory / "model.weights.h5").unlink()
    with pytest.raises(ValueError, match="cannot be loaded: .*doesn't exist"):
        models.load_teacher(directory)


# === .keras files ===


def test_keras_file(toy_bert, tmp_path, all_logits, bert_inputs):
    toy_bert.save(tmp_path / "teacher.keras")
    teacher = models.load_teacher(tmp_path / "teacher.keras")
    assert type(teacher) is models.ExactBertMaskedLM
    np.testing.assert_array_equal(
        all_logits(teacher, bert_inputs), all_logits(toy_bert, bert_inputs)
    )


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_keras_file_in_another_dtype(name, request, tmp_path):
    saved = request.getfixturevalue(name)
    saved.save(tmp_path / "teacher.keras")
    teacher = models.load_teacher(
        tmp_path / "teacher.keras", dtype="mixed_bfloat16"
    )
    assert type(teacher) is type(saved)
    assert teacher.backbone.compute_dtype == "bfloat16"
    for old, new in zip(saved.weights, teacher.weights, strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("name", ["teacher.h5", "teacher.pkl", "a.bin", "a.pt"])
def test_unsafe_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=f"{name}` is not loaded.*safetens"):
        models.load_teacher(tmp_path / name)


def test_missing_keras_file(tmp_path):
    with pytest.raises(ValueError, match="no file .*teacher.keras"):
        models.load_teacher(tmp_path / "teacher.keras")


def test_damaged_keras_file(tmp_path):
    (tmp_path / "teacher.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="damaged or truncated"):
        models.load_teacher(tmp_path / "teacher.keras")


def test_keras_file_of_another_model(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="must hold a .*masked-LM.*Sequential"):
        models.load_teacher(tmp_path / "other.keras")


def test_keras_file_with_code_is_refused(tmp_path):
    layers = [keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]
    keras.Sequential(layers).save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="masked-LM model. Received: Seq"):
        models.load_teacher(tmp_path / "code.keras")


def rewrite_archive(source, target, change, **more):
    """Copies a `.keras` file with another configuration and more members."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    values = json.loads(members["config.json"])
    change(values)
    members["config.json"] = json.dumps(values).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in {**members, **more}.items():
            archive.writestr(name, member)
    return target


def test_code_inside_a_keras_file_is_refused(toy_bert, tmp_path):
    toy_bert.save(tmp_path / "good.keras")
    layers = [keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]
    code = keras.saving.serialize_keras_object(keras.Sequential(layers))
    path = rewrite_archive(
        tmp_path / "good.keras",
        tmp_path / "bad.keras",
        lambda values: values["config"].update(backbone=code),
    )
    with pytest.raises(
        ValueError, match="bad.keras` cannot be loaded: .*ambda"
    ):
        models.load_teacher(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"../escaped": b"x"}, "member '../escaped' would be unpacked outside"),
        ({"assets/../../a": b"x"}, "would be unpacked outside of its folder"),
        ({"/escaped": b"x"}, "would be unpacked outside of its folder"),
        ({"assets/a": bytes(30 * 2**20)}, r"bytes would be unpacked to \d+"),
        ({"config.json": b"{"}, "damaged or truncated: Expecting"),
    ],
)
def test_hostile_archives_are_refused(toy_bert, tmp_path, more, message):
    toy_bert.save(tmp_path / "good.keras")
    path = rewrite_archive(
        tmp_path / "good.keras", tmp_path / "bad.keras", lambda _: None, **more
    )
    with pytest.raises(ValueError, match=f"bad.keras` is .*{message}"):
        models.load_teacher(path)
    assert len(list(tmp_path.rglob("*"))) == 2


def test_sizes_that_the_weights_do_not_have_are_refused(toy_bert, tmp_path):
    toy_bert.save(tmp_path / "good.keras")

    def enlarge(values):
        values["config"]["backbone"]["config"]["vocabulary_size"] = 10**6

    path = rewrite_archive(
        tmp_path / "good.keras", tmp_path / "bad.keras", enlarge
    )
    with pytest.raises(ValueError, match="vocabulary_size=1000000, more than"):
        models.load_teacher(path)


# === Live models and everything else ===


def test_live_model_is_returned_as_it_is(toy_bert):
    assert models.load_teacher(toy_bert) is toy_bert
    assert models.load_teacher(toy_bert, dtype="float32") is toy_bert
    assert models.checkpoint_directory(toy_bert) is None


def test_live_model_keeps_its_dtype(toy_bert):
    message = "`dtype` must be None .*'bfloat16'.*model of 'float32'"
    with pytest.raises(ValueError, match=message):
        models.load_teacher(toy_bert, dtype="bfloat16")


def test_live_model_of_another_kind(toy_bert):
    message = "must be a `keras_hub.models.MaskedLM`.*ExactBertBackbone"
    with pytest.raises(TypeError, match=message):
        models.load_teacher(toy_bert.backbone)


def test_source_of_another_type():
    with pytest.raises(TypeError, match="`source` must be .*Received: int"):
        models.load_teacher(3)


def test_unknown_source():
    message = (
        "`source` must be a local Hugging Face directory.*"
        "'bert_base_en_uncase'.*mean 'bert_base_en_uncased'"
    )
    with pytest.raises(ValueError, match=message):
        models.load_teacher("bert_base_en_uncase")
    with pytest.raises(ValueError, match="known preset.$"):
        models.load_teacher("/no/such/path")


def test_directory_without_a_model(tmp_path):
    with pytest.raises(ValueError, match="no `config.json`"):
        models.load_teacher(tmp_path)


def test_unknown_task(toy_bert):
    with pytest.raises(ValueError, match=r"\['masked_lm'\].*task='nonsense'"):
        models.load_teacher(toy_bert, task="nonsense")


def test_checkpoint_directory_of_files_and_names(tmp_path):
    assert models.checkpoint_directory(tmp_path / "a.keras") is None
    assert models.checkpoint_directory("bert_base_en") is None


def test_sharded_checkpoint(golden_bert, tmp_path, all_logits):
    tensors = load_file(golden_bert / "model.safetensors")
    names = sorted(tensors)
    shards = {
        "model-1.safetensors": names[:9],
        "model-2.safetensors": names[9:],
    }
    weight_map = {}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, tmp_path / shard)
        weight_map |= dict.fromkeys(members, shard)
    index = str({"weight_map": weight_map}).replace("'", '"')
    (tmp_path / "model.safetensors.index.json").write_text(index)
    config = (golden_bert / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    inputs, expected = golden_outputs(golden_bert)
    np.testing.assert_allclose(
        all_logits(models.load_teacher(tmp_path), inputs),
        expected["logits"],
        atol=1e-4,
        rtol=1e-5,
    )
