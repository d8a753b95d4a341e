"""Nearest neighbours, and agreement on them."""

import numpy as np
import pytest

from keras_distil.evaluation.neighbours import (
    nearest_others,
    neighbour_agreement,
)


def test_neighbours_are_those_of_numpy():
    vectors = np.random.default_rng(0).normal(size=(30, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1)[:, :4]
    found = nearest_others(vectors, 4)
    np.testing.assert_array_equal(found.documents, order)
    np.testing.assert_allclose(
        found.scores, np.take_along_axis(cosines, order, 1), atol=1e-6
    )


def test_agreement_by_hand():
    # On a line of angles: the neighbour of each is the one beside it.
    teacher = np.array([[np.cos(x), np.sin(x)] for x in (0, 1, 3, 4)])
    student = teacher[[0, 2, 1, 3]]
    assert neighbour_agreement(teacher, teacher, 1) == 1.0
    # 0-1 and 2-3 for one, 0-2 and 1-3 for the other.
    assert neighbour_agreement(teacher, student, 1) == 0.0
    assert neighbour_agreement(teacher, student, 9) == 1.0
    # Any size of the vectors.
    wide = np.concatenate([3 * teacher, np.zeros((4, 3))], axis=1)
    assert neighbour_agreement(teacher, wide, 1) == 1.0


def test_equal_texts_are_each_others_neighbours():
    vectors = np.ones((5, 2))
    found = nearest_others(vectors, 2).documents
    assert not (found == np.arange(5)[:, None]).any()
    assert neighbour_agreement(vectors, vectors, 2) == 1.0


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="of at least two texts. Received: 1"):
        nearest_others(np.ones((1, 2)), 3)
    with pytest.raises(ValueError, match="of the same texts. Received: 3 and"):
        neighbour_agreement(np.ones((3, 2)), np.ones((2, 2)))
