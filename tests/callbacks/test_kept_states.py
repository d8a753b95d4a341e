"""Callbacks used with `TrainingState`: resumed equals uninterrupted."""

import csv
import logging
import types

import keras
import marks
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import callbacks
from keras_distil.callbacks import kept_states
from keras_distil.training import snapshots

STEPS = 2
# The monitored value after each epoch; the best is the second.
SCORES = [3.0, 2.0, 4.0, 5.0, 2.5, 6.0]


class Died(Exception):
    """The process ended here."""


class Die(keras.callbacks.Callback):
    """Ends the process after an update, or at the end of an epoch."""

    def __init__(self, update=None, epoch=None):
        super().__init__()
        self.update = update
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        # By now the state of that update has been written.
        if int(self.model.optimizer.iterations.numpy()) == self.update:
            raise Died

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Died


class Score(keras.callbacks.Callback):
    """Logs the scores above."""

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = SCORES[epoch]


@pytest.fixture(scope="package")
def make_distiller(make_distiller):
    """Compares two values for equality."""

    def make(**options):
        keras.utils.set_random_seed(1)
        return make_distiller(**options)

    return make


@pytest.fixture
def batches(triple):
    return tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)


def fit(distiller, batches, folder, *more, epochs=6):
    return distiller.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[
            Score(),
            *more,
            callbacks.TrainingState(folder, every_steps=1),
        ],
    )


def assert_same_weights(found, expected):
    for ours, theirs in zip(
        found.student.weights, expected.student.weights, strict=True
    ):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def early_stopping(folder):
    return keras.callbacks.EarlyStopping(
        "score", patience=2, mode="min", restore_best_weights=True
    )


def plateau(folder):
    return keras.callbacks.ReduceLROnPlateau(
        "score", factor=0.5, patience=1, cooldown=2, mode="min"
    )


def checkpoint(folder):
    return keras.callbacks.ModelCheckpoint(
        folder / "best.weights.h5",
        "score",
        save_best_only=True,
        save_weights_only=True,
        mode="min",
    )


def every_three(folder):
    return keras.callbacks.ModelCheckpoint(
        str(folder / "{epoch}-{batch}.weights.h5"),
        save_weights_only=True,
        save_freq=3,
    )


def csv_log(folder):
    return keras.callbacks.CSVLogger(folder / "log.csv")


def appended_csv_log(folder):
    return keras.callbacks.CSVLogger(folder / "more.csv", append=True)


def decay(folder):
    return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)


# One training with the first, one with all the others.
STOPPING = (early_stopping,)
OTHERS = (plateau, checkpoint, every_three, csv_log, appended_csv_log, decay)
GROUPS = {"stopping": STOPPING, "others": OTHERS}
# Inside an epoch: at the first of its two updates. And at an end.
ENDS = {"inside": {"update": 7}, "at its end": {"epoch": 3}}
each_end = pytest.mark.parametrize(
    "end", ["inside", pytest.param("at its end", marks=pytest.mark.slow)]
)


@pytest.fixture(scope="module")
def whole(make_distiller, triple, tmp_path_factory):
    """Uninterrupted trainings, by the callbacks beside the state."""
    batches = tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)
    found = {}
    for group in GROUPS.values():
        folder = tmp_path_factory.mktemp("whole")
        distiller = make_distiller()
        made = [make(folder) for make in group]
        history = fit(distiller, batches, folder / "states", *made)
        found[group] = types.SimpleNamespace(
            distiller=distiller, made=made, history=history, folder=folder
        )
    return found


