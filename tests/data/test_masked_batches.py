import numpy as np
import pytest
import tensorflow as tf

from keras_distil.data.mask import mask_tokens, rare_token_weights
from keras_distil.data.masked_batches import (
    held_out_dataset,
    masked_lm_dataset,
    masked_rows_dataset,
)
from keras_distil.data.stream import stream_of

VOCABULARY_SIZE = 500
COUNT = 23
LENGTH = 24


@pytest.fixture
def sequences(special):
    """23 rows; the token after [CLS] identifies them."""
    random = np.random.default_rng(0)
    rows = random.integers(100, 500, (COUNT, LENGTH)).astype(np.uint16)
    rows[:, 0] = special.cls_id
    rows[:, 1] = 100 + np.arange(COUNT)
    rows[:, -1] = special.sep_id
    rows[-1, 10] = special.sep_id
    rows[-1, 11:] = special.pad_id
    return rows


@pytest.fixture
def examples(sequences, special):
    """Returns a function to the (masked, original, weight) of a stream."""

    def examples_(make=masked_lm_dataset, **options):
        options = {"batch_size": 4, "seed": 3, **options}
        dataset = make(
            options.pop("sequences", sequences),
            special=special,
            vocabulary_size=VOCABULARY_SIZE,
            **options,
        )
        batches = [
            (x["token_ids"], y, weight)
            for x, y, weight in dataset.as_numpy_iterator()
        ]
        return tuple(
            np.concatenate(part) for part in zip(*batches, strict=True)
        )

    return examples_


def order(originals):
    return (originals[:, 1] - 100).tolist()


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_are_keras_triples(sequences, special):
    dataset = masked_lm_dataset(
        sequences,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=4,
        seed=3,
    )
    integers = tf.TensorSpec((4, LENGTH), tf.int32)
    assert dataset.element_spec == (
        {"token_ids": integers, "padding_mask": integers},
        integers,
        tf.TensorSpec((4, LENGTH), tf.float32),
    )
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY


def test_contents(sequences, special):
    dataset = masked_lm_dataset(
        sequences,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=COUNT,
        seed=3,
        steps=1,
    )
    ((x, y, weight),) = dataset.as_numpy_iterator()
    np.testing.assert_array_equal(y, sequences[order(y)])
    np.testing.assert_array_equal(x["padding_mask"], y != special.pad_id)
    assert x["padding_mask"].sum() == COUNT * LENGTH - 13
    changed = x["token_ids"] != y
    assert (weight[changed] == 1).all()
    assert changed.sum() > 0.8 * weight.sum()


