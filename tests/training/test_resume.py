import json
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism
from toy import SIZES, make_student, make_teacher

from keras_distil import Distiller, callbacks, data, losses
from keras_distil.utils import disk

SPECIAL = data.SpecialTokens(
    pad_id=0, unknown_id=1, cls_id=2, sep_id=3, mask_id=4
)
STEPS = 6  # an epoch


class Stop(Exception):
    """Ends the process in a test."""


class StopAt(keras.callbacks.Callback):
    def __init__(self, update):
        super().__init__()
        self.update = update

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.update:
            raise Stop


class Copy(keras.callbacks.Callback):
    """Copies a folder at an update, as if the process had died there."""

    def __init__(self, folder, copies):
        super().__init__()
        self.folder = folder
        self.copies = copies

    def on_train_batch_end(self, batch, logs=None):
        copy = self.copies.get(int(self.model.optimizer.iterations.numpy()))
        if copy is not None:
            shutil.copytree(self.folder, copy)


class Seen(keras.callbacks.Callback):
    """Records the calls of a callback."""

    def __init__(self):
        super().__init__()
        self.events = []
        self.logs = []

    def on_train_begin(self, logs=None):
        self.events.append("train begin")

    def on_train_end(self, logs=None):
        self.events.append("train end")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        self.events.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(logs)


def stream(**arguments):
    sequences = np.random.default_rng(0).integers(5, 50, (17, 8))
    return data.masked_lm_dataset(
        sequences.astype("uint16"),
        special=SPECIAL,
        vocabulary_size=SIZES["vocabulary_size"],
        batch_size=4,
        seed=1,
        **arguments,
    )


def other_dataset():
    """An endless dataset, not keras_distil's, whose shuffling has a state."""
    first = next(iter(stream(steps=1)))
    batches = tf.data.Dataset.from_tensor_slices(first).repeat()
    return batches.shuffle(16, seed=5).batch(4)


def with_python(x, y, sample_weight):
    y = tf.ensure_shape(tf.py_function(lambda y: y, [y], tf.int32), (4, 8))
    return x, y, sample_weight


def make(**options):
    """Eager by default, which is faster for so few steps."""
    keras.utils.set_random_seed(3)
    teacher = make_teacher()
    distiller = Distiller(
        teacher,
        make_student(teacher, dropout=0.2, hidden_dim=8),
        losses.triple_loss(),
    )
    distiller.compile(
        keras.optimizers.AdamW(0.01),
        clip_norm=1.0,
        **{"run_eagerly": True, **options},
    )
    return distiller


def train(distiller, folder, *more, batches=None, epochs=3, **arguments):
    arguments = {"steps_per_epoch": STEPS, "every_steps": 2, **arguments}
    state = callbacks.TrainingState(
        folder, every_steps=arguments.pop("every_steps")
    )
    return distiller.fit(
        stream() if batches is None else batches,
        epochs=epochs,
        verbose=0,
        callbacks=[
            *more,
            callbacks.TemperatureScheduler(lambda step: 4.0 - 0.1 * step),
            state,
        ],
        **arguments,
    )


def final_state(distiller):
    """Bytes of everything that training changes."""
    variables = [
        *distiller.student.variables,
        *distiller.variables,
        *distiller.optimizer.variables,
    ]
    return [np.array(variable.numpy()).tobytes() for variable in variables]


@pytest.fixture(scope="module", autouse=True)
def deterministic():
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()  # TensorFlow has no public name for it.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training, and its folder as it was after some updates."""
    folder = tmp_path_factory.mktemp("whole")
    copies = {
        update: tmp_path_factory.mktemp("copies") / str(update)
        for update in (1, 3, 4, 9)
    }
    distiller, seen = make(), Seen()
    train(distiller, folder, seen, Copy(folder, copies))
    return types.SimpleNamespace(
        state=final_state(distiller), seen=seen, folder=folder, copies=copies
    )


@pytest.mark.essential
@pytest.mark.parametrize(
    "update", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 9))]
)
def test_resumed_equals_uninterrupted(whole, update):
    resumed, seen = make(), Seen()
    train(resumed, whole.copies[update], seen)
    assert final_state(resumed) == whole.state
    # The epoch that was interrupted has the means of all its updates.
    for found, expected in zip(
        reversed(seen.logs), reversed(whole.seen.logs), strict=False
    ):
        assert found == expected


@pytest.mark.slow
def test_many_interruptions_equal_none(whole, tmp_path):
    for update in (3, 6, 13):
        with pytest.raises(Stop):
            train(make(), tmp_path, StopAt(update), every_steps=1)
    resumed = make()
    train(resumed, tmp_path, every_steps=1)
    assert final_state(resumed) == whole.state


