import re

import keras
import pytest
import tensorflow as tf

from keras_distil import callbacks
from keras_distil.utils import progress


class Recorded:
    """Records what a bar would show."""

    def __init__(self):
        self.shown = []

    def update(self, done, text=""):
        self.shown.append((done, text))


class Stop(keras.callbacks.Callback):
    """Fails after some updates."""

    def __init__(self, updates):
        super().__init__()
        self.left = updates

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise InterruptedError


@pytest.fixture
def batches(triple):
    return tf.data.Dataset.from_tensor_slices(triple).repeat().batch(2)


def fit(distiller, batches, bar, folder=None, *more):
    state = None
    if folder is not None:
        state = callbacks.TrainingState(folder, every_steps=3)
    distiller.fit(
        batches,
        epochs=2,
        steps_per_epoch=4,
        verbose=0,
        callbacks=[
            *([state] if state else []),
            callbacks.ProgressBar(bar, state),
            *more,
        ],
    )


def test_it_shows_epoch_losses_and_speed(make_distiller, batches, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(
        "keras_distil.callbacks.progress_bar.time.monotonic",
        lambda: float(next(clock)),
    )
    bar, distiller = Recorded(), make_distiller()
    fit(distiller, batches, bar)
    assert [done for done, _ in bar.shown] == list(range(1, 9))
    for number, (_, text) in enumerate(bar.shown):
        assert text.startswith(f"epoch {number // 4 + 1}/2, loss ")
        # Two sequences of eight tokens in four seconds, whenever it is read.
        assert text.endswith(", 4 tokens/s")
    last = distiller.step_values
    _, text = bar.shown[-1]
    for name in ("loss", "mlm_loss", "cosine_loss", "mlm_accuracy"):
        shown = re.search(rf"\b{name.removesuffix('_loss')} (\S+?)[, ]", text)
        assert float(shown[1]) == pytest.approx(float(last[name]), abs=6e-4)


def test_it_tells_when_a_state_was_written(make_distiller, batches, tmp_path):
    bar = Recorded()
    fit(make_distiller(), batches, bar, tmp_path)
    shows_saved = [
        bool(re.search("saved [0-9]+ s ago", t)) for _, t in bar.shown
    ]
    # The first is written after three updates, when they have been shown.
    assert shows_saved == [*[False] * 3, *[True] * 5]


def test_an_interrupted_training_is_counted_on(
    make_distiller, batches, tmp_path
):
    bar = Recorded()
    with pytest.raises(InterruptedError):
        fit(make_distiller(), batches, bar, tmp_path, Stop(6))
    assert bar.shown[-1][0] == 6
    bar = Recorded()
    fit(make_distiller(), batches, bar, tmp_path)
    # The end of the epoch is a state, too.
    assert [done for done, _ in bar.shown] == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (9000, "2.5 h")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text
