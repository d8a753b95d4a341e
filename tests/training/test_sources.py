"""Training on finite data that is not keras_distil's, and going on with it."""

import os
import signal
import types
from pathlib import Path

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from tensorflow.python.framework.config import disable_op_determinism

from keras_distil import Distiller, callbacks, data, losses
from keras_distil.training import sources

ROOT = Path(__file__).parents[2]
BATCHES = 4  # of a pass
EPOCHS = 3


class Stop(Exception):
    """Ends the process in a test."""


class StopAt(keras.callbacks.Callback):
    def __init__(self, update):
        super().__init__()
        self.update = update

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.update:
            raise Stop


@pytest.fixture(scope="module", autouse=True)
def deterministic():
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()  # TensorFlow has no public name for it.


def arrays():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(4 * BATCHES, 5)).astype("float32")
    return x, generator.integers(0, 3, len(x))


def examples():
    return tf.data.Dataset.from_tensor_slices(arrays())


def plain():
    return examples().batch(4)


def shuffled():
    """One order for all epochs, but not that of the arrays."""
    return (
        examples()
        .shuffle(16, seed=5, reshuffle_each_iteration=False)
        .batch(4)
        .map(lambda *batch: batch)
        .prefetch(2)
    )


def generated():
    """A generator, whose length TensorFlow cannot know."""
    x, y = arrays()

    def batches():
        for start in range(0, len(y), 4):
            yield x[start : start + 4], y[start : start + 4]

    made = tf.data.Dataset.from_generator(
        batches, output_signature=plain().element_spec
    )
    return made.apply(tf.data.experimental.assert_cardinality(BATCHES))


def stream():
    """Finite data of keras_distil."""
    x, y = map(tf.constant, arrays())

    def batch(step, places):
        rows = 4 * step + places
        return tf.gather(x, rows), tf.gather(y, rows)

    return data.Stream(batch, batch_size=4, steps=BATCHES).dataset()


def make():
    """A Distiller of two small models, with dropout."""
    keras.utils.set_random_seed(3)
    teacher, student = (
        keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Dense(6, name="inner"),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3, name="outer"),
            ],
            name=name,
        )
        for name in ("teacher", "student")
    )
    distiller = Distiller(
        teacher,
        student,
        [losses.LabelCrossentropy(), losses.SoftTargetKLDivergence()],
    )
    # Eager steps take less time than tracing one.
    distiller.compile(keras.optimizers.AdamW(0.01), run_eagerly=True)
    return distiller


def train(distiller, folder, batches, *more, **arguments):
    state = callbacks.TrainingState(folder, every_steps=1)
    return distiller.fit(
        batches,
        verbose=0,
        callbacks=[*more, state],
        **{"epochs": EPOCHS, **arguments},
    )


def final_state(distiller):
    variables = [*distiller.variables, *distiller.optimizer.variables]
    return [np.array(variable.numpy()).tobytes() for variable in variables]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "updates"),
    [
        # In the middle of epoch 2.
        (shuffled, [BATCHES + 2]),
        # Also at its end, and in the middle of the last one.
        *(
            pytest.param(
                dataset,
                [BATCHES + 2, 2 * BATCHES, 2 * BATCHES + 1],
                marks=pytest.mark.slow,
            )
            for dataset in (plain, generated)
        ),
    ],
)
def test_a_finite_dataset_is_entered_by_skipping(dataset, updates, tmp_path):
    whole = make()
    whole.fit(dataset(), epochs=EPOCHS, verbose=0)
    for update in updates:
        with pytest.raises(Stop):
            train(make(), tmp_path, dataset(), StopAt(update))
    resumed = make()
    history = train(resumed, tmp_path, dataset())
    assert final_state(resumed) == final_state(whole)
    assert history.epoch == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [plain, stream])
def test_a_pass_may_be_several_epochs(dataset, tmp_path):
    arguments = {"epochs": 5, "steps_per_epoch": 2}
    whole = make()
    whole.fit(dataset(), verbose=0, **arguments)
    # Within epochs, and between the two epochs of a pass.
    for update in (2, 3, 7):
        with pytest.raises(Stop):
            train(make(), tmp_path, dataset(), StopAt(update), **arguments)
    resumed = make()
    train(resumed, tmp_path, dataset(), **arguments)
    assert final_state(resumed) == final_state(whole)


@pytest.mark.slow
def test_only_what_is_missing_is_read(tmp_path):
    """The batches before are skipped, not trained on again."""
    with pytest.raises(Stop):
        train(make(), tmp_path, plain(), StopAt(BATCHES + 2))
    resumed, seen = make(), []
    resumed.fit(
        plain(),
        epochs=EPOCHS,
        verbose=0,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: seen.append(batch)
            ),
            callbacks.TrainingState(tmp_path),
        ],
    )
    # The state of the update that raised was not yet written.
    assert seen == [*range(1, BATCHES), *range(BATCHES)]