def test_rows_are_masked_by_seed_epoch_and_row(examples, sequences, special):
    masked, originals, weight = examples(steps=12)
    for i in range(48):
        seed = tf.constant([3, i // COUNT, order(originals)[i]], tf.int64)
        expected = mask_tokens(
            tf.constant(originals[i]),
            seed,
            special=special,
            vocabulary_size=VOCABULARY_SIZE,
        )
        assert_same(expected, (masked[i], weight[i]))


def test_stream_does_not_depend_on_the_batch_size(examples):
    small = examples(batch_size=3, steps=20)
    large = examples(batch_size=20, steps=3)
    assert_same(small, large)


@pytest.mark.parametrize("first_step", [1, 5, 6, 11, 15])
def test_first_step_is_skipping(examples, first_step):
    whole = examples(steps=16)
    rest = examples(steps=16, first_step=first_step)
    assert_same(rest, [part[4 * first_step :] for part in whole])


def test_endless_stream_starts_in_the_middle(sequences, special):
    options = {
        "special": special,
        "vocabulary_size": VOCABULARY_SIZE,
        "batch_size": 4,
        "seed": 3,
    }
    late = masked_lm_dataset(sequences, first_step=10**9, **options)
    batch = next(late.as_numpy_iterator())
    assert batch[1].shape == (4, LENGTH)
    steps = masked_lm_dataset(sequences, steps=8, **options)
    endless = masked_lm_dataset(sequences, first_step=7, **options)
    (last,) = steps.skip(7).as_numpy_iterator()
    np.testing.assert_array_equal(
        next(endless.as_numpy_iterator())[0]["token_ids"],
        last[0]["token_ids"],
    )


def test_steps(sequences, special):
    dataset = masked_lm_dataset(
        sequences,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=4,
        seed=3,
        steps=9,
        first_step=2,
    )
    assert dataset.cardinality() == 7
    assert len(list(dataset)) == 7


def test_epochs_are_different_permutations(examples):
    rows = order(examples(batch_size=COUNT, steps=6)[1])
    epochs = [tuple(rows[i : i + COUNT]) for i in range(0, len(rows), COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(epochs)) == 6


def test_shuffling_spreads_rows_over_places(examples):
    rows = order(examples(batch_size=COUNT, steps=400)[1])
    places = np.zeros((COUNT, COUNT))
    np.add.at(places, (np.arange(len(rows)) % COUNT, rows), 1)
    mean = 400 / COUNT
    assert np.abs(places - mean).max() < 6 * np.sqrt(mean)


def test_seeds_give_different_orders_and_masks(examples):
    one = examples(batch_size=COUNT, steps=1)
    other = examples(batch_size=COUNT, steps=1, seed=4)
    assert order(one[1]) != order(other[1])
    plain = examples(batch_size=COUNT, steps=1, shuffle=False)
    redrawn = examples(batch_size=COUNT, steps=1, shuffle=False, seed=4)
    assert (plain[2] != redrawn[2]).any()


def test_without_shuffling_rows_keep_their_order(examples):
    rows = order(examples(batch_size=COUNT, steps=2, shuffle=False)[1])
    assert rows == 2 * list(range(COUNT))


def by_row(stream, epoch):
    start = epoch * COUNT
    part = [column[start : start + COUNT] for column in stream]
    rows = np.argsort(order(part[1]))
    return [column[rows] for column in part]


def test_masks_are_redrawn_each_epoch(examples):
    stream = examples(batch_size=COUNT, steps=2)
    first, second = by_row(stream, 0), by_row(stream, 1)
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[2] != second[2]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("maskings", [1, 2])
def test_epochs_cycle_through_the_maskings(examples, maskings):
    stream = examples(batch_size=COUNT, steps=4, maskings=maskings)
    redrawn = examples(batch_size=COUNT, steps=4)
    for epoch in range(4):
        assert_same(by_row(stream, epoch), by_row(redrawn, epoch % maskings))
    assert order(stream[1][:COUNT]) != order(stream[1][COUNT : 2 * COUNT])


def test_no_maskings_are_refused(examples):
    with pytest.raises(ValueError, match="`maskings` must be at least 1. Rec"):
        examples(maskings=0)


def test_more_inputs_see_rows_and_maskings(sequences, special):
    def more(rows, maskings):
        return {"place": 100 * maskings + rows}

    dataset = masked_lm_dataset(
        sequences,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=COUNT,
        seed=3,
        steps=3,
        maskings=2,
        more_inputs=[more],
    )
    for epoch, (x, y, _) in enumerate(dataset.as_numpy_iterator()):
        expected = 100 * (epoch % 2) + y[:, 1] - 100
        np.testing.assert_array_equal(x["place"], expected)


def test_rows_in_their_order_have_the_masks_of_an_epoch(
    examples, sequences, special
):
    made = masked_rows_dataset(
        sequences,
        part=0,
        masking=1,
        start=5,
        stop=16,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=4,
        seed=3,
    )
    batches = [
        (x["token_ids"], y, weight) for x, y, weight in made.as_numpy_iterator()
    ]
    assert [len(y) for _, y, _ in batches] == [4, 4, 3]
    found = tuple(np.concatenate(p) for p in zip(*batches, strict=True))
    expected = by_row(examples(batch_size=COUNT, steps=2), 1)
    assert_same(found, tuple(part[5:16] for part in expected))


def test_held_out_is_one_ordered_pass(examples, sequences):
    stream = examples(held_out_dataset)
    np.testing.assert_array_equal(stream[1], sequences)
    assert_same(stream, examples(held_out_dataset, batch_size=100))
    assert_same(stream, by_row(examples(batch_size=COUNT, steps=1), 0))


def test_held_out_batches(sequences, special):
    dataset = held_out_dataset(
        sequences,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=10,
        seed=3,
    )
    assert [len(y) for _, y, _ in dataset] == [10, 10, 3]
    assert dataset.cardinality() == 3
    assert dataset.element_spec[1].shape.as_list() == [None, LENGTH]


def test_rate_and_weights_are_passed_on(examples, sequences):
    counts = np.bincount(sequences.ravel(), minlength=VOCABULARY_SIZE)
    weights = rare_token_weights(counts)
    for make in (masked_lm_dataset, held_out_dataset):
        options = {"steps": 6} if make is masked_lm_dataset else {}
        plain = examples(make, rate=0.5, **options)
        weighted = examples(make, rate=0.5, token_weights=weights, **options)
        assert plain[2].mean() > 0.4
        assert (plain[2] != weighted[2]).any()


def test_memory_mapped_and_wide_ids(examples, sequences, tmp_path):
    np.save(tmp_path / "a.npy", sequences)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    expected = examples(steps=3)
    assert_same(examples(sequences=mapped, steps=3), expected)
    wide = sequences.astype(np.int32)
    assert_same(examples(sequences=wide, steps=3), expected)


def test_single_sequence(examples, sequences):
    rows = order(examples(sequences=sequences[:1], batch_size=1, steps=2)[1])
    assert rows == [0, 0]


def test_fewer_sequences_than_a_batch(examples):
    with pytest.raises(
        ValueError, match="has 23 sequences, fewer than one batch of 24. Low"
    ):
        examples(batch_size=24)


@pytest.mark.parametrize("steps", [{"first_step": -1}, {"first_step": 9}])
def test_first_step_out_of_range(examples, steps):
    with pytest.raises(ValueError, match="`first_step` must be at least 0 an"):
        examples(steps=8, **steps)


@pytest.mark.parametrize("make", [masked_lm_dataset, held_out_dataset])
def test_batch_size_out_of_range(examples, make):
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        examples(make, batch_size=0)


def test_sequences_of_the_wrong_shape(examples, sequences):
    with pytest.raises(ValueError, match="`sequences` must have shape"):
        examples(sequences=sequences[0])


def test_nothing_held_out(examples, sequences):
    with pytest.raises(ValueError, match="There are no held-out sequences"):
        examples(held_out_dataset, sequences=sequences[:0])


def test_weights_of_the_wrong_shape(examples):
    with pytest.raises(ValueError, match=r"one weight per token, shape \(500,"):
        examples(steps=1, token_weights=np.ones(499))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan])
def test_weights_that_are_not_positive(examples, bad):
    weights = np.ones(VOCABULARY_SIZE)
    weights[3] = bad
    with pytest.raises(ValueError, match="`token_weights` must be positive"):
        examples(steps=1, token_weights=weights)


def test_replicas_read_consecutive_shares_of_each_batch(sequences, special):
    dataset = masked_lm_dataset(
        sequences,
        special=special,
        vocabulary_size=VOCABULARY_SIZE,
        batch_size=5,
        seed=3,
        steps=3,
    )
    whole = list(dataset.as_numpy_iterator())
    shares = list(
        stream_of(dataset)
        .dataset(replicas=(0, 1), replica_count=2)
        .as_numpy_iterator()
    )
    assert [len(y) for _, y, _ in shares] == [2, 3] * 3
    for step, (x, y, weight) in enumerate(whole):
        parts = shares[2 * step : 2 * step + 2]
        joined = [
            np.concatenate(p) for p in zip(*[p[1:] for p in parts], strict=True)
        ]
        assert_same(joined, (y, weight))
        token_ids = np.concatenate([p[0]["token_ids"] for p in parts])
        np.testing.assert_array_equal(token_ids, x["token_ids"])
