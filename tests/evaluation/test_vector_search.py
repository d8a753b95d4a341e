"""The exact search of vectors, in blocks."""

import tracemalloc

import numpy as np
import pytest

from keras_distil.evaluation.vectors import blocks_of, search, unit_rows


def reference(queries, documents, count):
    """All cosines at once in float64, and the largest, in order."""
    queries, documents = (np.float64(x) for x in (queries, documents))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    cosines = queries @ documents.T
    return cosines, -np.sort(-cosines, axis=1)[:, :count]


@pytest.mark.parametrize("size", [7, 50, 400])
@pytest.mark.parametrize("count", [1, 10, 500])
def test_it_finds_what_a_full_sort_finds(size, count):
    generator = np.random.default_rng(0)
    queries = generator.normal(size=(600, 8))
    documents = generator.normal(size=(200, 8))
    found = search(queries, blocks_of(documents, size), count)
    cosines, best = reference(queries, documents, count)
    np.testing.assert_allclose(found.scores, best, rtol=1e-5, atol=1e-6)
    # Two that differ by less than float32 resolves may change places.
    np.testing.assert_allclose(
        np.take_along_axis(cosines, found.documents, axis=1),
        best,
        rtol=1e-5,
        atol=1e-6,
    )
    assert all(len(set(row)) == min(count, 200) for row in found.documents)


@pytest.mark.parametrize("size", [3, 5, 64])
def test_of_equal_documents_the_earlier_are_found(size):
    documents = np.tile([[1.0, 0.0], [0.0, 2.0]], (8, 1))
    found = search(np.array([[3.0, 0.0]]), blocks_of(documents, size), 5)
    np.testing.assert_array_equal(found.documents, [[0, 2, 4, 6, 8]])
    np.testing.assert_array_equal(found.scores, np.ones((1, 5)))
    found = search(np.array([[3.0, 0.0]]), blocks_of(documents, size), 10)
    np.testing.assert_array_equal(
        found.documents, [[0, 2, 4, 6, 8, 10, 12, 14, 1, 3]]
    )


def test_by_hand_and_a_vector_of_zero():
    queries = np.array([[1.0, 0.0], [0.0, 0.0]])
    documents = np.array([[0.0, 1.0], [1.0, 1.0], [5.0, 0.1], [-1.0, 0.0]])
    found = search(queries, iter([documents]), 3)
    np.testing.assert_array_equal(found.documents, [[2, 1, 0], [0, 1, 2]])
    assert found.scores[0, 1] == pytest.approx(0.5**0.5)
    np.testing.assert_array_equal(found.scores[1], np.zeros(3))


def test_half_precision_is_searched_in_float32():
    generator = np.random.default_rng(0)
    documents = generator.normal(size=(50, 8)).astype("float16")
    queries = generator.normal(size=(3, 8)).astype("float16")
    found = search(queries, blocks_of(documents, 20), 4)
    np.testing.assert_allclose(
        found.scores, reference(queries, documents, 4)[1], rtol=1e-5
    )
    assert unit_rows(queries).dtype == np.float32


def test_memory_does_not_grow_with_the_documents():
    generator = np.random.default_rng(0)
    queries = generator.normal(size=(32, 16)).astype("float32")
    block = generator.normal(size=(4096, 16)).astype("float32")
    peaks = []
    for blocks in (2, 20):
        tracemalloc.start()
        search(queries, (block for _ in range(blocks)), 10)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_a_count_that_cannot_be():
    with pytest.raises(ValueError, match="`count` must be at least 1"):
        search(np.ones((1, 2)), iter([np.ones((1, 2))]), 0)
