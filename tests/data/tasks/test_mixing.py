"""Shares of batches, against counting by hand and by fractions."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf

from keras_distil.data.tasks import mixing

SHARES = [
    ([8, 16], [None, None]),
    ([7, 140, 31], [None, None, None]),
    ([20, 40], [None, 0.1]),
    ([20, 40, 60], [None, 0.55, None]),
    ([20, 40, 60], [None, 0.001, 0.998]),
    ([3, 5, 2], [None, None, 0.3]),
]


def test_shares_are_those_of_the_numbers_or_as_given():
    assert mixing.find_shares([8, 16], [None, None]) == [
        Fraction(1, 3),
        Fraction(2, 3),
    ]
    # A tenth is a tenth, not the float next to it.
    assert mixing.find_shares([8, 16], [None, 0.1])[1] == Fraction(1, 10)
    # What one leaves is divided by the numbers of the others.
    assert mixing.find_shares([8, 16, 24], [None, None, 0.4]) == [
        Fraction(1, 5),
        Fraction(2, 5),
        Fraction(2, 5),
    ]
    assert mixing.find_shares([8], [None]) == [1]


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match=r"below 1. Received: \[None, 0.5, 0"):
        mixing.find_shares([1, 1, 1], [None, 0.5, 0.5])


@pytest.mark.parametrize(("counts", "given"), SHARES)
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_every_batch_has_its_share_and_the_sum_is_exact(
    counts, given, batch_size
):
    shares = mixing.find_shares(counts, given)
    assert sum(shares) == 1
    before = np.array(
        [
            mixing.split_examples(step * batch_size, shares)
            for step in range(2001)
        ]
    )
    batches = np.diff(before, axis=0)
    assert batches.min() >= 0
    assert set(batches.sum(axis=1)) == {batch_size}
    for number, share in enumerate(shares):
        exact = [float(share * step * batch_size) for step in range(2001)]
        assert np.abs(before[:, number] - exact).max() < 2
        # Each batch has the share, rounded.
        assert np.abs(batches[:, number] - share * batch_size).max() < 2


def test_a_share_is_split_alike_in_a_graph_and_far_from_the_beginning():
    shares = mixing.find_shares([7, 393_702, 31], [None, None, 0.3])
    for examples in (0, 5, 10**6 + 3, 10**12 + 7):
        found = mixing.split_examples(tf.constant(examples, tf.int64), shares)
        assert [int(x) for x in found] == mixing.split_examples(
            examples, shares
        )
        assert sum(mixing.split_examples(examples, shares)) == examples
    # As many as by exact fractions, where float64 or int64 would be off.
    third = mixing.find_shares([1, 2], [None, None])
    assert mixing.split_examples(3 * 10**15, third) == [10**15, 2 * 10**15]


@pytest.mark.parametrize(("counts", "given"), SHARES)
def test_an_epoch_holds_the_first_set_once(counts, given):
    shares = mixing.find_shares(counts, given)
    for batch_size in (1, 3, 32):
        steps = mixing.count_steps(counts, given, batch_size)
        assert mixing.split_examples(steps * batch_size, shares)[0] >= counts[0]
        assert (
            mixing.split_examples((steps - 1) * batch_size, shares)[0]
            < counts[0]
        )


def test_an_epoch_of_copies_has_as_many_batches_as_all_examples():
    for copies, batch_size in itertools.product((0, 1, 20), (4, 32)):
        counts = [101, 101 * copies] if copies else [101]
        steps = mixing.count_steps(counts, [None] * len(counts), batch_size)
        assert steps == -(-101 * (copies + 1) // batch_size)
    # Half of each batch is labelled: twice the batches.
    assert mixing.count_steps([101, 5], [None, 0.5], 4) == 51
