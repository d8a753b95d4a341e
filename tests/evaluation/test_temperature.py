"""The temperature of a task's logits, by hand and against NumPy."""

import numpy as np
import pytest

from keras_distil.evaluation.calibration import reliability
from keras_distil.evaluation.temperature import (
    decisions,
    fit_temperature,
    log_loss,
)


def classes(right, count=8, logit=3.0):
    """Logits of two classes, the first larger; so many labels are the first."""
    logits = np.tile(np.array([[logit, 0.0]], np.float32), (count, 1))
    return logits, (np.arange(count) >= right).astype(np.int32)


def several(right, count=8, logit=3.0):
    """The logits of one label, which so many texts have."""
    logits, missing = classes(right, count, logit)
    return logits[:, :1], (1 - missing)[:, np.newaxis].astype(np.int8)


def random_case(kind):
    generator = np.random.default_rng(3)
    logits = (4.0 * generator.normal(size=(60, 5))).astype(np.float32)
    # What is right follows the logits, though less than they say.
    noisy = logits + 6.0 * generator.normal(size=(60, 5))
    if kind == "labels":
        return logits, (noisy > 0.0).astype(np.int8)
    return logits, noisy.argmax(axis=1)


def reference(logits, labels, temperature):
    scaled = logits.astype(np.float64) / temperature
    if labels.ndim == 2:
        there = 1.0 / (1.0 + np.exp(-scaled))
        chosen = np.where(labels == 1, there, 1.0 - there)
    else:
        powers = np.exp(scaled)
        share = powers / powers.sum(axis=1, keepdims=True)
        chosen = share[np.arange(len(labels)), labels]
    return -np.log(chosen).mean()


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_log_loss_and_its_minimum(kind):
    logits, labels = random_case(kind)
    for temperature in (0.7, 1.0, 3.0):
        assert log_loss(logits, labels, temperature) == pytest.approx(
            reference(logits, labels, temperature), rel=1e-9
        )
    found = fit_temperature(logits, labels)
    grid = np.exp(np.linspace(np.log(0.5), np.log(20), 20_001))
    losses = [reference(logits, labels, each) for each in grid]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=1e-3)


@pytest.mark.parametrize("make", [classes, several])
def test_the_best_temperature_by_hand(make):
    """Where 6 of 8 are right, the probability must be 3 in 4."""
    found = fit_temperature(*make(6))
    assert found == pytest.approx(3.0 / np.log(3.0), rel=1e-5)


@pytest.mark.parametrize("make", [classes, several])
@pytest.mark.parametrize("right", [8, 4, 2])
def test_there_may_be_no_best_one(make, right):
    assert fit_temperature(*make(right)) is None


def test_what_a_model_is_sure_of():
    logits = np.log(np.array([[1.0, 3.0], [2.0, 2.0]]))
    sure, right = decisions(logits, np.array([1, 1]))
    np.testing.assert_allclose(sure, [0.75, 0.5], rtol=1e-12)
    assert right.tolist() == [True, False]
    sure, right = decisions(logits, np.array([[0, 1], [0, 0]]))
    np.testing.assert_allclose(sure, [1 / 2, 3 / 4, 2 / 3, 2 / 3], rtol=1e-12)
    assert right.tolist() == [False, True, False, False]
    sure, _ = decisions(np.log([[1.0, 9.0]]), np.array([1]), 2.0)
    np.testing.assert_allclose(sure, [0.75], rtol=1e-12)


def test_bins_of_equal_width():
    found = reliability(
        np.array([0.1, 0.2, 0.9, 0.25]), np.array([0, 1, 1, 1]), bins=5
    )
    wanted = [(0.15, 0.5, 2), (0.25, 1.0, 1), (0.9, 1.0, 1)]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