@pytest.mark.slow
def test_callbacks_see_one_training(whole, monkeypatch):
    """The stream is entered at the step, not wound forward to it."""
    entered = []
    dataset = data.Stream.dataset

    def spy(self, first_step=0, **arguments):
        entered.append(first_step)
        return dataset(self, first_step, **arguments)

    batches = stream()
    monkeypatch.setattr(data.Stream, "dataset", spy)
    seen = Seen()
    folder = whole.copies[3]
    history = train(make(), folder, seen, batches=batches, epochs=2)
    rest, every = list(range(2, STEPS)), list(range(STEPS))
    assert seen.events == [
        *["train begin", "epoch 0", *rest, "epoch 1", *every, "train end"]
    ]
    assert history.epoch == [0, 1]
    assert entered == [2, 6]


def test_a_finished_training_is_not_done_again(whole, tmp_path):
    shutil.copytree(whole.folder, tmp_path / "finished")
    again, seen = make(), Seen()
    train(again, tmp_path / "finished", seen)
    assert final_state(again) == whole.state
    assert seen.events == ["train begin", "train end"]


@pytest.mark.slow
def test_a_finite_stream_starts_again_each_epoch(tmp_path):
    def batches():
        return stream(steps=STEPS + 2, first_step=2)

    whole, resumed = make(), make()
    copy = Copy(tmp_path / "a", {9: tmp_path / "b"})
    train(whole, tmp_path / "a", copy, batches=batches(), steps_per_epoch=None)
    train(resumed, tmp_path / "b", batches=batches(), steps_per_epoch=None)
    assert final_state(resumed) == final_state(whole)


@pytest.mark.slow
def test_graphs_and_executions_keep_the_result(tmp_path):
    graph = {"run_eagerly": False}
    whole = make(**graph)
    train(whole, tmp_path / "a", Copy(tmp_path / "a", {4: tmp_path / "b"}))
    two = {**graph, "steps_per_execution": 2}
    with pytest.raises(Stop):
        train(make(**two), tmp_path / "c", StopAt(10))
    for options, folder in ((graph, "b"), (two, "c")):
        resumed = make(**options)
        train(resumed, tmp_path / folder)
        assert final_state(resumed) == final_state(whole)


@pytest.mark.slow
def test_another_dataset_resumes_by_its_iterator(tmp_path):
    whole = make()
    copy = Copy(tmp_path / "a", {3: tmp_path / "b"})
    train(whole, tmp_path / "a", copy, batches=other_dataset())
    with pytest.raises(Stop):
        train(make(), tmp_path / "b", StopAt(9), batches=other_dataset())
    resumed = make()
    train(resumed, tmp_path / "b", batches=other_dataset())
    assert final_state(resumed) == final_state(whole)


@pytest.mark.slow
def test_what_cannot_be_continued_is_refused(tmp_path):
    python = other_dataset().map(with_python)
    with pytest.raises(ValueError, match="its iterator cannot be saved"):
        train(make(), tmp_path, batches=python)
    with pytest.raises(TypeError, match=r"needs a `tf.data.Dataset`.*tuple"):
        train(make(), tmp_path, batches=(1, 2))
    with pytest.raises(ValueError, match="is needed with an endless dataset"):
        train(make(), tmp_path, steps_per_epoch=None)
    with pytest.raises(ValueError, match="whole number of epochs long"):
        train(make(), tmp_path, batches=stream(steps=STEPS + 1))
    assert not list(tmp_path.iterdir())


def rewrite_state(folder, **changes):
    """Changes values of the newest state; None removes one."""
    newest = max(folder.glob("step-*"))
    path = newest / "manifest.json"
    manifest = json.loads(path.read_text())
    values = {**manifest["values"], **changes}
    manifest["values"] = {k: v for k, v in values.items() if v is not None}
    body = {key: manifest[key] for key in manifest if key != "sha256"}
    manifest["sha256"] = disk.sha256(disk.canonical(body))
    path.write_text(json.dumps(manifest))


@pytest.mark.slow
@pytest.mark.essential
def test_a_state_of_another_order_is_refused(tmp_path):
    with pytest.raises(Stop):
        train(make(), tmp_path, StopAt(3))
    resumed = make()
    before = final_state(resumed)
    # States from before the version was recorded do not have it.
    for version in (None, 1, 99):
        rewrite_state(tmp_path, order_version=version)
        with pytest.raises(
            ValueError,
            match=rf"another order \(order version {version or 1}, this one "
            r"has \d+\): it cannot be continued exactly",
        ):
            train(resumed, tmp_path)
    assert final_state(resumed) == before


@pytest.mark.slow
def test_the_order_of_other_data_is_its_own(tmp_path):
    with pytest.raises(Stop):
        train(make(), tmp_path, StopAt(3), batches=other_dataset())
    rewrite_state(tmp_path, order_version=None)
    resumed = make()
    train(resumed, tmp_path, batches=other_dataset(), epochs=1)
    assert int(resumed.optimizer.iterations.numpy()) == STEPS
