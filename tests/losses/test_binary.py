"""Losses of labels that do not exclude each other, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_distil import losses
from keras_distil.training.objectives import shared


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


def crossentropy(labels, logits):
    q = sigmoid(logits)
    return -(labels * np.log(q) + (1 - labels) * np.log(1 - q)).mean(axis=-1)


def divergence(teacher, student, temperature):
    p = sigmoid(np.asarray(teacher, np.float64) / temperature)
    q = sigmoid(np.asarray(student, np.float64) / temperature)
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * each.mean(axis=-1)


@pytest.fixture
def batch():
    generator = np.random.default_rng(0)
    labels = (generator.random((6, 4)) < 0.4).astype(np.float32)
    teacher, student = generator.normal(0, 3, (2, 6, 4)).astype(np.float32)
    return labels, teacher, student


def test_literals():
    label = losses.LabelBinaryCrossentropy()
    # log(1 + e), twice its half, and a label of one half.
    assert float(label(np.array([[0.0]]), np.array([[1.0]]))) == pytest.approx(
        1.3132617, rel=1e-6
    )
    assert float(label(np.array([[0.5]]), np.array([[0.0]]))) == pytest.approx(
        0.6931472, rel=1e-6
    )
    # No digits are lost where a large logit is right.
    right = float(label(np.array([[1.0]]), np.array([[20.0]])))
    assert right == pytest.approx(2.0611537e-9, rel=1e-5)
    soft = losses.SoftTargetBinaryKLDivergence(temperature=1.0)
    # log 2 - H(p) with p = sigmoid(log 3) = 3/4.
    found = float(soft(np.array([[np.log(3.0)]]), np.array([[0.0]])))
    assert found == pytest.approx(0.1308120, rel=1e-5)


def test_label_loss(batch):
    labels, _, student = batch
    loss = losses.LabelBinaryCrossentropy()
    values = loss.token_values(targets=labels, student_logits=student)
    np.testing.assert_allclose(values, crossentropy(labels, student), rtol=1e-5)
    weight = np.array([1, 0, 2, 1, 0, 1], np.float32)
    wanted = (weight * crossentropy(labels, student)).sum() / weight.sum()
    student[1] = np.nan
    assert float(loss(labels, student, weight)) == pytest.approx(
        wanted, rel=1e-5
    )


@pytest.mark.parametrize("temperature", [0.5, 2.0, 100.0])
def test_soft_targets(batch, temperature):
    _, teacher, student = batch
    loss = losses.SoftTargetBinaryKLDivergence(temperature=temperature)
    values = loss.token_values(teacher_logits=teacher, student_logits=student)
    # float32 rounds small divergences of warm sigmoids.
    np.testing.assert_allclose(
        values, divergence(teacher, student, temperature), rtol=2e-5
    )
    same = loss.token_values(teacher_logits=teacher, student_logits=teacher)
    np.testing.assert_array_equal(same, np.zeros(6))


def test_gradients(batch):
    labels, teacher, student = batch
    student[0, 0] = 0.0
    variable = tf.Variable(student)
    label = losses.LabelBinaryCrossentropy()
    soft = losses.SoftTargetBinaryKLDivergence(temperature=3.0)
    with tf.GradientTape(persistent=True) as tape:
        hard = tf.reduce_sum(
            label.token_values(targets=labels, student_logits=variable)
        )
        kl = tf.reduce_sum(
            soft.token_values(teacher_logits=teacher, student_logits=variable)
        )
    np.testing.assert_allclose(
        tape.gradient(hard, variable),
        (sigmoid(student) - labels) / 4,
        rtol=1e-5,
        atol=1e-7,
    )
    np.testing.assert_allclose(
        tape.gradient(kl, variable),
        3.0 * (sigmoid(student / 3.0) - sigmoid(teacher / 3.0)) / 4,
        rtol=1e-4,
        atol=1e-6,
    )


def test_round_trip_and_bad_arguments():
    loss = losses.SoftTargetBinaryKLDivergence(0.5, 3.0, name="soft")
    again = losses.SoftTargetBinaryKLDivergence.from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        losses.SoftTargetBinaryKLDivergence(temperature=0.0)
    with pytest.raises(
        ValueError, match="The shapes of the labels and the log"
    ):
        losses.LabelBinaryCrossentropy().token_values(
            targets=np.zeros((2, 3)), student_logits=np.zeros((2, 4))
        )


def test_losses_of_a_kind_are_for_it_alone():
    several = losses.task_loss("multi_label", temperature=3.0)
    assert [type(loss).__name__ for loss in several] == [
        "LabelBinaryCrossentropy",
        "SoftTargetBinaryKLDivergence",
        "HiddenStateCosineDistance",
    ]
    assert float(several[1].temperature) == 3.0
    shared.check_outputs("multi_label", several[:2])
    for kind, wrong in (
        ("classification", several[:1]),
        ("token_classification", several[1:2]),
        ("multi_label", losses.task_loss("classification")[:1]),
        ("multi_label", losses.task_loss("regression")[:1]),
    ):
        with pytest.raises(TypeError, match="is not for a "):
            shared.check_outputs(kind, wrong)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 100.0])
def test_several_teachers_teach_their_mean_probability(temperature):
    generator = np.random.default_rng(1)
    teachers = [
        (8.0 * generator.normal(size=(5, 3))).astype("float32")
        for _ in range(3)
    ]
    loss = losses.SoftTargetBinaryKLDivergence(temperature=temperature)
    joint = np.asarray(loss.join_teachers(teachers, teachers[0]))
    wanted = np.mean(
        [sigmoid(x / np.float64(temperature)) for x in teachers], 0
    )
    np.testing.assert_allclose(
        sigmoid(joint / np.float64(temperature)), wanted, rtol=1e-5
    )
