"""The divergence of attention distributions, against NumPy and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from losses.attention_reference import divergence

from keras_distil import losses
from keras_distil.losses import attention_tables
from keras_distil.losses.settings import AttentionSettings

MASK = (np.arange(6) < np.array([6, 2, 4])[:, None]).astype("int32")
TABLES = [(0, 1, 1.0)]


@pytest.fixture(scope="module")
def arrays():
    """Vectors of 4 heads, of size 5 in the teacher and 3 in the student."""
    generator = np.random.default_rng(0)
    teacher = generator.normal(size=(3, 6, 3, 4, 5)).astype("float32")
    student = generator.normal(size=(3, 6, 3, 4, 3)).astype("float32")
    weight = generator.integers(0, 3, MASK.shape).astype("float32")
    weight[0, :2] = 0.0, 2.0
    return teacher, student, weight


def value_and_gradient(loss, teacher, student, *rest):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student, *rest)
    return value, tape.gradient(value, student)


def test_two_tokens_by_hand():
    """The teacher attends evenly; the student's first scores are 2 and 0."""
    teacher = np.zeros((1, 2, 3, 1, 3), "float32")
    student = np.zeros((1, 2, 3, 1, 4), "float32")
    student[0, 0, 0, 0, 0] = 1.0
    student[0, 0, 1, 0, 0] = 4.0
    student[0, :, 2] = 7.0  # values have no part in it
    value = losses.AttentionTransfer()(teacher, student)
    first = np.log(1 + np.e**2) - 1 - np.log(2)
    assert float(value) == pytest.approx(first / 2, rel=1e-6)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("at_once", [2**18, 80])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_numpy_float64(arrays, monkeypatch, weighted, at_once, graph):
    monkeypatch.setattr(attention_tables, "_AT_ONCE", at_once)
    teacher, student, weight = arrays
    weight = weight if weighted else None
    run = value_and_gradient
    if graph:
        run = tf.function(run, autograph=False)
    loss = losses.AttentionTransfer()
    value, gradient = run(loss, teacher, student, MASK, weight)
    expected = divergence(teacher, student, TABLES, 4, MASK, weight)
    assert float(value) == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-7)
    assert np.abs(gradient[:, :, 1]).max() > 1e-3
    np.testing.assert_array_equal(gradient[:, :, 2], 0.0)


def test_zero_where_teacher_equals_student(arrays):
    value, gradient = value_and_gradient(
        losses.AttentionTransfer(), arrays[0], arrays[0], MASK
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0 * arrays[0])


def test_config_round_trip():
    loss = losses.AttentionTransfer(3.0, "own", layers=[(1, 0), (5, 2)])
    config = keras.saving.serialize_keras_object(loss)
    assert config["registered_name"] == "keras_distil>AttentionTransfer"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["layers"] == [[1, 0], [5, 2]]


def test_a_recipe_makes_it():
    settings = AttentionSettings(layers="uniform")
    for kind in ("masked_lm", "span", "regression"):
        (loss,) = losses.make_losses({"attention_transfer": settings}, kind)
        assert type(loss) is losses.AttentionTransfer
        assert loss.layers == "uniform"


def test_unequal_heads_are_sent_to_relations(arrays):
    student = arrays[1].reshape(3, 6, 3, 2, 6)
    with pytest.raises(
        ValueError,
        match="must have as many attention heads. Received: 4 and 2 heads; "
        "use AttentionRelationKLDivergence",
    ):
        losses.AttentionTransfer()(arrays[0], student)
