"""Masked-LM models without `mask_positions`: logits at every position."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import Distiller, losses, models
from keras_distil.models import forward

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=("bert", "distil_bert", "roberta"))
def golden(request):
    """A teacher, inputs, and Hugging Face's logits. Never change it."""
    folder = GOLDEN / request.param
    arrays = dict(np.load(folder / "outputs.npz"))
    names = ("token_ids", "padding_mask", "segment_ids")
    x = {name: arrays[name].astype("int32") for name in names if name in arrays}
    return models.load_teacher(folder), x, arrays["logits"]


def at(x, positions):
    positions = np.tile(np.array(positions, "int32"), (len(x["token_ids"]), 1))
    return x | {"mask_positions": positions}


def check_hugging_face(found, x, expected):
    real = x["padding_mask"] > 0
    assert found.shape == expected.shape
    # Sums of float32 in another order.
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


def test_calls_and_predictions_are_hugging_face_s(golden):
    model, x, expected = golden
    for found in (model(x), model.predict(x, verbose=0), model(x | {})):
        check_hugging_face(np.asarray(found), x, expected)


def test_they_are_those_of_a_distiller(golden):
    teacher, x, _ = golden
    student = models.initialize_student(teacher, 1)
    distiller = Distiller(teacher, student, losses.triple_loss())
    for found, expected in (
        (student(x), distiller(x)),
        (student.predict(x, verbose=0), distiller(x)),
        (teacher(x), forward.logits(teacher, x)),
    ):
        expected = np.asarray(expected)
        # Float32 products in another order, so relative to the largest.
        limit = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


def test_given_positions_have_the_logits_that_they_had(golden):
    model, x, expected = golden
    found = np.asarray(model(at(x, [3, 0])))
    assert found.shape[1] == 2
    every = np.asarray(model(x))
    # Float32 products in another order.
    np.testing.assert_allclose(found, every[:, [3, 0]], rtol=0, atol=1e-5)
    check_hugging_face(
        found[:1], {"padding_mask": np.ones((1, 2))}, (expected[:1, [3, 0]])
    )


def test_a_loaded_model_has_them_too(golden, tmp_path):
    model, x, expected = golden
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    check_hugging_face(loaded.predict(x, verbose=0), x, expected)
    assert list(loaded.input) == list(model.input)


def test_it_is_scored_on_batches_of_a_distiller(golden, monkeypatch):
    model, x, _ = golden
    # Others save the same model.
    monkeypatch.setattr(model, "compiled", False)
    y = np.random.default_rng(0).integers(5, 60, x["token_ids"].shape)
    weight = (np.arange(y.size).reshape(y.shape) % 3 == 0) * x["padding_mask"]
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum"
        ),
        run_eagerly=True,
    )
    found = model.evaluate(x, y, sample_weight=weight, verbose=0)
    logits = np.asarray(model(x)).astype("float64")
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, y[..., None], axis=-1)[..., 0]
    loss = found[0] if isinstance(found, list) else found
    assert loss == pytest.approx(-(chosen * weight).sum(), rel=1e-5)


def test_segments_that_are_left_out_are_0(golden):
    model, x, expected = golden
    left_out = {name: x[name] for name in ("token_ids", "padding_mask")}
    zeros = left_out | {"segment_ids": np.zeros_like(x["token_ids"])}
    found = model.predict(left_out, verbose=0)
    np.testing.assert_array_equal(found, model.predict(zeros, verbose=0))
    # The second row has them all 0.
    real = x["padding_mask"][1] > 0
    np.testing.assert_allclose(found[1][real], expected[1][real], atol=1e-4)


def test_segments_count_where_the_encoder_has_them(golden):
    model, x, _ = golden
    other = model(x | {"segment_ids": np.ones_like(x["token_ids"])})
    changed = np.abs(np.asarray(other) - np.asarray(model(x)))[1].max()
    if "segment_ids" in model.backbone.input:
        assert changed > 1e-3
    else:
        assert changed == 0


@pytest.mark.parametrize("kind", ["classification", "token_classification"])
def test_segments_may_be_left_out_of_tasks(golden, kind):
    teacher, x, _ = golden
    model = models.task_model(teacher, kind, 2)
    left_out = {name: x[name] for name in ("token_ids", "padding_mask")}
    zeros = left_out | {"segment_ids": np.zeros_like(x["token_ids"])}
    np.testing.assert_array_equal(model(left_out), model(zeros))


def test_it_is_part_of_another_model(golden):
    model, x, expected = golden
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name) for name in x
    }
    outer = keras.Model(inputs, model(inputs))
    check_hugging_face(outer.predict(x, verbose=0), x, expected)


def test_what_else_is_missing_or_too_much_is_named(golden):
    model, x, _ = golden
    with pytest.raises(ValueError, match="`inputs` may hold .* 'ids', too"):
        model(x | {"ids": x["token_ids"]})
    with pytest.raises(ValueError, match='Missing data for input "padding_mas'):
        model({"token_ids": x["token_ids"]})


@pytest.mark.slow
def test_keras_exports_it_without_positions(golden, tmp_path):
    model, x, expected = golden
    model.export(tmp_path / "plain", verbose=False)
    served = tf.saved_model.load(tmp_path / "plain")
    names = sorted(set(model.input) - {"mask_positions"})
    signature = served.signatures["serving_default"]
    assert sorted(signature.structured_input_signature[1]) == names
    found = served.serve(x)
    check_hugging_face(found.numpy(), x, expected)
    # With positions, as Keras would by itself.
    model.export(
        tmp_path / "full", verbose=False, input_signature=[model.input]
    )
    served = tf.saved_model.load(tmp_path / "full")
    assert served.serve(at(x, [1])).shape[1] == 1
