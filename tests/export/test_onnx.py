"""ONNX files: what they compute, and what is refused."""

import sys

import keras
import keras_hub
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import numpy_helper
from toy import randomize

from keras_distil import export, models
from keras_distil.export import onnx_graph
from keras_distil.export.onnx import load_onnx
from keras_distil.export.student import make_student
from keras_distil.models.encoder_weights import read_layers

TEXTS = ["the cat sat on the mat", "a dog", "no"]


@pytest.fixture(scope="module")
def exported(student, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "export"
    report = export.export_onnx(student, folder, tokenizer, held_out=TEXTS)
    return folder, report


def test_report_and_files(exported):
    folder, report = exported
    assert sorted(path.name for path in folder.iterdir()) == [
        "model.onnx",
        "parity.json",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert report.comparison.top1_agreement == 1.0
    assert report.comparison.max_difference < 1e-4
    assert "Erf" in report.operators and "Gemm" in report.operators
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {
        "kind": "masked_lm",
        "is_probability": "false",
        "labels": "[]",
    }


def test_table_is_stored_once(exported, student):
    folder, _ = exported
    words = student.backbone.vocabulary_size
    graph = onnx.load(folder / "model.onnx").graph
    tables = [
        x for x in graph.initializer if words in x.dims and len(x.dims) == 2
    ]
    assert [tuple(x.dims) for x in tables] == [(words, 16)]
    np.testing.assert_array_equal(
        numpy_helper.to_array(tables[0]),
        student.masked_lm_head.token_embedding.embeddings,
    )


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 9), (2, 24)])
def test_any_shape(exported, student, batch, length):
    folder, _ = exported
    plain = make_student(student)
    generator = np.random.default_rng(0)
    inputs = {
        "token_ids": generator.integers(
            0, plain.model.backbone.vocabulary_size, (batch, length), np.int32
        ),
        "padding_mask": np.ones((batch, length), np.int32),
    }
    inputs["padding_mask"][:, 2:] = generator.integers(0, 2, (batch, 1))
    found = load_onnx(folder / "model.onnx", num_threads=1)(inputs)["logits"]
    expected = plain.outputs(
        {name: tf.constant(value) for name, value in inputs.items()}
    )["logits"].numpy()
    real = inputs["padding_mask"] > 0
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


def test_tasks_of_a_bert(bert, tokenizer, tmp_path):
    model = randomize(models.task_model(bert, "classification", 2), seed=4)
    report = export.export_onnx(
        model, tmp_path / "x", tokenizer, labels=["no", "yes"], held_out=TEXTS
    )
    assert report.comparison.top1_agreement == 1.0
    kept = onnx.load(tmp_path / "x" / "model.onnx").metadata_props
    assert {p.key: p.value for p in kept} == {
        "kind": "classification",
        "is_probability": "false",
        "labels": '["no", "yes"]',
    }


@pytest.mark.parametrize("architecture", ["student", "bert"])
@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("classification", 3),
        ("multi_label", 3),
        ("regression", 1),
        ("token_classification", 3),
        ("span", 2),
    ],
)
def test_every_kind(request, tmp_path, architecture, kind, outputs):
    model = request.getfixturevalue(architecture)
    model = randomize(models.task_model(model, kind, outputs), seed=3)
    report = export.export_onnx(model, tmp_path / "x")
    assert report.comparison.max_difference < 1e-4
    onnx.checker.check_model(str(tmp_path / "x/model.onnx"), full_check=True)


def test_kerashubs_own_gelu(tmp_path):
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
    )
    model = keras_hub.models.BertMaskedLM(backbone)
    report = export.export_onnx(
        randomize(model, seed=3, scale=1.0), tmp_path / "x"
    )
    assert "Tanh" in report.operators
    assert report.comparison.max_difference < 1e-4
    layer = backbone.transformer_layers[0]
    layer._feedforward_intermediate_dense.activation = keras.activations.selu
    with pytest.raises(
        ValueError, match="The activation 'selu' of .* has no c"
    ):
        export.export_onnx(model, tmp_path / "y")


def test_what_fails_is_named_with_its_layer(student, tmp_path, monkeypatch):
    layer = read_layers(student.backbone)[0]
    attend = onnx_graph._attention

    def wrong(graph, computed, *arguments):
        found = attend(graph, computed, *arguments)
        if computed != layer:
            return found
        return graph.add("Mul", found, graph.constant(2.0))

    monkeypatch.setattr(onnx_graph, "_attention", wrong)
    with pytest.raises(
        export.ParityError, match=f"The ONNX model .* at `{layer.name}`"
    ):
        export.export_onnx(student, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_without_the_extra(student, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-distil\[onnx\]"):
        export.export_onnx(student, tmp_path / "x")