@pytest.mark.slow
@each_end
@pytest.mark.parametrize("group", marks.essential(GROUPS, "others"))
def test_resumed_equals_uninterrupted(
    whole, group, end, make_distiller, batches, tmp_path
):
    expected = whole[GROUPS[group]]
    interrupted = [make(tmp_path) for make in GROUPS[group]]
    with pytest.raises(Died):
        fit(
            make_distiller(),
            batches,
            tmp_path / "states",
            # Its place in the list does not matter.
            Die(**ENDS[end]),
            *interrupted,
        )
    for callback in interrupted:
        if isinstance(callback, keras.callbacks.CSVLogger):
            callback.csv_file.close()
    resumed = make_distiller()
    made = [make(tmp_path) for make in GROUPS[group]]
    history = fit(resumed, batches, tmp_path / "states", *made)
    assert_same_weights(resumed, expected.distiller)
    assert float(resumed.optimizer.learning_rate) == float(
        expected.distiller.optimizer.learning_rate
    )
    assert history.epoch == expected.history.epoch
    assert history.history == expected.history.history
    for callback, other in zip(made, expected.made, strict=True):
        for name in kept_states._get_attributes(callback) or ():
            if name != "best_weights":
                assert getattr(callback, name) == getattr(other, name), name
    assert _files(tmp_path) == _files(expected.folder)
    for path in expected.folder.glob("*.csv"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def _files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_the_trainings_above_do_what_they_are_for(whole):
    """The expected values, worked out by hand from the scores."""
    # Best after the second epoch; two more without a better one.
    stopped = whole[STOPPING]
    assert stopped.history.epoch == [0, 1, 2, 3]
    assert (stopped.made[0].best, stopped.made[0].best_epoch) == (2.0, 1)
    others = whole[OTHERS]
    # Halved at each begin of an epoch; and after epochs 3 and 5, as in the
    # fourth and the sixth it cools down.
    rate = float(others.distiller.optimizer.learning_rate)
    assert rate == pytest.approx(0.01 / 2**8)
    assert others.made[1].best == 2.0
    assert _files(others.folder)[:4] == [
        "2-1.weights.h5",
        "3-2.weights.h5",
        "5-1.weights.h5",
        "6-2.weights.h5",
    ]
    for name in ("log.csv", "more.csv"):
        with (others.folder / name).open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["score"]) for row in rows] == SCORES


def test_a_training_that_had_ended_is_not_trained_further(
    whole, make_distiller, batches
):
    expected = whole[STOPPING]
    again, callback = make_distiller(), early_stopping(None)
    history = fit(again, batches, expected.folder / "states", callback)
    assert history.epoch == [0, 1, 2, 3]
    assert again.stop_training
    assert int(again.optimizer.iterations.numpy()) == 4 * STEPS
    assert_same_weights(again, expected.distiller)


def test_the_teacher_is_not_written_again(whole):
    """EarlyStopping's best weights are all weights but the teacher's."""
    folder = whole[STOPPING].folder / "states"
    tensors = snapshots.newest_snapshot(folder, print).tensors
    distiller = whole[STOPPING].distiller
    kept = [name for name in tensors if name.startswith("callbacks/")]
    own = len(distiller.weights) - len(distiller.teacher.weights)
    assert len(kept) == own > 0


# === Callbacks of others ===


class Joined(keras.callbacks.Callback):
    """Has a state and the protocol; counts epochs as they begin."""

    def __init__(self):
        super().__init__()
        self.sums = np.zeros(2)

    def on_train_begin(self, logs=None):
        self.begun = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.begun += 1

    def on_train_batch_end(self, batch, logs=None):
        self.sums[batch] += 1.0

    def get_training_state(self):
        return {"begun": self.begun, "sums": self.sums, "more": (1, None)}

    def set_training_state(self, state):
        assert state["more"] == [1, None]
        self.begun, self.sums = state["begun"], state["sums"].copy()


@each_end
def test_own_callbacks_may_join(make_distiller, batches, tmp_path, end):
    with pytest.raises(Died):
        fit(make_distiller(), batches, tmp_path, Joined(), Die(**ENDS[end]))
    joined = Joined()
    fit(make_distiller(), batches, tmp_path, joined)
    assert joined.begun == 6
    np.testing.assert_array_equal(joined.sums, [6.0, 6.0])


class Patience(keras.callbacks.Callback):
    """Has a state but not the protocol."""

    def __init__(self):
        super().__init__()
        self.waited = 0
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.waited += 1


class Recorder(Patience):
    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(epoch)


class Declared(Patience):
    has_training_state = False


@pytest.mark.slow
def test_callbacks_with_numbers_are_refused_by_name(
    make_distiller, batches, tmp_path, caplog
):
    more = [Patience(), Recorder(), Declared()]
    fit(make_distiller(), batches, tmp_path, *more, epochs=1)
    resumed = make_distiller()
    with pytest.raises(
        ValueError,
        match=r"continue exactly with Patience: it had changed \['waited'\]",
    ):
        fit(resumed, batches, tmp_path, *more)
    assert int(resumed.optimizer.iterations.numpy()) == 0
    with caplog.at_level(logging.WARNING):
        fit(resumed, batches, tmp_path, Recorder(), Declared(), epochs=2)
    assert "Recorder had changed ['seen']" in caplog.text
    assert "Declared" not in caplog.text


