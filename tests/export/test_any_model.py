"""Exports of Keras models that are no encoders of text."""

import any_models
import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from ai_edge_litert.interpreter import Interpreter

from keras_distil import Distiller, export, losses
from keras_distil.export import any_model

X, _, _ = any_models.make_batch(40, (4, 4, 2))
FEATURES, _, _ = any_models.make_batch(40)


@pytest.fixture(autouse=True)
def convert_here(monkeypatch):
    toy.convert_litert_here(monkeypatch)


def make_trained():
    """A convolutional net with statistics, after one update."""
    student = any_models.make_convnet(3, seed=2, norm=True, dropout=0.3)
    distiller = Distiller(None, student, [losses.LabelCrossentropy()])
    distiller.compile("sgd")
    distiller.train_on_batch(*any_models.make_batch(6, (4, 4, 2)))
    return student


def make_two_inputs():
    inputs = {
        "one": keras.Input((5,), name="one"),
        "other": keras.Input((5,), name="other"),
    }
    both = keras.layers.Concatenate()([inputs["other"], inputs["one"]])
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(both))
    return toy.randomize(model, seed=1)


def make_words():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(300, 64),
            keras.layers.LSTM(8),
            keras.layers.Dense(3),
        ]
    )
    return toy.randomize(model, seed=1)


def run_litert(folder, inputs):
    interpreter = Interpreter(str(folder / "student.tflite"))
    run = interpreter.get_signature_runner("serving_default")
    return np.concatenate([run(input=x[None])["output"] for x in inputs])


def test_saved_model(tmp_path):
    """Batch statistics are those of inference, and the batch is free."""
    student = make_trained()
    report = export.export_saved_model(student, tmp_path / "made", held_out=X)
    assert report.format == "saved_model"
    assert report.comparison.spread_share < 1e-5
    served = tf.saved_model.load(tmp_path / "made").signatures
    for count in (1, 7):
        found = served["serving_default"](input=tf.constant(X[:count]))
        np.testing.assert_allclose(
            found["output"], student.predict(X[:count], verbose=0), atol=1e-5
        )


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic_int8"])
def test_litert(tmp_path, precision):
    student = make_trained()
    folder = tmp_path / "made"
    report = export.export_litert(
        student, folder, precision=precision, held_out=X
    )
    assert report.precision == precision
    assert "CONV_2D" in report.operators
    expected = student.predict(X, verbose=0)
    found = run_litert(folder, X)
    share = np.std(found - expected) / np.std(expected)
    assert (
        share
        < {"float32": 1e-5, "float16": 0.01, "dynamic_int8": 0.1}[precision]
    )
    # The same by the function of all formats.
    again = export.export(
        student,
        folder,
        format="litert",
        precision=precision,
        held_out=X,
        overwrite=True,
    )
    assert again.comparison == report.comparison


def test_precisions_make_files_smaller(tmp_path):
    """Weights take 4, 2 and 1 bytes; biases and small ones stay in 4."""
    model = any_models.make_mlp(512, seed=1, shape=(64,))
    held_out, _, _ = any_models.make_batch(20, (64,))
    sizes = [
        export.export_litert(
            model, tmp_path / precision, precision=precision, held_out=held_out
        ).size_mb
        for precision in any_model.PRECISIONS
    ]
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2]


@pytest.mark.parametrize("kind", ["two inputs", "subclassed", "words"])
def test_other_models_and_inputs(tmp_path, kind):
    if kind == "two inputs":
        model = make_two_inputs()
        held_out = {"one": FEATURES, "other": 2.0 * FEATURES}
    elif kind == "subclassed":
        model, held_out = any_models.make_subclassed(4, seed=1), FEATURES
    else:
        generator = np.random.default_rng(0)
        model, held_out = make_words(), generator.integers(0, 300, (40, 4))
    for make, options in (
        (export.export_saved_model, {}),
        (export.export_litert, {"precision": "float32"}),
        (export.export_litert, {}),
    ):
        folder = tmp_path / f"{make.__name__}{len(options)}"
        report = make(model, folder, held_out=held_out, **options)
        assert report.comparison.spread_share < 0.1
        decisions = report.comparison.decisions
        # Of a softmax; of another last layer it is not known.
        assert decisions == (40 if kind == "two inputs" else 0)


def test_another_model_does_not_pass_the_gate(tmp_path, monkeypatch):
    student = make_trained()
    folder = tmp_path / "made"
    run = any_model.AnyStudent.run
    monkeypatch.setattr(
        any_model._AnyExporter,
        "write_module",
        lambda self, folder, batch: _write_changed(self, folder, batch, run),
    )
    with pytest.raises(export.ParityError, match="is not the student: max"):
        export.export_saved_model(student, folder, held_out=X)
    assert not folder.exists()


def _write_changed(exporter, folder, batch, run):
    module = tf.Module()
    student = exporter.student
    module.weights = [v.value for v in student.model.variables]
    function = tf.function(
        lambda x: {"output": run(student, x)["output"] + 1.0},
        autograph=False,
        input_signature=student.specs(batch),
    )
    tf.saved_model.save(
        module, folder, signatures={any_model.SERVING_DEFAULT: function}
    )


def not_finite():
    model = any_models.make_mlp(4, seed=1)
    kernel = model.get_layer("last").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    return model


def quantized():
    model = any_models.make_mlp(4, seed=1)
    model.get_layer("last").quantize("int8")
    return model


def mlp():
    return any_models.make_mlp(4, seed=1)


# A model, arguments, and the message.
REFUSED = {
    "no examples": (
        mlp,
        {"held_out": None},
        "`held_out` must hold examples of",
    ),
    "no example": (mlp, {"held_out": FEATURES[:0]}, "at least 1. Received: sh"),
    "other numbers": (
        make_two_inputs,
        {"held_out": {"one": FEATURES, "other": FEATURES[:3]}},
        "one number of examples",
    ),
    "an input too few": (
        make_two_inputs,
        {"held_out": FEATURES},
        "must hold the 2 inputs of",
    ),
    "texts": (mlp, {"held_out": ["a", "b"]}, "at least 1. Received: shapes"),
    "other sizes": (
        mlp,
        {"held_out": FEATURES[:, :4]},
        r"`model` 'mlp_4' cannot be called on inputs of shape \(1, 4\): ",
    ),
    "a tokenizer": (mlp, {"tokenizer": object()}, "`tokenizer` is for encoder"),
    "lengths": (mlp, {"lengths": [8]}, "`lengths` is for encoders of text"),
    "labels": (mlp, {"labels": ["a"]}, "`labels` is for encoders of text"),
    "4 bits": (mlp, {"precision": "int4"}, "float32, float16, dynamic_int8"),
    "not finite": (not_finite, {}, "own outputs for `held_out` are not finite"),
    "quantised": (quantized, {}, "quanti"),
    "half precision": (
        lambda: any_models.make_mlp(4, seed=1, dtype="mixed_bfloat16"),
        {},
        "Only a model in float32 can be exported",
    ),
    "not built": (
        lambda: keras.Sequential([keras.layers.Dense(2)]),
        {},
        "is not built",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path, case):
    model, options, message = REFUSED[case]
    options = {"held_out": FEATURES, **options}
    with pytest.raises((TypeError, ValueError), match=message) as error:
        export.export_litert(model(), tmp_path / "made", **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "hugging_face", "preset"])
def test_formats_of_encoders(tmp_path, format):
    message = f"format='{format}' is for encoders of text. .* saved_model or l"
    with pytest.raises(ValueError, match=message):
        export.export(mlp(), tmp_path / "made", format=format, held_out=X)
