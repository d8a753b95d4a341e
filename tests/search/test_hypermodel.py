"""Distillation with KerasTuner's tuners, in a user's script."""

import json

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.errors import FailedTrialError
from toy import VOCABULARY, make_batch, make_teacher, weights_of

from keras_distil import config, data, search

TEMPERATURE = "distill.losses.soft_target.temperature"
OBJECTIVE = keras_tuner.Objective("val_mlm_loss", "min")
DISTILL = {
    "steps": 4,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "jit_compile": False,
}


def batches():
    sequences = np.random.default_rng(0).integers(5, VOCABULARY, (17, 8))
    return data.masked_lm_dataset(
        sequences.astype("uint16"),
        special=data.SpecialTokens(0, 1, 2, 3, 4),
        vocabulary_size=VOCABULARY,
        batch_size=4,
        seed=1,
    )


def make_hypermodel(space, **changes):
    return search.DistillationHyperModel(
        make_teacher(),
        space,
        distill={**DISTILL, **changes.pop("distill", {})},
        student={"num_layers": 1},
        **changes,
    )


def temperatures(*values):
    return {TEMPERATURE: search.Dimension(choices=list(values))}


def make_tuner(hypermodel, folder, kind=keras_tuner.GridSearch, **arguments):
    if kind is not keras_tuner.Hyperband:
        arguments.setdefault("max_trials", 4)
    return kind(
        hypermodel,
        objective=OBJECTIVE,
        directory=str(folder),
        project_name="search",
        **arguments,
    )


def run(tuner, **arguments):
    tuner.search(
        batches(),
        steps_per_epoch=arguments.pop("steps_per_epoch", 4),
        validation_data=make_batch(),
        verbose=0,
        **arguments,
    )


def trials(tuner):
    return [tuner.oracle.trials[x] for x in sorted(tuner.oracle.trials)]


class Starts(keras.callbacks.Callback):
    """The student's weights before each trial."""

    seen: list = []

    def on_train_begin(self, logs=None):
        self.seen.append(
            (self.model.optimizer.iterations.numpy(), weights_of(self.student))
        )

    @property
    def student(self):
        return self.model.student


@pytest.mark.slow
@pytest.mark.essential
def test_trials_share_a_teacher_and_begin_alike(tmp_path):
    hypermodel = make_hypermodel(temperatures(1.0, 4.0))
    before = weights_of(hypermodel.teacher)
    tuner = make_tuner(hypermodel, tmp_path)
    Starts.seen = []
    run(tuner, callbacks=[Starts()])
    (_, one), (_, other) = Starts.seen
    for path, value in one.items():
        np.testing.assert_array_equal(other[path], value, err_msg=path)
    for path, value in weights_of(hypermodel.teacher).items():
        np.testing.assert_array_equal(before[path], value, err_msg=path)
    found = trials(tuner)
    assert [trial.status for trial in found] == ["COMPLETED"] * 2
    assert {trial.hyperparameters.values[TEMPERATURE] for trial in found} == {
        1.0,
        4.0,
    }
    # The temperature counts: the students are not the same.
    assert found[0].score != found[1].score

    best = tuner.get_best_models()[0]
    x, y, masked = make_batch()
    scores = best.evaluate(
        x, y, sample_weight=masked, verbose=0, return_dict=True
    )
    expected = tuner.oracle.get_best_trials()[0].score
    assert scores["mlm_loss"] == pytest.approx(expected)
    # Only the student's weights, each of them once.
    found = []
    with h5py.File(tuner._get_checkpoint_fname("0")) as file:
        file.visititems(
            lambda _, x: found.append(x.shape) if hasattr(x, "shape") else None
        )
    expected = [x.shape for x in weights_of(best.student).values()]
    assert sorted(found) == sorted(expected)


@pytest.mark.slow
def test_a_trial_whose_loss_is_not_finite_is_recorded(tmp_path):
    space = {
        "distill.learning_rate": search.Dimension(choices=[1e30, 1e-3]),
    }
    tuner = make_tuner(
        make_hypermodel(space, distill={"clip_norm": None}), tmp_path
    )
    run(tuner)
    failed, completed = trials(tuner)
    assert (failed.status, completed.status) == ("FAILED", "COMPLETED")
    assert "Training stopped at step" in failed.message