def test_others_that_come_and_go_are_named(
    make_distiller, batches, tmp_path, caplog
):
    fit(make_distiller(), batches, tmp_path, plateau(None), epochs=1)
    with caplog.at_level(logging.WARNING):
        fit(make_distiller(), batches, tmp_path, early_stopping(None), epochs=2)
    assert "has a state of ReduceLROnPlateau, which is not" in caplog.text
    assert "has no state of EarlyStopping: it starts from" in caplog.text


class Strange(Joined):
    def get_training_state(self):
        return {"begun": {1, 2}}


def test_what_cannot_be_kept_is_refused(make_distiller, batches, tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    distiller = make_distiller()
    for more, error, message in (
        (backup, ValueError, "Leave out `BackupAndRestore`"),
        (Strange(), TypeError, "state of Strange must be made of numbers"),
    ):
        with pytest.raises(error, match=message):
            fit(distiller, batches, tmp_path / "states", more)
    assert int(distiller.optimizer.iterations.numpy()) == 0
    with pytest.raises(
        ValueError, match="cannot keep the state of Keras's Orb"
    ):
        kept_states.KeptStates([_orbax()])


def _orbax():
    kind = keras.callbacks.OrbaxCheckpoint
    return kind.__new__(kind)  # Its package need not be installed.


def test_every_callback_of_keras_is_decided_on():
    kinds = {
        kind
        for kind in vars(keras.callbacks).values()
        if isinstance(kind, type) and issubclass(kind, keras.callbacks.Callback)
    }
    refused = {
        keras.callbacks.BackupAndRestore,
        keras.callbacks.OrbaxCheckpoint,
    }
    basis = {keras.callbacks.Callback, keras.callbacks.CallbackList}
    decided = {*kept_states.ATTRIBUTES, *kept_states.STATELESS}
    assert kinds - refused - basis == decided


def test_counters_of_tensorboard_and_swaps_continue(make_distiller, tmp_path):
    """Without training: the restored state equals the saved one."""
    made = [
        (keras.callbacks.TensorBoard(tmp_path), "_global_train_batch", 7),
        (keras.callbacks.SwapEMAWeights(), "_ema_weights_in_model", True),
    ]
    for callback, name, value in made:
        setattr(callback, name, value)
        if name == "_global_train_batch":
            callback._global_test_batch = 3
    kept = kept_states.KeptStates([callback for callback, _, _ in made])
    now = kept.get()
    for callback, name, _ in made:
        setattr(callback, name, 0)
    kept.put_back(kept.read(now.values, now.arrays))
    assert [getattr(callback, name) for callback, name, _ in made] == [7, True]


@pytest.mark.slow
def test_the_balancer_looks_when_it_would_have(
    make_distiller, triple, batches, tmp_path, monkeypatch
):
    """Executions of two and one of three updates; a look every fourth."""
    looks = []
    monkeypatch.setattr(
        callbacks.GradientBalancer,
        "_balance",
        lambda self: looks.append(self._step),
    )

    def train(folder, *more):
        made = make_distiller(steps_per_execution=2)
        made.fit(
            *(batches, None, None, 3, 0),
            steps_per_epoch=3,
            callbacks=[
                callbacks.GradientBalancer(
                    triple, {"mlm": 1.0, "cosine": 1.0}, every_steps=2
                ),
                *more,
                callbacks.TrainingState(folder, every_steps=1),
            ],
        )

    train(tmp_path / "whole")
    expected = list(looks)
    looks.clear()
    with pytest.raises(Died):
        train(tmp_path / "parts", Die(epoch=1))
    train(tmp_path / "parts")
    assert looks == expected


@pytest.mark.slow
def test_an_epoch_that_a_callback_ended_continues(
    make_distiller, batches, tmp_path
):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == 3:
                self.model.stop_training = True

    whole, resumed = make_distiller(), make_distiller()
    fit(whole, batches, tmp_path / "whole", epochs=2)
    fit(make_distiller(), batches, tmp_path / "parts", Stop(), epochs=2)
    history = fit(resumed, batches, tmp_path / "parts", epochs=2)
    assert history.epoch == [0, 1]
    assert int(resumed.optimizer.iterations.numpy()) == 4
    assert_same_weights(resumed, whole)


def test_an_initial_epoch_behind_the_state_is_refused(
    make_distiller, batches, tmp_path
):
    fit(make_distiller(), batches, tmp_path, epochs=1)
    with pytest.raises(ValueError, match="in epoch 1, .*initial_epoch=2. Lea"):
        make_distiller().fit(
            batches,
            initial_epoch=2,
            epochs=3,
            steps_per_epoch=STEPS,
            callbacks=callbacks.TrainingState(tmp_path),
        )
