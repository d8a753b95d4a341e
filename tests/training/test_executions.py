"""The requested number of updates, whatever the size of an execution."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, callbacks, losses, schedules
from keras_distil.training import executions
from keras_distil.utils import private_api


class Sum(keras.Model):
    """Adds up what it is given; a step of it costs nothing."""

    def __init__(self):
        super().__init__()
        self.steps = self.add_weight(shape=(), dtype="int64", trainable=False)
        self.total = self.add_weight(shape=(), dtype="int64", trainable=False)
        self.built = True

    def train_step(self, data):
        self.steps.assign_add(tf.shape(data, tf.int64)[0])
        self.total.assign_add(tf.reduce_sum(data))
        return {"total": self.total}

    test_step = train_step

    def _make_function(self, step_function):
        return executions.make_function(self, step_function)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        private_api.number_exactly(iterator, self)


class Numbers(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(batch)

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)

    def on_test_batch_end(self, batch, logs=None):
        self.seen.append(batch)


def unknown(count):
    """A dataset that does not know how long it is."""
    return tf.data.Dataset.range(count).filter(lambda x: x >= 0).batch(1)


ENDLESS = tf.data.Dataset.counter(dtype="int64").batch(1)
LONG = tf.data.Dataset.range(20).batch(1)
TEN = tf.data.Dataset.range(10).batch(1)


@pytest.fixture(scope="module", params=[True, False], ids=["eager", "graph"])
def model(request):
    made = Sum()
    made.compile(run_eagerly=request.param, steps_per_execution=4)
    return made


def fit(model, dataset, **options):
    model.steps.assign(0)
    model.total.assign(0)
    numbers = Numbers()
    model.fit(*(dataset, None, None, 2, 0, numbers), shuffle=False, **options)
    return int(model.steps), int(model.total), numbers.seen


@pytest.mark.parametrize(
    ("dataset", "steps", "total"),
    [
        # Numbers from 0 to 19, each once; from 0 to 9, twice.
        (ENDLESS, 10, 190),
        (LONG, 10, 190),
        (TEN, None, 90),
        (TEN, 10, 90),
    ],
)
def test_epochs_end_at_their_step(model, dataset, steps, total):
    made, found, seen = fit(model, dataset, steps_per_epoch=steps)
    assert (made, found) == (20, total)
    assert seen == [0, 3, 4, 7, 8, 9] * 2


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_data_that_end_by_themselves(model):
    made, found, _ = fit(model, unknown(10))
    assert (made, found) == (20, 90)


def test_an_epoch_that_is_shorter_than_an_execution(model):
    made, found, seen = fit(model, ENDLESS, steps_per_epoch=3)
    assert (made, found, seen) == (6, 15, [0, 2] * 2)


def test_evaluation_ends_at_its_step(model):
    model.steps.assign(0)
    numbers = Numbers()
    model.evaluate(ENDLESS, verbose=0, steps=6, callbacks=[numbers])
    assert (int(model.steps), numbers.seen) == (6, [3, 5])


# === A Distiller ===

TEMPERATURE = schedules.Linear(4.0, 1.0, steps=20)
RATE = schedules.Linear(0.1, 0.0, steps=20)


def distil(execution, folder, *more):
    """Ten steps per epoch; returns the Distiller and its history."""
    teacher = toy.make_teacher()
    made = Distiller(
        teacher, toy.make_student(teacher), losses.triple_loss(1.0, 2.0, 0.5)
    )
    made.compile(
        keras.optimizers.SGD(RATE),
        run_eagerly=True,
        steps_per_execution=execution,
    )
    batches = [toy.make_batch((5, 3), seed=seed) for seed in range(7)]
    # All of one length, for one iterator that serves all epochs.
    whole = tf.nest.map_structure(lambda *x: np.stack(x), *batches)
    log = callbacks.MetricsLog(folder / "metrics.jsonl", stage="a")
    try:
        history = made.fit(
            tf.data.Dataset.from_tensor_slices(whole).repeat(),
            steps_per_epoch=10,
            epochs=2,
            verbose=0,
            callbacks=[
                callbacks.TemperatureScheduler(TEMPERATURE),
                log,
                callbacks.TensorBoard(folder / "logs", every_steps=3),
                *more,
                callbacks.TrainingState(
                    folder / "states", every_steps=5, keep=9
                ),
            ],
        )
    finally:
        log.on_train_end()
    return made, history.history


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """By the steps of an execution, a training and its folder."""
    found = {}
    for execution in (1, 4):
        folder = tmp_path_factory.mktemp(f"of{execution}")
        found[execution] = (*distil(execution, folder), folder)
    return found


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_the_updates_are_the_same(trained):
    (one, of_one, _), (four, of_four, _) = trained[1], trained[4]
    assert int(four.optimizer.iterations.numpy()) == 20
    for path, value in toy.weights_of(one.student).items():
        np.testing.assert_array_equal(toy.weights_of(four.student)[path], value)
    assert of_four == of_one


@pytest.mark.slow
def test_every_update_has_its_line(trained):
    one, four = (lines(trained[execution][2]) for execution in (1, 4))
    assert [line["step"] for line in four] == list(range(1, 21))
    for line, expected in zip(four, one, strict=True):
        for values in (line, expected):
            assert values.pop("tokens_per_second") > 0.0
        assert line == expected
        earlier = line["step"] - 1
        assert line["temperature"] == pytest.approx(4.0 - 0.15 * earlier)
        assert line["learning_rate"] == pytest.approx(
            0.1 - 0.005 * earlier, abs=1e-8
        )


def test_charts_of_steps_have_their_points(trained):
    from tensorboard.backend.event_processing import event_accumulator

    for execution in (1, 4):
        folder = trained[execution][2] / "logs" / "train"
        events = event_accumulator.EventAccumulator(str(folder)).Reload()
        points = events.Tensors("step/temperature")
        assert [point.step for point in points] == [3, 6, 9, 12, 15, 18]


def test_states_come_at_the_ends_of_executions(trained):
    names = [x.name for x in (trained[4][2] / "states").iterdir()]
    # Due after 5, 5 after that, at the end of the epoch, and so on.
    assert sorted(int(name[5:]) for name in names) == [8, 10, 18, 20]


@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(trained, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == 18:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        distil(4, tmp_path, Stop())
    resumed, history = distil(4, tmp_path)
    whole, expected, folder = trained[4]
    for path, value in toy.weights_of(whole.student).items():
        np.testing.assert_array_equal(
            toy.weights_of(resumed.student)[path], value
        )
    assert history == expected
    assert [x["step"] for x in lines(tmp_path)] == list(range(1, 21))
