import logging
import os
import signal
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import Distiller, callbacks, losses
from keras_distil.training import snapshots


class Stopped(Exception):
    """Ends training in a test."""


class Raise(keras.callbacks.Callback):
    """Sends this process a signal after an update."""

    def __init__(self, number, update):
        super().__init__()
        self.number = number
        self.update = update

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.update:
            signal.raise_signal(self.number)


@pytest.fixture
def batches(triple):
    return tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)


def fit(distiller, batches, folder, *more, epochs=2, **arguments):
    state = callbacks.TrainingState(folder, **arguments)
    distiller.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=4,
        verbose=0,
        callbacks=[*more, state],
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def updates(distiller):
    return int(distiller.optimizer.iterations.numpy())


def test_states_come_at_their_interval_and_at_the_end_of_epochs(
    make_distiller, batches, tmp_path
):
    fit(make_distiller(), batches, tmp_path, every_steps=3, keep=9)
    # 3, the end of the epoch, 3 after that, the end.
    assert names(tmp_path) == [f"step-{step:09d}" for step in (3, 4, 7, 8)]


def test_the_newest_are_kept(make_distiller, batches, tmp_path):
    fit(make_distiller(), batches, tmp_path, every_steps=1)
    assert names(tmp_path) == ["step-000000007", "step-000000008"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_state_and_goes_its_way(
    make_distiller, batches, tmp_path, number
):
    received = []
    before = signal.signal(number, lambda n, _: received.append(n))
    try:
        with pytest.raises(Stopped):
            fit(
                make_distiller(),
                batches,
                tmp_path,
                Raise(number, update=2),
                StopAfter(received),
            )
    finally:
        signal.signal(number, before)
    assert received == [number]
    assert names(tmp_path) == ["step-000000002"]


class StopAfter(keras.callbacks.Callback):
    """Ends once the previous handler has received the signal."""

    def __init__(self, received):
        super().__init__()
        self.received = received

    def on_train_batch_begin(self, batch, logs=None):
        if self.received:
            raise Stopped


def test_signals_are_given_back(make_distiller, batches, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    fit(make_distiller(), batches, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_damaged_state_falls_back_and_says_so(
    make_distiller, batches, tmp_path, caplog
):
    fit(make_distiller(), batches, tmp_path, epochs=1, every_steps=3)
    os.truncate(tmp_path / "step-000000004" / "tensors.safetensors", 100)
    resumed = make_distiller()
    with caplog.at_level(logging.WARNING):
        fit(resumed, batches, tmp_path)
    assert "step-000000004 is damaged" in caplog.text
    assert updates(resumed) == 8


def test_a_monitored_checkpoint_keeps_its_best(
    make_distiller, batches, tmp_path
):
    def checkpoint():
        return callbacks.StudentCheckpoint(
            tmp_path / "student.keras", monitor="loss"
        )

    first, second = checkpoint(), checkpoint()
    fit(make_distiller(), batches, tmp_path / "states", first, epochs=1)
    fit(make_distiller(), batches, tmp_path / "states", second, epochs=1)
    assert second.best == first.best is not None


def test_what_is_wrong_is_reported(make_distiller, batches, tmp_path):
    with pytest.raises(ValueError, match="`every_steps` must be at least 1"):
        callbacks.TrainingState(tmp_path, every_steps=0)
    with pytest.raises(ValueError, match="`keep` must be at least 1"):
        callbacks.TrainingState(tmp_path, keep=0)
    distiller = make_distiller()
    with pytest.raises(ValueError, match=r"hold one TrainingState.*2 of them"):
        fit(distiller, batches, tmp_path, callbacks.TrainingState(tmp_path))
    fit(distiller, batches, tmp_path, epochs=1)
    with pytest.raises(ValueError, match="training with steps_per_epoch=4"):
        distiller.fit(
            batches,
            steps_per_epoch=3,
            callbacks=[callbacks.TrainingState(tmp_path)],
        )


def test_another_model_is_refused(make_distiller, batches, tmp_path):
    fit(make_distiller(), batches, tmp_path, epochs=1)
    other = make_distiller()
    other.compile(keras.optimizers.Adam(0.1))
    with pytest.raises(ValueError, match=r"belongs to another model: for '.*"):
        fit(other, batches, tmp_path)


def test_models_that_a_process_made_again_go_on(tmp_path):
    """As in a notebook, where Keras counts up the names of layers."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, [0, 1] * 4)).batch(4)

    def train(epochs):
        student = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        distiller = Distiller(None, student, [losses.LabelCrossentropy()])
        distiller.compile("adam", run_eagerly=True)
        state = callbacks.TrainingState(tmp_path)
        distiller.fit(dataset, epochs=epochs, verbose=0, callbacks=[state])
        return distiller

    first, second = train(1), train(2)
    names = [v.path for v in first.optimizer.variables]
    assert names != [v.path for v in second.optimizer.variables]
    assert updates(second) == 4


def test_a_state_of_other_values_is_refused(make_distiller, batches, tmp_path):
    path = tmp_path / "student.keras"
    checkpoint = callbacks.StudentCheckpoint(path, monitor="loss")
    folder = tmp_path / "states"
    distiller = make_distiller()
    fit(distiller, batches, folder, checkpoint, epochs=1)
    good = snapshots.newest_snapshot(folder, print)
    position = {"epoch": 0, "step": 0, "batches": 0}
    for change in (
        {"position": {"epoch": 0, "more": 1}},
        {"position": {**position, "epoch": "0"}},
        {"position": {**position, "step": -1}},
        {"position": None},
        {"callbacks": None},
        {"callbacks": {"0.StudentCheckpoint": {"best": "low"}}},
    ):
        values = {**good.values, **change}
        snapshots.write_snapshot(
            folder, good.step, good.tensors, values, keep=1
        )
        with pytest.raises(ValueError, match="was not written by keras_distil"):
            _start(distiller, folder, checkpoint)


def _start(distiller, folder, *others):
    source = types.SimpleNamespace(steps_per_epoch=4, restore=lambda _: None)
    state = callbacks.TrainingState(folder)
    return state.start(distiller, source, list(others))


def test_a_position_in_the_data_that_cannot_be_read_is_reported(
    make_distiller, batches, tmp_path
):
    fit(make_distiller(), batches, tmp_path, epochs=1)
    newest = snapshots.newest_snapshot(tmp_path, print)
    snapshots.write_snapshot(
        tmp_path, newest.step, newest.tensors, newest.values, keep=1
    )
    with pytest.raises(
        ValueError, match="position in the data .* cannot be re"
    ):
        fit(make_distiller(), batches, tmp_path, epochs=2)


class Overflow(keras.callbacks.Callback):
    """Mimics an update that is too large, though its loss was finite."""

    def on_train_batch_end(self, batch, logs=None):
        if updates(self.model) == 3:
            bias = self.model.student.trainable_variables[-1]
            bias.assign(bias.numpy() * float("inf"))


def test_weights_that_are_not_finite_are_not_saved(
    make_distiller, batches, tmp_path
):
    with pytest.raises(
        RuntimeError,
        match="step 3: its update produced 1 variables .* with --fre",
    ):
        fit(make_distiller(), batches, tmp_path, Overflow(), every_steps=1)
    assert names(tmp_path) == ["step-000000001", "step-000000002"]
