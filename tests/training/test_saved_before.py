"""What Distillers of an earlier commit saved is loaded and trained on.

`golden/before_layout/make_saved.py` made the files with that commit.
"""

import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_distil import callbacks

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "golden" / "before_layout"


@pytest.fixture(scope="module")
def maker():
    sys.path.insert(0, str(FOLDER))
    try:
        import make_saved
    finally:
        sys.path.remove(str(FOLDER))
    return make_saved


@pytest.mark.parametrize("kind", ["text", "task"])
def test_an_archive_is_loaded_and_trained_on(maker, kind):
    loaded = keras.saving.load_model(FOLDER / f"{kind}.keras")
    assert int(loaded.optimizer.iterations.numpy()) == 2
    assert loaded.projection.name == "hidden_state_projection"
    assert loaded.layer_projections == []
    assert loaded.get_loss("cosine").layers == "last"
    loaded.fit(maker.make_batches(kind), steps_per_epoch=6, verbose=0)
    assert_end_is_that_of_then(loaded, kind)


@pytest.mark.parametrize("kind", ["text", "task"])
def test_a_training_state_is_gone_on_from(maker, tmp_path, kind):
    folder = shutil.copytree(FOLDER / f"{kind}_states", tmp_path / "states")
    distiller = maker.make_distiller(kind)
    state = callbacks.TrainingState(folder, every_steps=3, keep=9)
    made = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: made.append(batch)
    )
    count.has_training_state = False
    distiller.fit(
        maker.make_batches(kind),
        epochs=2,
        steps_per_epoch=4,
        verbose=0,
        callbacks=[count, state],
    )
    assert len(made) == 1
    assert_end_is_that_of_then(distiller, kind)


def assert_end_is_that_of_then(distiller, kind):
    with np.load(FOLDER / f"{kind}_end.npz") as end:
        expected = list(end.values())
    variables = distiller.trainable_variables
    assert len(variables) == len(expected)
    for variable, value in zip(variables, expected, strict=True):
        # Another machine's sums; Adam divides gradients near 0 by themselves.
        np.testing.assert_allclose(
            variable.numpy(), value, rtol=1e-4, atol=1e-4
        )
