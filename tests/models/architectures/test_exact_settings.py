"""Activation and epsilon are a checkpoint's own, in encoder, head and student.

The expected logits are those of Hugging Face's models with these settings.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_distil import data, export, models
from keras_distil.models import encoder_pass
from keras_distil.models.architectures.activations import ACTIVATIONS
from keras_distil.models.encoder_weights import (
    read_embeddings,
    read_layers,
    read_masked_lm_head,
)

SLOW = pytest.mark.slow
GOLDEN = Path(__file__).parents[1] / "golden"
VARIANTS = [
    (name, settings)
    for name in ("bert", "distil_bert")
    for settings in np.load(GOLDEN / name / "variants.npz")
]


def golden_arrays(name):
    arrays = dict(np.load(GOLDEN / name / "outputs.npz"))
    names = ("token_ids", "padding_mask", "segment_ids")
    inputs = {key: arrays[key] for key in names if key in arrays}
    return inputs, arrays["padding_mask"] > 0


@pytest.fixture
def letters(toy_teacher):
    """A tokenizer of as many words as the golden checkpoints have rows."""
    return data.load_tokenizer(toy_teacher)


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_logits_are_hugging_face_s(
    name, settings, edit_checkpoint, all_logits, tmp_path
):
    directory = edit_checkpoint(GOLDEN / name, config=json.loads(settings))
    expected = np.load(GOLDEN / name / "variants.npz")[settings]
    inputs, real = golden_arrays(name)
    model = models.load_teacher(directory)
    # Theirs are float64's.
    np.testing.assert_allclose(
        all_logits(model, inputs)[real], expected[real], atol=1e-4
    )
    assert encoder_pass.is_supported(model.backbone)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(
        all_logits(loaded, inputs)[real], expected[real], atol=1e-4
    )


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_they_matter(name, settings, all_logits):
    """The bound of the test above would notice the family's own settings."""
    expected = np.load(GOLDEN / name / "variants.npz")[settings]
    inputs, real = golden_arrays(name)
    logits = all_logits(models.load_teacher(GOLDEN / name), inputs)
    assert np.abs(logits[real] - expected[real]).max() > 1e-3


def test_a_student_of_all_layers_has_the_activation(
    golden_bert, edit_checkpoint, all_logits
):
    directory = edit_checkpoint(golden_bert, config={"hidden_act": "silu"})
    teacher = models.load_teacher(directory)
    student = models.initialize_student(teacher, 2)
    assert student.backbone.activation == "silu"
    inputs, real = golden_arrays("bert")
    inputs["segment_ids"] = np.zeros_like(inputs["segment_ids"])
    ours = {key: inputs[key] for key in ("token_ids", "padding_mask")}
    np.testing.assert_allclose(
        all_logits(student, ours)[real],
        all_logits(teacher, inputs)[real],
        atol=1e-5,
    )


def test_a_student_whose_family_has_one_epsilon(
    golden_bert, edit_checkpoint, caplog
):
    directory = edit_checkpoint(golden_bert, config={"layer_norm_eps": 1e-3})
    student = models.initialize_student(models.load_teacher(directory), 2)
    assert read_layers(student.backbone)[0].norm.epsilon == 1e-12
    (line,) = caplog.messages
    assert "epsilon of 0.001. A DistilBERT always has 1e-12" in line


def test_they_are_written_and_read_back(
    golden_bert, edit_checkpoint, tmp_path, letters
):
    settings = {"hidden_act": "relu", "layer_norm_eps": 0.01}
    teacher = models.load_teacher(edit_checkpoint(golden_bert, config=settings))
    report = export.export_hugging_face(teacher, tmp_path / "made", letters)
    assert report.comparison.max_difference < 1e-5
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert {name: config[name] for name in settings} == settings


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_in_encoder_and_head(activation):
    backbone = models.ExactBertBackbone(
        vocabulary_size=9,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        intermediate_dim=8,
        max_sequence_length=5,
        activation=activation,
        layer_norm_epsilon=0.5,
    )
    model = models.ExactBertMaskedLM(backbone)
    head = read_masked_lm_head(model)
    (layer,) = read_layers(backbone)
    function = ACTIVATIONS[activation]
    assert layer.inner.activation is function is head.dense.activation
    norms = (
        read_embeddings(backbone).norm,
        layer.attention_norm,
        layer.norm,
        head.norm,
    )
    assert {norm.epsilon for norm in norms} == {0.5}
    assert encoder_pass.is_supported(backbone)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"`activation` .*'gelu'.*'gleu'"):
        models.ExactBertBackbone(9, 1, 1, 4, 8, activation="gleu")


@pytest.mark.parametrize(
    "format_", [pytest.param("litert", marks=SLOW), "onnx"]
)
@pytest.mark.parametrize(
    "activation",
    [
        "silu",
        *(pytest.param(x, marks=SLOW) for x in ("gelu_new", "relu", "tanh")),
    ],
)
def test_exports_compute_with_them(
    golden_bert, edit_checkpoint, tmp_path, letters, format_, activation
):
    if format_ == "onnx":
        pytest.importorskip("onnxruntime")
    directory = edit_checkpoint(golden_bert, config={"hidden_act": activation})
    teacher = models.load_teacher(directory)
    options = {"litert": {"precision": "float32", "lengths": [8]}}
    report = export.export(
        teacher,
        tmp_path / "made",
        letters,
        format=format_,
        **options.get(format_, {}),
    )
    assert report.comparison.max_difference < 1e-3


def test_a_preset_has_no_such_setting(golden_bert, edit_checkpoint, tmp_path):
    directory = edit_checkpoint(golden_bert, config={"hidden_act": "relu"})
    with pytest.raises(ValueError, match="no setting for activation='relu'"):
        export.export_preset(models.load_teacher(directory), tmp_path / "made")
    assert not (tmp_path / "made").exists()
