"""KerasTuner's tuners on any Keras models."""

import any_models
import h5py
import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FatalRuntimeError

from keras_distil import losses, search


def make(hp):
    temperature = hp.Choice("temperature", [1.0, 4.0])
    width = hp.Choice("width", [2, 3])
    made = [
        losses.LabelCrossentropy(),
        losses.SoftTargetKLDivergence(temperature=temperature),
        losses.HiddenStateMeanSquaredError(layers=[("hidden", "hidden")]),
    ]
    student = any_models.make_mlp(width, seed=2)
    return student, made, {"optimizer": "sgd", "run_eagerly": True}


def make_tuner(make, folder):
    return keras_tuner.GridSearch(
        search.AnyModelHyperModel(any_models.make_mlp(6, seed=1), make),
        keras_tuner.Objective("val_label_loss", "min"),
        directory=str(folder),
        project_name="search",
    )


@pytest.mark.slow
def test_every_choice_is_tried_and_the_best_is_kept(tmp_path):
    tuner = make_tuner(make, tmp_path)
    before = [v.numpy() for v in tuner.hypermodel.teacher.variables]
    x, y, weight = any_models.make_batch()
    held_out = any_models.make_batch(seed=4)
    tuner.search(
        x, y, sample_weight=weight, validation_data=held_out, verbose=0
    )
    assert len(tuner.oracle.trials) == 4
    assert {t.status for t in tuner.oracle.trials.values()} == {"COMPLETED"}
    best = tuner.get_best_models()[0]
    score = best.evaluate(*held_out[:1], held_out[1], sample_weight=held_out[2])
    (trial,) = tuner.oracle.get_best_trials()
    assert score[1] == pytest.approx(trial.score, rel=1e-5)
    for value, variable in zip(
        before, tuner.hypermodel.teacher.variables, strict=True
    ):
        np.testing.assert_array_equal(variable.numpy(), value)
    # Checkpoints hold the student alone: two layers.
    (path, *_) = tmp_path.rglob("*.weights.h5")
    with h5py.File(path) as file:
        assert set(file["layers"]) == {"dense", "dense_1"}


def test_errors_end_the_search_and_infinite_losses_a_trial(tmp_path):
    x, y, _ = any_models.make_batch()
    tuner = make_tuner(make, tmp_path / "a")
    with pytest.raises(FatalRuntimeError, match="from 0 to 2"):
        tuner.search(x, y + 7, validation_data=(x, y), verbose=0)
    tuner = make_tuner(make, tmp_path / "b")
    with pytest.raises(RuntimeError, match="consecutive failures"):
        tuner.search(x * np.nan, y, validation_data=(x, y), verbose=0)
