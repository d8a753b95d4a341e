"""Loss weights that keep gradients in chosen ratios."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import callbacks, schedules

RATIOS = {"mlm": 1.0, "soft_target": 2.0, "cosine": 4.0}


def fit(distiller, triple, *more, epochs=1):
    x, y, sample_weight = triple
    return distiller.fit(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=2,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=list(more),
    )


def weights(distiller):
    return {
        loss.name: float(loss.weight.numpy())
        for loss in distiller.distillation_losses
    }


class Seen(keras.callbacks.Callback):
    """The weights of every update."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_begin(self, batch, logs=None):
        self.weights.append(weights(self.model))


@pytest.mark.slow
def test_weighted_norms_get_the_ratios(make_distiller, triple):
    distiller = make_distiller()
    norms = distiller.gradient_norms(triple).measure()
    seen = Seen()
    balancer = callbacks.GradientBalancer(
        triple, RATIOS, every_steps=100, smoothing=0.0
    )
    fit(distiller, triple, balancer, seen)
    # Before the first update, and not again in these four.
    assert seen.weights[0] == seen.weights[-1]
    found = seen.weights[0]
    assert sum(found.values()) == pytest.approx(3.0)
    shares = {name: found[name] * norms[name] for name in norms}
    for name, ratio in RATIOS.items():
        assert shares[name] / shares["mlm"] == pytest.approx(ratio, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stops", [(2, 4)])
def test_an_interrupted_training_is_balanced_alike(
    make_distiller, triple, tmp_path, stops
):
    """Through `TrainingState`, which keeps the weights of losses."""
    batches = tf.data.Dataset.from_tensors(triple).repeat()

    def train(folder, steps):
        seen = Seen()
        for stop in steps:
            keras.utils.set_random_seed(0)
            distiller = make_distiller()
            more = [
                callbacks.GradientBalancer(triple, RATIOS, every_steps=3),
                seen,
                Stop(stop),
                callbacks.TrainingState(folder, every_steps=1),
            ]
            with contextlib.suppress(InterruptedError):
                distiller.fit(
                    batches, steps_per_epoch=8, verbose=0, callbacks=more
                )
        return seen.weights[-1], weights(distiller)

    whole = train(tmp_path / "whole", [99])
    for stop in stops:
        assert train(tmp_path / f"parts{stop}", [stop, 99]) == whole


class Stop(keras.callbacks.Callback):
    """Ends an epoch like an exception, after a number of updates."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() > self.steps:
            raise InterruptedError


@pytest.mark.slow
def test_smoothing_is_a_mean_of_logarithms(make_distiller, triple):
    distiller = make_distiller()
    norms = distiller.gradient_norms(triple).measure()
    seen = Seen()
    balancer = callbacks.GradientBalancer(
        triple, RATIOS, every_steps=100, smoothing=0.75
    )
    fit(distiller, triple, balancer, seen)
    names = list(RATIOS)
    wanted = np.array([RATIOS[name] / norms[name] for name in names])
    wanted *= 3.0 / wanted.sum()
    expected = wanted**0.25
    expected *= 3.0 / expected.sum()
    assert list(seen.weights[0].values()) == pytest.approx(list(expected))


@pytest.mark.slow
def test_it_looks_again_after_so_many_updates(make_distiller, triple):
    distiller = make_distiller(run_eagerly=False)
    seen = Seen()
    balancer = callbacks.GradientBalancer(
        triple, RATIOS, every_steps=3, smoothing=0.0
    )
    fit(distiller, triple, balancer, seen, epochs=2)
    # Eight updates: before the first, after the third and the sixth.
    values = [found["mlm"] for found in seen.weights]
    changed = [at for at in range(1, 8) if values[at] != values[at - 1]]
    assert changed == [3, 6]


def test_a_loss_that_is_not_named_keeps_its_weight(make_distiller, triple):
    distiller = make_distiller()
    distiller.get_loss("cosine").weight.assign(7.0)
    fit(
        distiller,
        triple,
        callbacks.GradientBalancer(triple, {"mlm": 1.0, "soft_target": 1.0}),
    )
    assert weights(distiller)["cosine"] == 7.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratios": {"mlm": 1.0}}, "at least two losses"),
        ({"ratios": {"mlm": 1.0, "cosine": 0.0}}, "a number above 0"),
        ({"every_steps": 0}, "`every_steps` must be at least 1"),
        ({"smoothing": 1.0}, "`smoothing` must be at least 0 and below 1"),
    ],
)
def test_wrong_values_are_refused(triple, arguments, message):
    with pytest.raises(ValueError, match=message):
        callbacks.GradientBalancer(triple, **{"ratios": RATIOS, **arguments})


def test_wrong_models_are_refused(make_distiller, triple):
    balancer = callbacks.GradientBalancer(triple, RATIOS)
    with pytest.raises(TypeError, match="with a Distiller only"):
        balancer.set_model(keras.Sequential())
    distiller = make_distiller()
    unknown = callbacks.GradientBalancer(triple, {"mlm": 1.0, "other": 1.0})
    with pytest.raises(ValueError, match="no loss named 'other'"):
        fit(distiller, triple, unknown)
    scheduled = callbacks.LossWeightScheduler("mlm", schedules.Constant(1.0))
    for both in ((scheduled, balancer), (balancer, scheduled)):
        with pytest.raises(ValueError, match="'mlm' has a schedule"):
            fit(distiller, triple, *both)
    distiller = make_distiller()
    distiller.get_loss("cosine").weight.assign(0.0)
    with pytest.raises(ValueError, match="'cosine' has weight 0"):
        fit(distiller, triple, balancer)


def test_a_strategy_is_refused(make_distiller, triple):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        distiller = make_distiller()
    balancer = callbacks.GradientBalancer(triple, RATIOS)
    balancer.set_model(distiller)
    with pytest.raises(ValueError, match="no distribution strategy holds"):
        balancer.on_train_begin()
