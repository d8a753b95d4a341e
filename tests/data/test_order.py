"""Orders of epochs and seeds: permutations that look independent."""

import itertools
import math
from collections import Counter

import marks
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import data
from keras_distil.data.order import shuffled

SIZES = [1000, 23_456, 50_000, 65_536, 1_000_000, 16_777_216]
SAMPLE = 50_000  # number of places examined
# Standard deviations of a rank correlation by chance, of 80 at each size.
CHANCE = 4.5
WRAP = 2**64
SPECIAL = data.SpecialTokens(
    pad_id=0, unknown_id=1, cls_id=2, sep_id=3, mask_id=4
)


def items(places, count, *, seed=0, epoch=0, order=1):
    places = np.asarray(places, np.int64)
    epochs = np.broadcast_to(np.asarray(epoch, np.int64), places.shape)
    return shuffled(
        tf.constant(places), seed, tf.constant(epochs), count, order
    ).numpy()


def rank_correlation(one, other):
    """Spearman's, of values that do not repeat."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return np.corrcoef(*ranks)[0, 1]


def places_of(count):
    if count <= SAMPLE:
        return np.arange(count)
    return np.random.default_rng(count).choice(count, SAMPLE, replace=False)


@pytest.mark.parametrize("count", marks.slow_except(SIZES, SIZES[0], SIZES[1]))
def test_epochs_seeds_and_places_are_uncorrelated(count):
    places = places_of(count)
    first = items(places, count)
    others = {
        "place": places,
        "next": items((places + 1) % count, count),
        "second next": items((places + 2) % count, count),
        "next row": items((places + math.isqrt(count)) % count, count),
        "other order": items(places, count, order=2),
    }
    # 256 and beyond: parts of a seed that were cut to few bits.
    for other in (1, 2, 3, 255, 256, 2**16, 2**32):
        others[f"epoch {other}"] = items(places, count, epoch=other)
        others[f"seed {other}"] = items(places, count, seed=other)
    others["seed -1"] = items(places, count, seed=-1)
    bound = CHANCE / math.sqrt(len(places))
    found = {
        name: rank_correlation(first, other) for name, other in others.items()
    }
    assert {n: r for n, r in found.items() if not abs(r) < bound} == {}
    neighbours = items(places, count, epoch=7), items(places, count, epoch=8)
    assert abs(rank_correlation(*neighbours)) < bound


def test_epochs_do_not_repeat_batches():
    count, size = 50_000, 32
    batch = np.zeros((2, count), np.int64)
    for epoch in (0, 1):
        batch[epoch][items(np.arange(count), count, epoch=epoch)] = (
            np.arange(count) // size
        )
    both = Counter(zip(*batch, strict=True)).values()
    again = sum(n * (n - 1) // 2 for n in both)
    once = sum(n * (n - 1) // 2 for n in Counter(batch[0]).values())
    # By chance 0.062% of the pairs, 480 +- 22.
    assert again / once < 0.0008


@pytest.mark.parametrize(
    "count", [*range(1, 41), 97, 1000, 1023, 1025, 4097, 65_537]
)
def test_orders_are_permutations(count):
    for seed, epoch in ((0, 0), (3, 2**40), (-(2**63), 5)):
        made = items(np.arange(count), count, seed=seed, epoch=epoch)
        assert sorted(made) == list(range(count))


@pytest.mark.parametrize("count", [2**40 + 15, 2**62])
def test_places_of_huge_orders(count):
    places = np.array([0, 1, count // 3, count - 2, count - 1])
    made = items(places, count)
    assert len(set(made)) == 5
    assert (made >= 0).all() and (made < count).all()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_all_orders_come_equally_often(count):
    epochs, orders = 6000, math.factorial(count)
    made = items(
        np.tile(np.arange(count), epochs),
        count,
        epoch=np.repeat(np.arange(epochs), count),
    ).reshape(epochs, count)
    seen = Counter(map(tuple, made))
    assert set(seen) == set(itertools.permutations(range(count)))
    mean = epochs / orders
    assert max(abs(n - mean) for n in seen.values()) < 5 * math.sqrt(mean)


def split_mix(state):
    """One step of Steele et al. 2014: the next state, and its output."""
    state = (state + 0x9E3779B97F4A7C15) % WRAP
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % WRAP
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WRAP
    return state, z ^ (z >> 31)


def finalised(bits):
    return split_mix((bits - 0x9E3779B97F4A7C15) % WRAP)[1]


def reference(place, count, *, seed, epoch, order):
    """The same in Python's integers: states depend on the order staying."""
    key = 0
    for part in (seed, epoch, order, count):
        key = split_mix(key ^ (part % WRAP))[1]
    keys = []
    for _ in range(12):
        key, output = split_mix(key)
        keys.append(output)
    columns = 2
    while columns * columns < count:
        columns += 2
    rows = math.ceil(count / columns)
    while True:
        row, column = divmod(place, columns)
        for i in range(0, 12, 2):
            row += (finalised(column ^ keys[i]) >> 32) * rows >> 32
            row %= rows
            column += (finalised(row ^ keys[i + 1]) >> 32) * columns >> 32
            column %= columns
        place = row * columns + column
        if place < count:
            return place


@pytest.mark.parametrize("count", [1, 7, 50, 2490])
def test_the_order_is_that_of_its_version(count):
    assert data.ORDER_VERSION == 2
    places = range(0, count, max(1, count // 40))
    made = items(places, count, seed=-5, epoch=3, order=-1)
    assert made.tolist() == [
        reference(place, count, seed=-5, epoch=3, order=-1) for place in places
    ]


def numbers_of_sequences(count, **arguments):
    """The rows of two epochs of a masked-LM stream."""
    sequences = np.full((count, 3), SPECIAL.cls_id, np.int32)
    sequences[:, 1] = 5 + np.arange(count)
    dataset = data.masked_lm_dataset(
        sequences,
        special=SPECIAL,
        vocabulary_size=count + 5,
        batch_size=count // 8,
        steps=16,
        **arguments,
    )
    rows = np.concatenate([y[:, 1] for _, y, _ in dataset.as_numpy_iterator()])
    return rows.reshape(2, count) - 5


def numbers_of_examples(count, *, seed):
    """The examples of two epochs of a task's stream."""
    examples = data.EncodedExamples(
        token_ids=np.ones(2 * count, np.int32),
        starts=2 * np.arange(count + 1),
        first_lengths=np.full(count, 2, np.int32),
        labels=np.arange(count),
        pad_id=0,
        max_length=8,
    )
    dataset = data.task_dataset(
        examples, batch_size=count // 8, seed=seed, steps=16
    )
    rows = np.concatenate([y for _, y, _ in dataset.as_numpy_iterator()])
    return rows.reshape(2, count)


@pytest.mark.parametrize("stream", [numbers_of_sequences, numbers_of_examples])
def test_streams_take_epochs_and_seeds_in_unrelated_orders(stream):
    count = 65_536
    places = [np.argsort(order) for order in stream(count, seed=0)]
    places.append(np.argsort(stream(count, seed=1)[0]))
    for one, other in itertools.combinations(places, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < CHANCE / math.sqrt(count)
