"""Weights fitted to 8 bits: what they compute, and how they are stored."""

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from toy import convert_litert_here, randomize

from keras_distil import export, models
from keras_distil.export import parity
from keras_distil.export.litert import graph, int8_weights
from keras_distil.export.student import make_student

TEXTS = ["the cat sat on the mat", "a dog", "no", "the old bridge of stone"]


def correlated(generator, rows, columns):
    """Inputs whose columns resemble each other."""
    mixed = generator.normal(size=(columns, columns))
    return generator.normal(size=(rows, columns)) @ mixed


def nearest(rows):
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    return np.round(rows / scale) * scale


@pytest.mark.parametrize("columns", [5, 200])
def test_rounding_makes_good_for_its_own_errors(columns):
    generator = np.random.default_rng(1)
    inputs = correlated(generator, 1_000, columns)
    rows = generator.normal(size=(30, columns))
    found = int8_weights.round_columns(rows, inputs.T @ inputs)
    assert found.dtype == np.float32 and found.shape == rows.shape

    def error(rounded):
        return np.square(inputs @ (rounded - rows).T).mean()

    share = 0.9 if columns == 5 else 0.6
    assert error(found) < share * error(nearest(rows))


def test_rounding_by_hand():
    # Both columns are the same inputs, nearly: what the first loses by its
    # rounding goes to the second, times their products' ratio.
    inputs = np.array([[1.0, 1.0], [2.0, 2.0], [0.5, 0.5]])
    rows = np.array([[1.3, 127.0], [0.0, 0.0], [-127.0, 3.4]])
    products = inputs.T @ inputs
    damping = 0.01 * np.diag(products).mean()
    found = int8_weights.round_columns(rows, products)
    # The largest weight of a row is kept; the scale is 1.
    passed = products[0, 1] / (products[1, 1] + damping)
    assert found.tolist() == [
        [1.0, 127.0],
        [0.0, 0.0],
        [-127.0, np.round(3.4 + 0.0 * passed)],
    ]
    rows = np.array([[1.4, 2.4, 127.0]])
    products = np.array([[4.0, 3.9, 0.0], [3.9, 4.0, 0.0], [0.0, 0.0, 4.0]])
    passed = 3.9 / 4.04
    assert 2.4 + 0.4 * passed > 2.5
    assert int8_weights.round_columns(rows, products).tolist() == [[1, 3, 127]]


def test_rounded_rows_are_integers_of_their_largest():
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(20, 33))
    rows[3] = 0.0
    inputs = correlated(generator, 50, 33)
    inputs[:, 7] = 0.0
    found = int8_weights.round_columns(rows, inputs.T @ inputs)
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    integers = found / np.where(scale == 0.0, 1.0, scale)
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-4)
    np.testing.assert_allclose(
        np.abs(found).max(axis=1), np.abs(rows).max(axis=1), rtol=1e-6
    )
    assert not found[3].any()


def examples_of(plain, tokenizer):
    return parity.text_examples(plain, tokenizer, TEXTS)


@pytest.mark.parametrize("kind", [None, "classification"])
@pytest.mark.parametrize("architecture", ["student", "bert"])
def test_smoothed_weights_compute_the_same(
    architecture, kind, request, tokenizer, monkeypatch
):
    model = request.getfixturevalue(architecture)
    if kind is not None:
        model = randomize(models.task_model(model, kind, 3), seed=2)
    plain = make_student(model)
    examples = examples_of(plain, tokenizer)
    # As they are before they are rounded.
    monkeypatch.setattr(
        int8_weights, "round_columns", lambda rows, _: np.float32(rows)
    )
    weights = int8_weights.fit(plain, examples)
    for layer in weights.layers:
        assert all(np.ptp(divisor) > 0.1 for divisor in layer.divisors)
    for batch, _ in examples.batches:
        inputs = parity.full_inputs(plain, batch)
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        found = graph.outputs(plain, tensors, weights=weights)
        expected = plain.outputs(tensors)
        kept = inputs["padding_mask"] > 0 if kind is None else np.s_[:]
        np.testing.assert_allclose(
            found["logits"].numpy()[kept],
            expected["logits"].numpy()[kept],
            atol=1e-4,
        )


def test_padding_is_no_text(student, tokenizer):
    plain = make_student(student)
    examples = parity.cut(examples_of(plain, tokenizer), 12)
    batch, places = examples.batches[0]
    seen = []
    for length in (12, 24):
        rows = {
            name: np.pad(values, [(0, 0), (0, length - values.shape[1])])
            for name, values in batch.items()
        }
        examples = export.Examples([(rows, places)])
        weights = int8_weights.fit(plain, examples)
        seen.append(weights.layers[0].divisors)
    for one, other in zip(*seen, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_the_file_holds_the_rounded_weights(
    student, tokenizer, tmp_path, monkeypatch
):
    convert_litert_here(monkeypatch)
    prepared = []
    prepare = int8_weights.fit

    def keep(*arguments):
        prepared.append(prepare(*arguments))
        return prepared[-1]

    monkeypatch.setattr(int8_weights, "fit", keep)
    file = tmp_path / "export" / "student.tflite"
    report = export.export_litert(
        student,
        file.parent,
        tokenizer,
        lengths=[8, 16],
        representative=TEXTS,
        held_out=TEXTS,
        tolerance=export.Tolerance(1.0, 0.1, 0.5),
    )
    assert report.comparison.max_difference > 0.0
    table = prepared[0].table.numpy()
    # Two signatures share what they read.
    model = schema.Model.GetRootAs(file.read_bytes())
    buffers = map(model.Buffers, range(model.BuffersLength()))
    sizes = [buffer.DataLength() for buffer in buffers]
    assert sizes.count(table.size) == 1
    interpreter = Interpreter(str(file))
    stored = []
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] is np.int8 and len(tensor["shape"]) == 2:
            scales = tensor["quantization_parameters"]["scales"]
            integers = interpreter.get_tensor(tensor["index"])
            stored.append(integers * scales.reshape(-1, 1))
    layer = prepared[0].layers[1]
    expected = [table, layer.query, layer.value, layer.inner, layer.outer]
    for each in expected:
        rows = each if each is table else each.kernel.numpy().T
        same = [found for found in stored if found.shape == rows.shape]
        assert any(np.allclose(found, rows, atol=1e-6) for found in same)
