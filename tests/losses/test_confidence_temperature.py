"""Temperatures that follow the student's confidence, against NumPy float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy import full_logits, make_batch, make_student, make_teacher, task_model

from keras_distil import Distiller, losses

SLOPE = 0.3


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def unsureness(logits):
    return 1.0 / (softmax(logits).max(-1) + 1e-3)


def temperatures(logits, mean, base=2.0):
    found = base + SLOPE * (mean - unsureness(logits))
    return np.clip(found, base / 4, base * 4)


def divergence(teacher, student, tau):
    tau = np.broadcast_to(tau, teacher.shape[:-1])[..., None]
    p, q = softmax(teacher / tau), softmax(student / tau)
    return (tau[..., 0] ** 2) * np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def random_logits(seed, scale=3.0):
    return np.random.default_rng(seed).normal(0.0, scale, (2, 5, 11))


def make_loss(**arguments):
    return losses.SoftTargetKLDivergence(
        temperature=2.0, confidence_slope=SLOPE, **arguments
    )


@pytest.mark.parametrize("mean", [1.2, 4.0, 90.0])
def test_value_and_gradient(mean):
    teacher, student = random_logits(0), random_logits(1)
    loss = make_loss()
    loss.mean_inverse_confidence.assign(mean)
    tau = temperatures(student, mean)
    assert (tau.max() == 8.0) == (mean == 90.0)
    expected = divergence(teacher, student, tau)
    variable = tf.Variable(student, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = loss(teacher, variable)
    assert float(value) == pytest.approx(expected.mean(), rel=1e-5)
    gradient = tape.gradient(value, variable).numpy()
    # The temperature itself gets no gradient.
    p, q = (softmax(x / tau[..., None]) for x in (teacher, student))
    np.testing.assert_allclose(
        gradient, tau[..., None] * (q - p) / tau.size, rtol=1e-4, atol=1e-6
    )


def test_the_first_update_has_one_temperature():
    teacher, student = random_logits(0), random_logits(1)
    plain = losses.SoftTargetKLDivergence(temperature=2.0)
    assert float(make_loss()(teacher, student)) == pytest.approx(
        float(plain(teacher, student)), rel=1e-6
    )


def test_the_mean_runs():
    loss = make_loss()
    seen = []
    for mean in (5.0, 3.0, 4.0):
        loss.observe(tf.constant(mean))
        seen.append(float(loss.mean_inverse_confidence.numpy()))
    assert seen == pytest.approx([5.0, 4.8, 4.72])


@pytest.mark.parametrize(
    ("positions", "jit_compile"),
    [
        ("all", False),
        ("masked", False),
        pytest.param("all", True, marks=pytest.mark.slow),
    ],
)
def test_any_chunks_and_parts_make_one_update(positions, jit_compile):
    triple = make_batch()
    x, _, masked = triple
    real = x["padding_mask"].astype(bool)
    counted = real if positions == "all" else masked > 0
    found = []
    for chunk_size, parts in ((999, 1), (3, 2)):
        teacher = make_teacher()
        student = make_student(teacher)
        teacher_logits, student_logits = (
            np.float64(full_logits(model, x))[counted]
            for model in (teacher, student)
        )
        made = losses.triple_loss(
            temperature=2.0, positions=positions, confidence_slope=SLOPE
        )
        made[1].mean_inverse_confidence.assign(3.0)
        distiller = Distiller(teacher, student, made)
        distiller.compile(
            keras.optimizers.SGD(1.0),
            chunk_size=chunk_size,
            micro_batches=parts,
            jit_compile=jit_compile,
            run_eagerly=not jit_compile,
        )
        logs = distiller.fit(
            tf.data.Dataset.from_tensors(triple), verbose=0
        ).history
        expected = divergence(
            teacher_logits, student_logits, temperatures(student_logits, 3.0)
        ).mean()
        assert logs["soft_target_loss"][0] == pytest.approx(expected, rel=1e-4)
        mean = unsureness(student_logits).mean()
        assert logs["soft_target_inverse_confidence"][0] == pytest.approx(
            mean, rel=1e-4
        )
        assert float(made[1].mean_inverse_confidence.numpy()) == pytest.approx(
            0.9 * 3.0 + 0.1 * mean, rel=1e-4
        )
        found.append([v.numpy() for v in student.trainable_variables])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_a_task_has_it_too():
    # Of one kind of text: without token types.
    encoder = make_student(make_teacher())
    teacher, student = (
        task_model(encoder, "classification", 3, dropout=0.0, seed=seed)
        for seed in (0, 1)
    )
    made = losses.task_loss("classification", confidence_slope=SLOPE)
    distiller = Distiller(teacher, student, made)
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    x, _, _ = make_batch()
    y = np.array([0, 1, 2, 0])
    logits = np.float64(student(x, training=False))
    logs = distiller.fit(
        tf.data.Dataset.from_tensors((x, y)), verbose=0
    ).history
    expected = unsureness(logits).mean()
    assert logs["soft_target_inverse_confidence"] == pytest.approx(
        [expected], rel=1e-4
    )
    assert float(made[1].mean_inverse_confidence.numpy()) == pytest.approx(
        expected, rel=1e-4
    )


def test_it_is_saved_and_refused():
    loss = make_loss()
    again = losses.SoftTargetKLDivergence.from_config(loss.get_config())
    assert again.confidence_slope == SLOPE
    assert not again.takes_top_logits
    assert losses.SoftTargetKLDivergence().takes_top_logits
    with pytest.raises(ValueError, match="`confidence_slope` must not be neg"):
        losses.SoftTargetKLDivergence(confidence_slope=-1.0)
    with pytest.raises(TypeError, match="`confidence_slope` must be a number"):
        losses.SoftTargetKLDivergence(confidence_slope="1")
