"""Losses and gradients that are not finite stop a training."""

import re

import numpy as np
import pytest
import tensorflow as tf
import toy
from toy_distiller import fit, make_distiller


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_nan_weight_stops_training(teacher, run_eagerly):
    distiller = make_distiller(teacher, run_eagerly=run_eagerly)
    fit(distiller, toy.make_batch())
    kernel = distiller.student.masked_lm_head._intermediate_dense.kernel
    kernel.assign(kernel * float("nan"))
    before = toy.weights_of(distiller.student)
    message = (
        "Training stopped at step 2: not finite: mlm_loss, soft_target_loss, "
        "gradient_norm. The weights are those of the step before."
    )
    with pytest.raises(RuntimeError, match=re.escape(message)):
        fit(distiller, toy.make_batch())
    assert int(distiller.optimizer.iterations) == 1
    for path, value in toy.weights_of(distiller.student).items():
        np.testing.assert_array_equal(value, before[path])


def test_the_component_is_named(teacher):
    distiller = make_distiller(teacher)
    distiller.get_loss("soft_target").temperature.assign(float("nan"))
    with pytest.raises(
        RuntimeError, match="at step 1: not finite: soft_target_loss, gradient"
    ):
        fit(distiller, toy.make_batch())


def test_a_nan_in_the_gradient_only(teacher, monkeypatch):
    distiller = make_distiller(teacher)
    before = toy.weights_of(distiller.student)
    evaluate = distiller._objective.compute_gradients

    def spoilt(*args, **kwargs):
        sums, gradients = evaluate(*args, **kwargs)
        return sums, [gradients[0] * float("nan"), *gradients[1:]]

    monkeypatch.setattr(distiller._objective, "compute_gradients", spoilt)
    with pytest.raises(RuntimeError, match="not finite: gradient_norm"):
        fit(distiller, toy.make_batch())
    for path, value in toy.weights_of(distiller.student).items():
        np.testing.assert_array_equal(value, before[path])


def test_other_errors_pass_through(teacher):
    distiller = make_distiller(teacher)

    def batches():
        yield toy.make_batch()
        raise OSError("the disk is gone")

    spec = toy.dataset(toy.make_batch()).element_spec
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    with pytest.raises(tf.errors.OpError, match="the disk is gone"):
        distiller.fit(data, verbose=0)
