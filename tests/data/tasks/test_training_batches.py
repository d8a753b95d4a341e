"""Training batches of tasks, against sorting and counting by hand."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_distil import data
from keras_distil.data.order import shuffled
from keras_distil.data.tasks import mixing


def read(examples, steps, first=0, **arguments):
    made = data.task_dataset(
        examples, batch_size=4, seed=5, steps=steps, **arguments
    )
    stream = data.stream_of(made)
    return list(stream.dataset(first).as_numpy_iterator())


@pytest.mark.slow
def test_every_epoch_has_each_example_once_in_another_order(examples):
    # 26 batches are sorted together, across the ends of epochs; the two come
    # out even after 101 times 26 batches.
    labels = np.concatenate([y for _, y, _ in read(examples, 101 * 26)])
    assert np.array_equal(np.bincount(labels), [104] * 101)
    first = np.bincount(labels[:104], minlength=101)
    assert first.min() == 1 and first.max() == 2
    assert not np.array_equal(labels[:101], labels[101:202])


def test_batches_hold_what_belongs_to_their_labels(examples):
    for x, y, weight in read(examples, 60):
        assert list(weight) == [1.0] * 4
        length = x["token_ids"].shape[1]
        assert length % 8 == 0
        expected = [2 + i % 23 for i in y]
        assert length - max(expected) < 8
        for row, (i, count) in enumerate(zip(y, expected, strict=True)):
            assert list(x["padding_mask"][row]) == [1] * count + [0] * (
                length - count
            )
            assert set(x["token_ids"][row][:count]) == {i}
            assert not x["token_ids"][row][count:].any()
            first = 1 + count // 2
            assert list(x["segment_ids"][row]) == [0] * first + [1] * (
                count - first
            ) + [0] * (length - count)


def test_batches_have_like_lengths(examples):
    padding = np.concatenate(
        [1 - x["padding_mask"].ravel() for x, _, _ in read(examples, 260)]
    )
    # Rounding up to 8 alone gives 22%; random batches would have 43%.
    assert padding.mean() < 0.3


def test_a_stream_is_entered_at_any_step(examples):
    whole = read(examples, 70)
    for first in (1, 26, 53):
        for (x, y, _), (x_part, y_part, _) in zip(
            whole[first:], read(examples, 70, first), strict=True
        ):
            np.testing.assert_array_equal(y, y_part)
            np.testing.assert_array_equal(x["token_ids"], x_part["token_ids"])
    later = data.task_dataset(examples, batch_size=4, seed=5, first_step=69)
    y = next(later.as_numpy_iterator())[1]
    np.testing.assert_array_equal(y, whole[69][1])


def test_no_batch_is_longer_than_a_model_reads(examples):
    # The longest has 24 tokens; of 22, rounding up would make 24.
    shorter = dataclasses.replace(examples.part(0, 21), max_length=22)
    lengths = {x["token_ids"].shape[1] for x, _, _ in read(shorter, 60)}
    assert max(lengths) == 22


def test_labels_of_spans_stay_together(examples):
    spans = dataclasses.replace(
        examples, labels={"start": examples.labels, "end": examples.labels + 1}
    )
    for _, y, _ in read(spans, 3):
        np.testing.assert_array_equal(y["end"], y["start"] + 1)


def test_wrong_arguments_are_refused(examples):
    with pytest.raises(ValueError, match="batch_size=0"):
        data.task_dataset(examples, batch_size=0, seed=0)
    unlabelled = dataclasses.replace(examples, labels=None)
    for wrong in (unlabelled, data.Mixture(examples, unlabelled)):
        with pytest.raises(ValueError, match="must have labels"):
            data.task_dataset(wrong, batch_size=4, seed=0)


# === Mixtures ===


@pytest.fixture(scope="module")
def augmented(examples):
    """150 examples, the i-th of 2 + i % 9 tokens, all of them 200 + i."""
    return numbered(150, 9, 200)


@pytest.fixture(scope="module")
def unlabelled(examples):
    """40 examples of 500 + i, without labels."""
    return dataclasses.replace(numbered(40, 30, 500), labels=None)


def numbered(count, lengths, first):
    lengths = [2 + i % lengths for i in range(count)]
    numbers = first + np.arange(count)
    return data.EncodedExamples(
        token_ids=np.repeat(numbers, lengths).astype("uint16"),
        starts=np.cumsum([0, *lengths]),
        first_lengths=np.array(lengths, "int32"),
        labels=numbers.astype("int32"),
        pad_id=0,
        max_length=128,
    )


@pytest.fixture(scope="module")
def mixture(examples, augmented, unlabelled):
    return data.Mixture(examples, augmented, unlabelled, 0.5, 0.2)


def names_of(x):
    """The number that an example consists of, of each."""
    return x["token_ids"].max(axis=1)


def set_of(names):
    return np.digitize(names, [200, 500])


def test_every_batch_has_its_share_of_each_set(mixture):
    batches = read(mixture, 200)
    counts = np.array(
        [np.bincount(set_of(names_of(x)), minlength=3) for x, _, _ in batches]
    )
    assert set(counts.sum(axis=1)) == {4}
    # 0.3, 0.5 and 0.2 of 4 examples, to either side.
    assert {tuple(x) for x in counts} <= {
        *[(1, 2, 1), (2, 2, 0), (1, 3, 0), (2, 1, 1), (1, 1, 2), (0, 3, 1)]
    }
    assert counts.sum(axis=0).tolist() == [240, 400, 160]


def test_shares_are_in_proportion_unless_they_are_given(
    examples, augmented, unlabelled
):
    mixed = data.Mixture(examples, augmented, unlabelled)
    # An epoch is three batches, which are sorted together.
    made = data.task_dataset(mixed, batch_size=97, seed=5, steps=18)
    names = [names_of(x) for x, _, _ in made.as_numpy_iterator()]
    for epoch in range(6):
        found = np.concatenate(names[3 * epoch : 3 * epoch + 3])
        assert len(np.unique(found)) == 291


def test_each_set_has_epochs_of_its_own(mixture):
    names = np.concatenate([names_of(x) for x, _, _ in read(mixture, 600)])
    for number, count in enumerate((101, 150, 40)):
        own = names[set_of(names) == number]
        for begin in range(0, len(own) - 4 * count, count):
            # An epoch of a set may begin and end within 50 batches.
            found = np.unique(own[begin : begin + 4 * count])
            assert len(found) == count
        assert not np.array_equal(own[:count], own[count : 2 * count])
    whole = np.bincount(names)
    assert whole[:101].min() == 720 // 101


def test_labels_are_those_of_their_examples(mixture):
    for x, y, weight in read(mixture, 20):
        names = names_of(x)
        labelled = set_of(names) < 2
        assert list(weight) == [1.0] * 4
        assert x["label_weight"].dtype == np.float32
        np.testing.assert_array_equal(x["label_weight"], labelled)
        np.testing.assert_array_equal(y, np.where(labelled, names, 0))
        for row, name in enumerate(names):
            real = x["padding_mask"][row] > 0
            assert set(x["token_ids"][row][real]) == {name}
            assert not x["token_ids"][row][~real].any()


def test_without_unlabelled_examples_all_labels_count(examples, augmented):
    for x, _, _ in read(data.Mixture(examples, augmented), 3):
        assert "label_weight" not in x


def test_spans_without_labels_have_zeros(examples, unlabelled):
    spans = dataclasses.replace(
        examples, labels={"start": examples.labels, "end": examples.labels + 1}
    )
    mixed = data.Mixture(spans, None, unlabelled, unlabelled_share=0.5)
    for x, y, _ in read(mixed, 20):
        assert x["label_weight"].sum() == 2
        for name, more in (("start", 0), ("end", 1)):
            expected = x["label_weight"] * (names_of(x) + more)
            np.testing.assert_array_equal(y[name], expected)


@pytest.mark.slow
def test_a_mixed_stream_is_entered_at_any_step(mixture):
    # In the middle of what is sorted together, for the second time.
    for one, other in zip(
        read(mixture, 90)[75:], read(mixture, 90, 75), strict=True
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_shares_of_replicas_are_the_whole_batch(mixture):
    made = data.task_dataset(mixture, batch_size=5, seed=5, steps=30)
    stream = data.stream_of(made)
    shares = [
        stream.dataset(replicas=(replica,), replica_count=2)
        for replica in (0, 1)
    ]
    for (x, y, _), *parts in zip(
        made.as_numpy_iterator(),
        *(share.as_numpy_iterator() for share in shares),
        strict=True,
    ):
        joined = np.concatenate([part[1] for part in parts])
        np.testing.assert_array_equal(y, joined)
        names = np.concatenate([names_of(part[0]) for part in parts])
        np.testing.assert_array_equal(names_of(x), names)


def test_batches_are_those_of_sorting_by_hand(mixture):
    """The second window: each set's own order, sorted, cut and shuffled."""
    shares = mixing.find_shares([101, 150, 40], [None, 0.5, 0.2])
    before = [
        mixing.split_examples(4 * step, shares) for step in range(50, 101)
    ]
    by_length = []
    for number, part in enumerate(mixture.parts):
        place = np.arange(before[0][number], before[-1][number])
        rows = shuffled(
            tf.constant(place % len(part)),
            5,
            tf.constant(place // len(part)),
            len(part),
            (0, 2, 3)[number],
        )
        by_length.append(
            sorted(rows.numpy(), key=lambda row: part.lengths[row])
        )
    order = shuffled(
        tf.range(50, dtype=tf.int64), 5, tf.ones(50, tf.int64), 50, 1
    ).numpy()
    for batch, place in zip(read(mixture, 100)[50:], order, strict=True):
        expected = []
        for number, rows in enumerate(by_length):
            first, last = (
                before[x][number] - before[0][number]
                for x in (place, place + 1)
            )
            names = (0, 200, 500)[number] + np.array(rows[first:last], int)
            expected += list(names)
        assert list(names_of(batch[0])) == expected
