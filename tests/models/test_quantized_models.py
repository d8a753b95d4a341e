"""Models quantised by Keras: exact as teachers, refused as students."""

import gc
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from reference_step import reference_step

from keras_distil import Distiller, evaluation, export, losses, models
from keras_distil.export.student import make_student
from keras_distil.models import forward, supported

MODES = ["int8", "int4", "float8"]


@pytest.fixture(scope="module")
def teachers():
    """A BERT of one layer quantised in each way, by the mode."""
    made = {mode: toy.make_teacher(num_layers=1) for mode in MODES}
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        # Layers that cannot be quantised stay unchanged.
        warnings.simplefilter("ignore")
        # Keras calls it for every layer, which takes most of the time.
        patch.setattr(gc, "collect", lambda: 0)
        for mode, teacher in made.items():
            teacher.quantize(mode)
    return made


@pytest.mark.parametrize("mode", MODES)
def test_hidden_states_and_logits_are_those_it_predicts(teachers, mode):
    teacher = teachers[mode]
    x, _, _ = toy.make_batch()
    exact = np.array(toy.full_logits(toy.make_teacher(num_layers=1), x))
    expected = np.array(toy.full_logits(teacher, x))
    # Quantising has an effect, and none like that of missing scales.
    assert 1e-3 < np.abs(expected - exact).max() < 3.0
    assert "dtype policy" in supported.unknown_to_pass(teacher.backbone)
    states = forward.encode(teacher, x, training=False)
    np.testing.assert_array_equal(states, toy.hidden_states(teacher, x))
    np.testing.assert_array_equal(forward.logits(teacher, x), expected)
    rows = forward.gather_rows(states, tf.range(x["token_ids"].size))
    projection = forward.project(teacher, rows)
    logits = np.array(projection.products() + projection.bias)
    # The same product of rows in another shape.
    np.testing.assert_allclose(
        logits.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5
    )


def test_predict_agrees(teachers):
    teacher = teachers["int8"]
    x, _, _ = toy.make_batch()
    positions = np.tile(np.arange(7, dtype="int32"), (4, 1))
    inputs = {
        **x,
        "segment_ids": np.zeros_like(positions),
        "mask_positions": positions,
    }
    np.testing.assert_allclose(
        forward.logits(teacher, x),
        teacher.predict_on_batch(inputs),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("mode", MODES)
def test_it_teaches_what_it_predicts(teachers, mode):
    student = toy.make_student(toy.make_teacher())
    batch = toy.make_batch()
    expected, _ = reference_step(teachers[mode], student, batch)
    distiller = Distiller(teachers[mode], student, losses.triple_loss(2, 5, 1))
    distiller.compile("sgd", run_eagerly=True, chunk_size=5)
    logs = distiller.evaluate(toy.dataset(batch), verbose=0, return_dict=True)
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_a_task_model_computes_what_it_predicts(teachers, kind):
    backbone = teachers["int8"].backbone
    model = (
        models.SpanExtractor(backbone)
        if kind == "span"
        else models.task_model(toy.make_teacher(num_layers=1), kind, 2)
    )
    model.output_dense.quantize("int8")
    x, _, _ = toy.make_batch()
    inputs = {**x, "segment_ids": np.zeros_like(x["token_ids"])}
    _, outputs = forward.encode_task(model, inputs, training=False)
    real = slice(None)
    if kind == "span":
        real = x["padding_mask"] > 0
    np.testing.assert_allclose(
        np.array(outputs)[real],
        np.array(model(inputs, training=False))[real],
        rtol=1e-4,
        atol=1e-4,
    )


def test_it_is_scored_as_it_predicts(teachers):
    model = teachers["int4"]
    batch = toy.make_batch()
    x, y, masked = batch
    best = np.array(toy.full_logits(model, x)).argmax(axis=-1)
    expected = ((best == y) * masked).sum() / masked.sum()
    scores = evaluation.score_masked_lm(
        model, toy.make_teacher(), toy.dataset(batch)
    )
    assert scores.mlm_accuracy == pytest.approx(expected, rel=1e-6)


# === Refused ===


@pytest.mark.parametrize("mode", MODES)
def test_it_cannot_be_a_student(teachers, mode):
    with pytest.raises(
        ValueError,
        match=f"cannot be trained.*quantised as '{mode}'.*call `quantize`",
    ):
        Distiller(None, teachers[mode], [losses.MaskedLMCrossentropy()])


def test_quantised_after_the_distiller_was_made():
    student = toy.make_student(toy.make_teacher(num_layers=1))
    distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    distiller.compile("sgd", run_eagerly=True)
    layer = student.backbone.transformer_layers[0]
    layer._feedforward_output_dense.quantize("int8")
    before = toy.weights_of(student)
    with pytest.raises(ValueError, match="quantised by Keras cannot be trai"):
        distiller.fit(toy.dataset(toy.make_batch()), verbose=0)
    for path, value in toy.weights_of(student).items():
        np.testing.assert_array_equal(value, before[path])
    with pytest.raises(ValueError, match="quantised by Keras cannot be trai"):
        distiller.compile("sgd")


@pytest.mark.parametrize(
    "use",
    [
        lambda model: models.initialize_student(model, 1),
        lambda model: models.task_model(model, "span"),
        lambda model: models.with_dtype(model, "bfloat16"),
        make_student,
        lambda model: export.export_litert(model, "nowhere", tokenizer=None),
    ],
)
def test_its_weights_are_no_others(teachers, use):
    with pytest.raises(ValueError, match="quantised by Keras cannot be copie"):
        use(teachers["int8"])


def test_a_random_student_needs_only_its_sizes(teachers):
    student = models.initialize_student(
        teachers["int8"], 1, initialization="random"
    )
    assert isinstance(student, keras.Model)
