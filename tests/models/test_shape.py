import dataclasses
import json
import zipfile

import keras
import keras_hub
import pytest

from keras_distil import models
from keras_distil.benchmark import parameter_count
from keras_distil.models import shape as shape_module
from keras_distil.models.shape import EncoderShape, encoder_shape, student_shape

BERT_BASE = EncoderShape(
    "bert",
    vocabulary_size=30522,
    num_layers=12,
    num_heads=12,
    hidden_dim=768,
    intermediate_dim=3072,
    max_sequence_length=512,
    num_segments=2,
)
# Of the files in `golden/bert`.
GOLDEN_BERT = EncoderShape(
    "bert",
    vocabulary_size=64,
    num_layers=2,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=12,
    num_segments=2,
)
GOLDEN_DISTIL_BERT = dataclasses.replace(
    GOLDEN_BERT, architecture="distilbert", num_segments=0
)


def shape_of(model):
    """The sizes of the built model itself."""
    backbone = model.backbone
    is_bert = isinstance(backbone, keras_hub.models.BertBackbone)
    return EncoderShape(
        "bert" if is_bert else "distilbert",
        vocabulary_size=backbone.vocabulary_size,
        num_layers=backbone.num_layers,
        num_heads=backbone.num_heads,
        hidden_dim=backbone.hidden_dim,
        intermediate_dim=backbone.intermediate_dim,
        max_sequence_length=backbone.max_sequence_length,
        num_segments=backbone.num_segments if is_bert else 0,
    )


@pytest.fixture
def no_hub(monkeypatch):
    """A Hub that has nothing cached and cannot be reached."""

    def fail(repository, filename):
        raise OSError("no route to host\ndetails")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *args: None
    )


def test_parameters_are_those_of_built_models(toy_bert, toy_distil_bert):
    for model in (toy_bert, toy_distil_bert):
        assert shape_of(model).parameters == parameter_count(model)


def test_parameters_of_the_published_models():
    # KerasHub's BERT-base has 109,482,240 weights; the head a dense layer, a
    # layer normalisation and a bias per word.
    head = 768 * 768 + 768 + 2 * 768 + 30522
    assert BERT_BASE.parameters == 109_482_240 + head == 110_104_890
    # KerasHub's DistilBERT-base has 66,362,880.
    assert student_shape(BERT_BASE).parameters == 66_362_880 + head


def test_flops_are_twice_the_weights_and_attention():
    # BERT-base has 84,934,656 weights in the matrices of its layers.
    assert BERT_BASE.flops_per_token(0) == 2 * 84_934_656
    # Scores and weighted sum: 2 products of 768 for each other token, and
    # layer.
    attention = BERT_BASE.flops_per_token(128) - BERT_BASE.flops_per_token(0)
    assert attention == 12 * 128 * 2 * 2 * 768
    assert BERT_BASE.head_flops_per_token == 2 * 768 * (768 + 30522)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 3},
        {"layers": [0, 3, 1]},
        {"num_layers": 1, "layers": "last"},
        {"hidden_dim": 4},
        {"hidden_dim": 12, "num_heads": 3, "intermediate_dim": 5},
    ],
)
def test_student_shape_is_what_is_built(toy_bert, options):
    student = models.initialize_student(toy_bert, **options)
    expected = shape_of(student)
    assert student_shape(shape_of(toy_bert), **options) == expected
    assert expected.parameters == parameter_count(student)


def test_impossible_student():
    with pytest.raises(ValueError, match="`num_layers` must be from 1 to"):
        student_shape(BERT_BASE, 13)
    with pytest.raises(ValueError, match="`hidden_dim` must be divisible"):
        student_shape(BERT_BASE, hidden_dim=100)
    with pytest.raises(TypeError, match="`hidden_dim` must be an integer"):
        student_shape(BERT_BASE, hidden_dim=1.5)