SCRIPT = """
import sys
import numpy as np
import test_sources

folder, update = sys.argv[1], int(sys.argv[2])
test_sources.tf.config.experimental.enable_op_determinism()
distiller = test_sources.make()
killed = test_sources.KillAt(update)
test_sources.train(distiller, folder, test_sources.shuffled(), killed)
np.save(sys.argv[3], np.concatenate(
    [np.ravel(v.numpy()) for v in distiller.student.weights]
))
"""


class KillAt(keras.callbacks.Callback):
    def __init__(self, update):
        super().__init__()
        self.update = update

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.update:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.essential
def test_a_killed_process_is_continued_by_another(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT, "utf-8")
    places = (ROOT, ROOT / "tests", ROOT / "tests" / "training")

    def run(folder, update):
        return processes.run(
            ["train.py", folder, str(update), f"{folder}.npy"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, places)),
                "TF_CPP_MIN_LOG_LEVEL": "2",
            },
        ).returncode

    assert run("whole", -1) == 0
    assert run("killed", BATCHES + 3) == -signal.SIGKILL
    assert run("killed", -1) == 0
    np.testing.assert_array_equal(
        np.load(tmp_path / "killed.npy"), np.load(tmp_path / "whole.npy")
    )


def source_of(dataset, steps_per_epoch=None):
    return sources.make_source(MODEL, dataset, steps_per_epoch)


MODEL = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def test_other_data_is_refused(tmp_path):
    source_of(plain()).save(tmp_path)
    source_of(plain()).restore(tmp_path)
    with pytest.raises(ValueError, match="other data: the first batch is"):
        source_of(shuffled()).restore(tmp_path)
    (tmp_path / "first_batch.sha256").unlink()
    with pytest.raises(ValueError, match="other data: the first batch is"):
        source_of(plain()).restore(tmp_path)


def test_a_length_must_be_known():
    unknown = examples().filter(lambda x, y: True).batch(4)
    with pytest.raises(
        ValueError,
        match=r"how many batches .* `.apply\(tf.data.experimental."
        r"assert_cardinality\(count\)\)`",
    ):
        source_of(unknown)
    with pytest.raises(ValueError, match="The dataset has no batches"):
        source_of(plain().take(0))
    with pytest.raises(
        ValueError, match="whole number of epochs long. Received: 4 batches"
    ):
        source_of(plain(), 3)


def test_an_endless_dataset_needs_the_length_of_an_epoch():
    with pytest.raises(ValueError, match="`steps_per_epoch` is needed with an"):
        source_of(plain().repeat())


def test_replicas_read_only_datasets_of_keras_distil():
    strategy = types.SimpleNamespace(num_replicas_in_sync=2)
    model = types.SimpleNamespace(distribute_strategy=strategy)
    for dataset in (plain(), plain().repeat()):
        with pytest.raises(ValueError, match="keras_distil's own datasets onl"):
            sources.make_source(model, dataset, 2)
    assert sources.make_source(model, stream(), 2).length == BATCHES


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        x, y = arrays()
        rows = slice(index * 4, index * 4 + 4)
        return x[rows], y[rows]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            {"a": arrays()[0]},
            "type dict. Give `tf.data.Dataset.from_ten",
        ),
        (np.zeros((4, 2)), "type ndarray. Give `tf.data.Dataset.from_ten"),
        (Batches(), "type Batches. Give `tf.data.Dataset.from_generator"),
        (iter([1]), r"type list_iterator\.$"),
    ],
)
def test_anything_else_is_refused_with_a_dataset_to_give(x, message):
    with pytest.raises(
        TypeError, match=rf"needs a `tf.data.Dataset`, .* {message}"
    ):
        source_of(x)


def test_the_datasets_of_the_messages_are_continued():
    source = source_of(
        tf.data.Dataset.from_tensor_slices(arrays())
        .shuffle(16, seed=0)
        .batch(4)
        .repeat(),
        6,
    )
    assert source.length is None
    batches = Batches()
    source = source_of(
        tf.data.Dataset.from_generator(
            lambda: (batches[i] for i in range(len(batches))),
            output_signature=plain().element_spec,
        ).apply(tf.data.experimental.assert_cardinality(len(batches)))
    )
    assert source.length == 2


# === Autotuning ===


@pytest.fixture
def iterated(monkeypatch):
    """The `autotune.enabled` of every dataset that Keras iterates."""
    made, found = trainer.TFEpochIterator.__init__, []

    def watch(self, *args, **kwargs):
        made(self, *args, **kwargs)
        options = self._distributed_dataset.options()
        found.append(options.autotune.enabled)

    monkeypatch.setattr(trainer.TFEpochIterator, "__init__", watch)
    return found


@pytest.mark.parametrize("resumable", [False, True])
def test_no_pass_over_our_data_ends_late(tmp_path, iterated, resumable):
    """The thread that tunes may sleep for a minute before a pass ends."""
    kept = [callbacks.TrainingState(tmp_path)] if resumable else []
    distiller = make()
    distiller.fit(stream(), validation_data=stream(), callbacks=kept, verbose=0)
    distiller.evaluate(stream(), verbose=0)
    assert iterated == [False, False, False]


def test_other_data_is_read_as_it_is_given(iterated):
    """States hold iterators, which must not change."""
    make().fit(plain(), verbose=0)
    assert iterated == [None]
