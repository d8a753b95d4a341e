"""A Distiller of toy models, as the tests of this folder train it."""

import keras
import numpy as np
import toy
from reference_step import TEMPERATURE, WEIGHTS

from keras_distil import Distiller, losses


def triple():
    return losses.triple_loss(*WEIGHTS.values(), temperature=TEMPERATURE)


def make_distiller(teacher, optimizer=None, *, student=None, **options):
    """Compiles a Distiller, eager by default, which is faster here."""
    if student is None:
        student = toy.make_student(teacher)
    distiller = Distiller(teacher, student, triple())
    options.setdefault("run_eagerly", True)
    distiller.compile(optimizer or keras.optimizers.SGD(0.1), **options)
    return distiller


def fit(distiller, *batches, **options):
    """Logs of the last epoch."""
    history = distiller.fit(toy.dataset(*batches), verbose=0, **options)
    return {name: values[-1] for name, values in history.history.items()}


def assert_weights_equal(actual, expected, atol=0.0):
    actual, expected = toy.weights_of(actual), toy.weights_of(expected)
    assert set(actual) == set(expected)
    for path, value in expected.items():
        np.testing.assert_allclose(
            actual[path], value, rtol=0.0, atol=atol, err_msg=path
        )


def batches_of(count):
    return [toy.make_batch(seed=seed) for seed in range(count)]
