"""Temperature and weights that change while a Distiller trains."""

import keras
import numpy as np
import pytest
import toy
from toy_distiller import assert_weights_equal, batches_of, fit, make_distiller

from keras_distil import schedules


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


def test_schedules_are_exact_at_every_step(teacher):
    distiller = make_distiller(teacher)
    soft = distiller.get_loss("soft_target")
    distiller.schedule(soft.temperature, schedules.Linear(4.0, 1.0, steps=3))
    distiller.schedule(soft.weight, schedules.Piecewise([2], [5.0, 3.0]))
    recorder = Recorder()
    fit(distiller, *batches_of(5), callbacks=[recorder])
    found = [log["temperature"] for log in recorder.logs]
    np.testing.assert_allclose(found, [4.0, 3.0, 2.0, 1.0, 1.0], rtol=1e-6)
    assert float(soft.weight.numpy()) == 3.0
    # Without a schedule the last value stays.
    distiller.schedule(soft.temperature, None)
    soft.temperature.assign(7.0)
    assert fit(distiller, toy.make_batch())["temperature"] == 7.0


@pytest.mark.slow
def test_schedules_inside_one_execution(teacher):
    results = []
    for execution in (1, 4):
        distiller = make_distiller(
            teacher,
            keras.optimizers.SGD(schedules.Linear(0.1, 0.0, steps=8)),
            run_eagerly=execution == 1,
            steps_per_execution=execution,
        )
        temperature = distiller.get_loss("soft_target").temperature
        distiller.schedule(temperature, schedules.Linear(4.0, 1.0, steps=7))
        recorder = Recorder()
        fit(distiller, *batches_of(8), callbacks=[recorder])
        assert len(recorder.logs) == 8 // execution
        last = recorder.logs[-1]
        assert last["temperature"] == pytest.approx(1.0)
        assert last["learning_rate"] == pytest.approx(0.0125)
        results.append(distiller.student)
    # A temperature that is a step late shows in the first decimals.
    assert_weights_equal(*results, atol=1e-6)


def test_a_schedule_may_change_during_fit(teacher):
    distiller = make_distiller(teacher)
    soft = distiller.get_loss("soft_target")

    class Change(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            distiller.schedule(soft.temperature, schedules.Constant(epoch + 2))

    recorder = Recorder()
    fit(distiller, toy.make_batch(), epochs=2, callbacks=[Change(), recorder])
    assert [log["temperature"] for log in recorder.logs] == [2.0, 3.0]


def test_compiling_again_takes_effect(teacher):
    distiller = make_distiller(teacher)
    fit(distiller, toy.make_batch())
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    before = toy.weights_of(distiller.student)
    logs = fit(distiller, toy.make_batch())
    assert logs["learning_rate"] == 0.0
    for path, value in toy.weights_of(distiller.student).items():
        np.testing.assert_array_equal(value, before[path])
