"""Directions along which vectors are reduced or cut."""

import numpy as np
import pytest

from keras_distil.models import directions


def make_vectors(rows=300, width=8, seed=0):
    """Vectors around the same few centres."""
    centres = np.random.default_rng(99).normal(size=(12, width))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, 12, rows)]
    vectors = vectors + random.normal(0.0, 0.3, (rows, width))
    return vectors * np.linspace(1.2, 0.8, width)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cut_error(vectors, turned, cuts):
    """The objective of the docstring, summed pair by pair."""
    rows = unit(vectors)
    wanted = rows @ rows.T
    weights = np.exp(wanted / 0.1)
    total = 0.0
    for cut in cuts:
        found = unit(rows @ turned[:, :cut])
        for i in range(len(rows)):
            errors = (found[i] @ found.T - wanted[i]) ** 2
            total += (weights[i] * errors).sum() / weights.sum()
    return total


def test_the_gradient_is_that_of_the_objective():
    rows = unit(make_vectors(40))
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 4)))[0]
    found = directions._gradient(rows, turned, (2, 4))
    for at in np.ndindex(turned.shape):
        step = np.zeros_like(turned)
        step[at] = 1e-6
        above, below = (
            cut_error(rows, turned + sign * step, (2, 4)) for sign in (1, -1)
        )
        assert found[at] == pytest.approx((above - below) / 2e-6, abs=1e-8)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    """Few rows at a time, which are enough for eight coordinates."""
    monkeypatch.setattr(directions, "_BATCH", 128)


@pytest.mark.parametrize("cuts", [(3,), (2, 5)])
def test_cut_vectors_keep_cosines_better_than_components(cuts):
    vectors, others = make_vectors(3_000), make_vectors(200, seed=1)
    components = directions.principal_directions(vectors)
    turned = directions.cut_directions(vectors, cuts)
    # A rotation: whole vectors are as near as before.
    np.testing.assert_allclose(turned.T @ turned, np.eye(8), atol=1e-9)
    better = cut_error(others, turned, cuts)
    assert better < 0.9 * cut_error(others, components, cuts)
    # What is left is sorted by its share.
    moments = np.square(vectors @ turned).sum(axis=0)[max(cuts) :]
    assert (np.diff(moments) < 0).all()


def test_they_are_the_same_each_time():
    vectors = make_vectors()
    one, other = (
        directions.choose_directions(vectors.copy(), 6, [2]) for _ in range(2)
    )
    assert one.shape == (8, 6)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        directions.choose_directions(vectors, 6),
        directions.principal_directions(vectors)[:, :6],
    )


@pytest.mark.parametrize("cuts", [(0,), (6,), (3, 9)])
def test_cuts_that_cannot_be(cuts):
    with pytest.raises(ValueError, match="shorter than whole ones, which have"):
        directions.choose_directions(make_vectors(), 6, cuts)
