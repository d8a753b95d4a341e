"""Datasets whose passes differ are found before they are trained on."""

import hashlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil.training import passes, sources

MODEL = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
NUMBERS = tf.data.Dataset.range(12)


def source_of(dataset):
    return sources.make_source(MODEL, dataset, None)


def noisy(x):
    return tf.cast(x, tf.float32) + tf.random.normal([])


def restless():
    """A dataset whose generator goes on where it was."""
    numbers = itertools.count()
    made = tf.data.Dataset.from_generator(
        lambda: itertools.islice(numbers, 5),
        output_signature=tf.TensorSpec([], tf.int64),
    )
    return made.apply(tf.data.experimental.assert_cardinality(5))


def unordered():
    options = tf.data.Options()
    options.deterministic = False
    return NUMBERS.with_options(options)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (NUMBERS.shuffle(12, seed=1), "gives each pass another order"),
        (NUMBERS.shuffle(12, seed=1).batch(3), "`shuffle` gives each pass an"),
        (
            NUMBERS.shuffle(12, reshuffle_each_iteration=False),
            "`shuffle` without a seed gives each process another order. Give",
        ),
        (
            NUMBERS.flat_map(
                lambda x: tf.data.Dataset.range(2).shuffle(2, seed=1)
            ).apply(tf.data.experimental.assert_cardinality(24)),
            "`shuffle` gives each pass another order",
        ),
        (NUMBERS.map(noisy), r"random numbers \(RandomStandardNormal\)\. Draw"),
        (
            tf.data.Dataset.zip(NUMBERS, tf.data.Dataset.random()).take(3),
            "without a seed gives each process another order",
        ),
        (unordered(), "where `deterministic` is False. Leave it out"),
        (
            NUMBERS.map(
                lambda x: x, num_parallel_calls=2, deterministic=False
            ).batch(2),
            "where `deterministic` is False. Leave it out",
        ),
        (restless(), "two passes over this one begin differently"),
    ],
)
def test_what_differs_is_refused(dataset, message):
    with pytest.raises(ValueError, match=message):
        source_of(dataset)


def stateless(x):
    return tf.random.stateless_normal([2], seed=tf.stack([x, 7]))


@pytest.mark.parametrize(
    "dataset",
    [
        NUMBERS.shuffle(12, seed=1, reshuffle_each_iteration=False),
        NUMBERS.map(stateless, num_parallel_calls=2).cache(),
        NUMBERS.interleave(lambda x: tf.data.Dataset.from_tensors(x)).apply(
            tf.data.experimental.assert_cardinality(12)
        ),
        tf.data.Dataset.zip(NUMBERS, tf.data.Dataset.random(seed=3)).take(3),
        NUMBERS.concatenate(NUMBERS).batch(4, drop_remainder=True).prefetch(1),
    ],
)
def test_what_repeats_is_taken(dataset):
    source_of(dataset)
    passes_made = [list(dataset.as_numpy_iterator()) for _ in range(2)]
    for one, other in zip(*passes_made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_global_seed_is_a_seed():
    tf.random.set_seed(4)
    try:
        source_of(NUMBERS.shuffle(12, reshuffle_each_iteration=False))
    finally:
        tf.random.set_seed(None)


def test_the_hash_is_that_of_the_first_batch_alone():
    ids = np.arange(6, dtype="int32").reshape(3, 2)
    texts = np.array(["a", "b", "c"])
    made = tf.data.Dataset.from_tensor_slices(({"x": ids}, texts)).batch(2)
    parts = ids[:2], texts[:2]
    expected = hashlib.sha256(
        b"".join(tf.io.serialize_tensor(part).numpy() for part in parts)
    ).hexdigest()
    assert passes.first_batch_hash(made) == expected
    ids[2] = 9
    again = tf.data.Dataset.from_tensor_slices(({"x": ids}, texts)).batch(2)
    assert passes.first_batch_hash(again) == expected
    ids[1] = 9
    other = tf.data.Dataset.from_tensor_slices(({"x": ids}, texts)).batch(2)
    assert passes.first_batch_hash(other) != expected
