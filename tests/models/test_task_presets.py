"""Presets of models of tasks: folders, names, labels, kinds."""

import json
import shutil
from pathlib import Path

import kagglehub
import keras
import keras_hub
import numpy as np
import pytest
from toy import SIZES, randomize

from keras_distil import models
from keras_distil.models import presets
from keras_distil.models.labels import labels_of
from keras_distil.models.shape import encoder_shape
from keras_distil.models.task_model import kind_of
from keras_distil.models.task_presets import leaves_kind_open
from keras_distil.runs.corpus import model_directory

NAME = "bert_tiny_en_uncased_sst2"
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *map(chr, range(97, 123)),
]
INPUTS = {
    "token_ids": np.array([[2, 5, 6, 3], [2, 7, 3, 0]], "int32"),
    "segment_ids": np.zeros((2, 4), "int32"),
    "padding_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], "int32"),
}


def hub_classifier(outputs=3, activation=None, tokens=False):
    """A classifier of KerasHub's own classes, which know no labels."""
    preprocessor = None
    if tokens:
        preprocessor = keras_hub.models.BertTextClassifierPreprocessor(
            keras_hub.models.BertTokenizer(vocabulary=WORDS, lowercase=True),
            sequence_length=8,
        )
    sizes = {**SIZES, "num_layers": 1, "dropout": 0.0}
    model = keras_hub.models.BertTextClassifier(
        keras_hub.models.BertBackbone(**sizes),
        num_classes=outputs,
        activation=activation,
        preprocessor=preprocessor,
    )
    return randomize(model, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "preset"
    hub_classifier(tokens=True).save_to_preset(str(path))
    return path


def test_keras_hub_s_own_classifier_keeps_its_weights_and_gets_labels(
    folder, tmp_path
):
    expected = keras_hub.models.TextClassifier.from_preset(
        str(folder), preprocessor=None
    )(INPUTS)
    model = models.load_task_model(folder)
    assert labels_of(model) is None and kind_of(model) == "classification"
    np.testing.assert_array_equal(model(INPUTS), expected)
    own = shutil.copytree(folder, tmp_path / "own")
    (own / "labels.json").write_text('["good", "bad", "so so"]')
    model = models.load_task_model(own)
    # They are saved with the model.
    model.save(tmp_path / "model.keras")
    for each in (model, models.load_task_model(tmp_path / "model.keras")):
        assert labels_of(each) == ("good", "bad", "so so")
        np.testing.assert_array_equal(each(INPUTS), expected)


@pytest.mark.parametrize(
    ("outputs", "activation", "kind"),
    [
        (3, "softmax", "classification"),
        (3, "sigmoid", "multi_label"),
        (1, "sigmoid", "regression"),
        (1, None, "regression"),
    ],
)
def test_the_last_layer_says_the_kind(outputs, activation, kind, tmp_path):
    made = hub_classifier(outputs, activation)
    made.save_to_preset(str(tmp_path / "preset"))
    model = models.load_task_model(tmp_path / "preset")
    assert kind_of(model) == kind
    assert model.is_probability is (outputs == 1 and activation is not None)
    found = model(INPUTS)
    if activation == "sigmoid":
        found = keras.ops.sigmoid(found)
    np.testing.assert_allclose(found, made(INPUTS), rtol=1e-6)
    assert not leaves_kind_open(model)


def test_which_presets_leave_the_kind_open(folder, tmp_path):
    assert leaves_kind_open(models.load_task_model(folder))
    ours = models.task_model(
        models.ExactBertBackbone(**SIZES), "classification", 2
    )
    assert not leaves_kind_open(ours)
    # Our own classes say it.
    ours.save_to_preset(str(tmp_path / "ours"))
    assert not leaves_kind_open(models.load_task_model(tmp_path / "ours"))


@pytest.mark.parametrize(
    "content", ['["a", "b"]', '["a", "a", "b"]', "{}", "[1, 2, 3]", "[", "nul"]
)
def test_bad_labels_are_one_line(content, folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    (own / "labels.json").write_text(content)
    with pytest.raises(
        ValueError, match="a list of 3 names, one for each"
    ) as e:
        models.load_task_model(own)
    assert str(own / "labels.json") in str(e.value)
    assert "\n" not in str(e.value)


def test_a_preset_without_a_head_is_one_line(folder, tmp_path):
    model = models.load_task_model(folder)
    model.backbone.save_to_preset(str(tmp_path / "encoder"))
    with pytest.raises(ValueError, match="Received: an encoder without a head"):
        models.load_task_model(tmp_path / "encoder")
    own = shutil.copytree(folder, tmp_path / "own")
    (own / "task.weights.h5").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be loaded: ") as caught:
        models.load_task_model(own)
    assert "\n" not in str(caught.value)


@pytest.fixture
def kaggle(folder, monkeypatch):
    """Kaggle's client, with one preset in its cache. Records the files."""
    asked = []

    def download(handle, path):
        asked.append((handle, path))
        if not (folder / path).is_file():
            raise ValueError(f"{path} is not present in the model files")
        return str(folder / path)

    monkeypatch.setattr(kagglehub, "model_download", download)
    return asked


@pytest.mark.parametrize(
    "source", [NAME, f"kaggle://keras/bert/keras/{NAME}/5"]
)
def test_a_preset_by_name(source, folder, kaggle):
    shape, origin = encoder_shape(source)
    assert shape.num_layers == 1 and origin == f"config.json of {source}"
    assert [path for _, path in kaggle] == ["config.json"]
    assert model_directory(source) == folder
    model = models.load_task_model(source)
    np.testing.assert_array_equal(
        model(INPUTS), models.load_task_model(folder)(INPUTS)
    )
    assert {handle.partition(NAME)[0] for handle, _ in kaggle} == {
        "keras/bert/keras/"
    }
    # A folder of that name comes first.
    assert presets.fetch_preset(str(folder)) is None


def test_a_preset_on_the_hugging_face_hub(folder, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *a, **k: str(folder)
    )
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda repo_id, filename: str(folder / filename),
    )
    model = models.load_task_model("hf://someone/tiny")
    np.testing.assert_array_equal(
        model(INPUTS), models.load_task_model(folder)(INPUTS)
    )


def test_names_that_are_none_and_downloads_that_fail(monkeypatch):
    with pytest.raises(ValueError, match=f"Did you mean '{NAME}'") as caught:
        encoder_shape("bert_tiny_en_uncased_sst")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        FileNotFoundError,
        match=rf"no model bert_tiny_en_uncased_sst. Did you mean '{NAME}'\?$",
    ):
        models.load_task_model("bert_tiny_en_uncased_sst")
    with pytest.raises(ValueError, match="preset of Albert, a family that is "):
        models.load_task_model("albert_base_en_uncased")

    def refuse(handle, path):
        raise ConnectionResetError("no route\nto the host")

    monkeypatch.setattr(kagglehub, "model_download", refuse)
    for call in (models.load_task_model, encoder_shape, model_directory):
        with pytest.raises(
            ConnectionError, match="Could not load the pre"
        ) as e:
            call(NAME)
        assert "\n" not in str(e.value)


def test_names_of_the_files(folder):
    names = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
    }
    assert {"config.json", "task.json", "model.weights.h5"} <= names
    assert str(Path("assets", "tokenizer", "vocabulary.txt")) in names
    assert json.loads((folder / "task.json").read_text())[
        "registered_name"
    ].startswith("keras_hub>")