def test_hugging_face_directory(golden_bert, golden_distil_bert):
    assert encoder_shape(golden_bert) == (
        GOLDEN_BERT,
        str(golden_bert / "config.json"),
    )
    shape, _ = encoder_shape(str(golden_distil_bert))
    assert shape == GOLDEN_DISTIL_BERT


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_keras_hub_directory_and_file(tmp_path, request, name):
    model = request.getfixturevalue(name)
    preset, file = tmp_path / "preset", tmp_path / "model.keras"
    model.backbone.save_to_preset(preset)
    model.save(file)
    assert encoder_shape(preset) == (
        shape_of(model),
        str(preset / "config.json"),
    )
    assert encoder_shape(file) == (shape_of(model), str(file))


@pytest.mark.parametrize("source", ["embedded", "embedded_base"])
def test_embedded(golden_bert, monkeypatch, source):
    monkeypatch.setattr(shape_module, "embedded_directory", lambda: golden_bert)
    assert encoder_shape(source) == (
        GOLDEN_BERT,
        "config.json of the embedded teacher",
    )


def test_hub_downloads_the_configuration_only(no_hub, golden_bert, monkeypatch):
    asked = []

    def download(repository, filename):
        asked.append((repository, filename))
        return str(golden_bert / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert encoder_shape("hf://someone/bert") == (
        GOLDEN_BERT,
        "config.json of hf://someone/bert",
    )
    assert asked == [("someone/bert", "config.json")]


def test_hub_cache_comes_first(no_hub, golden_bert, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, filename: str(golden_bert / filename),
    )
    shape, found = encoder_shape("hf://google-bert/bert-base-uncased")
    assert shape == GOLDEN_BERT
    assert found == "config.json of hf://google-bert/bert-base-uncased"


@pytest.mark.parametrize(
    ("repository", "millions"),
    [
        ("google-bert/bert-base-uncased", 110.1),
        ("google-bert/bert-base-cased", 108.9),
        ("google-bert/bert-large-uncased", 336.2),
        ("distilbert/distilbert-base-uncased", 67.0),
    ],
)
def test_published_shapes_need_no_network(no_hub, repository, millions):
    shape, found = encoder_shape(f"hf://{repository}")
    name = repository.rpartition("/")[2]
    assert found == f"published shape of {name}, not downloaded"
    assert shape.parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_hub_out_of_reach(no_hub):
    message = "config.json of 'hf://a/b': no route to host. Check the name"
    with pytest.raises(ConnectionError, match=message) as raised:
        encoder_shape("hf://a/b")
    assert "\n" not in str(raised.value)


def test_unknown_source(tmp_path):
    with pytest.raises(ValueError, match="`source` must be a local directory"):
        encoder_shape(tmp_path / "nowhere")
    # The shape of a preset is that of its config.json, which is downloaded.
    with pytest.raises(
        ValueError, match="Received: 'bert_base_e'. Did you mean 'bert_base_en'"
    ):
        encoder_shape("bert_base_e")


def test_directory_of_another_kind(tmp_path):
    with pytest.raises(ValueError, match="has no `config.json`"):
        encoder_shape(tmp_path)
    text = json.dumps({"registered_name": "x", "class_name": "GPT2Backbone"})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="one of .* Received: 'GPT2Backbone'"):
        encoder_shape(tmp_path)


def test_keras_file_of_another_model(tmp_path):
    file = tmp_path / "other.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(file)
    with pytest.raises(ValueError, match="masked-LM model. Received: Seq"):
        encoder_shape(file)


def test_broken_keras_file(tmp_path):
    file = tmp_path / "broken.keras"
    for write in (
        lambda: None,  # no file at all
        lambda: file.write_bytes(b"no archive"),
        lambda: zipfile.ZipFile(file, "w").close(),
    ):
        write()
        with pytest.raises(
            ValueError, match="must be a `.keras` archive|is damaged or trunc"
        ):
            encoder_shape(file)
