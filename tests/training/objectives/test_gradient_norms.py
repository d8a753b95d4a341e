"""Norms of each loss's gradient, against a tape over whole logits."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy import (
    full_logits,
    hidden_states,
    make_batch,
    make_student,
    make_teacher,
    weights_of,
)

from keras_distil import Distiller, losses


def expected_norms(teacher, student, triple):
    """From the losses' own calls, with no chunk and no packing."""
    x, y, masked = triple
    real = x["padding_mask"].astype("float32")
    mlm, soft_target, cosine = losses.triple_loss(temperature=3.0)
    teacher_logits = full_logits(teacher, x)
    teacher_states = hidden_states(teacher, x)
    norms = {}
    for name in ("mlm", "soft_target", "cosine"):
        with tf.GradientTape() as tape:
            if name == "mlm":
                value = mlm(y, full_logits(student, x), masked)
            elif name == "soft_target":
                value = soft_target(
                    teacher_logits, full_logits(student, x), real
                )
            else:
                value = cosine(teacher_states, hidden_states(student, x), real)
        gradients = tape.gradient(value, student.trainable_variables)
        squares = [
            np.sum(np.square(tf.convert_to_tensor(g).numpy()))
            for g in gradients
            if g is not None
        ]
        norms[name] = np.sqrt(np.sum(squares))
    return norms


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (2.0, 5.0, 0.0)])
def test_norms_are_those_of_a_tape(weights):
    teacher = make_teacher()
    student = make_student(teacher)
    triple = make_batch()
    distiller = Distiller(
        teacher, student, losses.triple_loss(*weights, temperature=3.0)
    )
    distiller.compile("sgd")
    found = distiller.gradient_norms(triple).measure()
    expected = expected_norms(teacher, student, triple)
    assert found == pytest.approx(expected, rel=1e-4)


def test_measuring_changes_nothing():
    teacher = make_teacher()
    student = make_student(teacher, dropout=0.3)
    triple = make_batch()
    distiller = Distiller(teacher, student, losses.triple_loss(2.0, 5.0, 1.0))
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    norms = distiller.gradient_norms(triple)
    before = {**weights_of(student), **weights_of(distiller)}
    first = norms.measure()
    after = {**weights_of(student), **weights_of(distiller)}
    assert before.keys() == after.keys()
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)
    # The same dropout again, until a step moves the generators.
    assert norms.measure() == first
    distiller.fit(
        tf.data.Dataset.from_tensors(triple), verbose=0, steps_per_epoch=1
    )
    assert norms.measure() != first


def test_weights_are_put_back_after_an_error(monkeypatch):
    teacher = make_teacher()
    distiller = Distiller(
        teacher, make_student(teacher), losses.triple_loss(2.0, 5.0, 1.0)
    )
    distiller.compile("sgd")
    norms = distiller.gradient_norms(make_batch())

    def fail():
        raise RuntimeError("no memory")

    monkeypatch.setattr(norms, "_norm", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        norms.measure()
    found = [float(x.weight.numpy()) for x in distiller.distillation_losses]
    assert found == [2.0, 5.0, 1.0]


def test_losses_are_compared_under_the_same_dropout():
    teacher = make_teacher()
    student = make_student(teacher, dropout=0.5)
    twice = [
        losses.SoftTargetKLDivergence(temperature=3.0, name=name)
        for name in ("one", "other")
    ]
    distiller = Distiller(teacher, student, twice)
    distiller.compile("sgd")
    norms = distiller.gradient_norms(make_batch())
    first = norms.measure()
    assert first["one"] == first["other"]
    # And the next measurement has the dropout of its moment.
    assert norms.measure() == first