def test_values_that_do_not_go_together_fail_a_trial():
    space = {
        "student.num_heads": search.Dimension(choices=[2, 4]),
        "student.hidden_dim": search.Dimension(choices=[8, 10]),
    }
    hypermodel = make_hypermodel(space)
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    hp.values = {"student.num_heads": 4, "student.hidden_dim": 10}
    with pytest.raises(FailedTrialError, match="student"):
        hypermodel.build(hp)


def test_any_other_error_ends_the_search(tmp_path):
    tuner = make_tuner(make_hypermodel(temperatures(1.0, 4.0)), tmp_path)
    with pytest.raises(RuntimeError, match="no such thing"):
        run(tuner, callbacks=[Fails(0)])


class Fails(keras.callbacks.Callback):
    """Crashes once, after a number of updates."""

    done = False

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_batch_end(self, batch, logs=None):
        if batch >= self.after and not Fails.done:
            Fails.done = True
            raise OSError("no such thing")


@pytest.fixture(autouse=True)
def _once():
    Fails.done = False


@pytest.mark.slow
def test_an_interrupted_trial_continues(tmp_path):
    def make(name, **arguments):
        return make_tuner(
            make_hypermodel(
                {TEMPERATURE: search.Dimension(min=1.0, max=4.0)}, **arguments
            ),
            tmp_path / name,
            keras_tuner.RandomSearch,
            max_trials=1,
            seed=1,
        )

    whole = make("a")
    run(whole)
    part = make("b", state_every_steps=1)
    with pytest.raises(RuntimeError, match="no such thing"):
        run(part, callbacks=[Fails(2)])
    again = make("b")
    again.oracle.reload()
    Starts.seen = []
    run(again, callbacks=[Starts()])
    assert [step for step, _ in Starts.seen] == [2]
    (one,), (other,) = trials(whole), trials(again)
    assert other.hyperparameters.values == one.hyperparameters.values
    assert other.score == pytest.approx(one.score, rel=1e-6)


@pytest.mark.slow
def test_hyperband_continues_with_the_parent(tmp_path):
    tuner = make_tuner(
        make_hypermodel(temperatures(1.0, 2.0, 3.0, 4.0)),
        tmp_path,
        keras_tuner.Hyperband,
        max_epochs=2,
        factor=2,
        hyperband_iterations=1,
        seed=1,
    )
    Starts.seen = []
    run(tuner, steps_per_epoch=1, callbacks=[Starts()])
    begun = [int(step) for step, _ in Starts.seen]
    for trial, step in zip(trials(tuner), begun, strict=True):
        assert trial.status == "COMPLETED"
        values = trial.hyperparameters.values
        # With the optimizer's state, not only the weights.
        assert step == values["tuner/initial_epoch"]
    assert max(begun) > 0


def test_what_is_searched_is_checked():
    with pytest.raises(config.RecipeError, match="the nearest is distill.loss"):
        make_hypermodel({"temperature": search.Dimension(min=1.0, max=2.0)})
    hypermodel = search.DistillationHyperModel(
        make_teacher(),
        temperatures(1.0, 2.0),
        distill={"epochs": 1.0, "batch_size": 4, "learning_rate": 1e-3},
    )
    with pytest.raises(ValueError, match="must give `steps`"):
        hypermodel.build(keras_tuner.HyperParameters())


def test_whole_numbers_are_drawn_where_they_are_needed():
    hypermodel = make_hypermodel(
        {
            "student.num_layers": search.Dimension(min=1, max=2),
            TEMPERATURE: search.Dimension(min=1, max=2),
        }
    )
    hp = keras_tuner.HyperParameters()
    values = hypermodel.values(hp)
    assert [type(x) for x in values.values()] == [int, float]
    kinds = [type(x).__name__ for x in hp.space]
    assert kinds == ["Int", "Float"]
    json.dumps(hp.get_config())
