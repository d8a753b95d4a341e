"""Batches from shards on disk: the same as from memory; buckets; errors."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy import VOCABULARY, make_teacher

import keras_distil
from keras_distil import data, losses
from keras_distil.data.corpus.shards import (
    CorpusError,
    ShardedSequences,
    shard_name,
    write_shard,
)
from keras_distil.data.masked_batches import held_out_dataset, masked_lm_dataset

SPECIAL = data.SpecialTokens(0, 1, 2, 3, 4)
OPTIONS = {"special": SPECIAL, "vocabulary_size": VOCABULARY, "seed": 3}


def rows_of(count, length, first=0):
    """Rows that are identified by their last two ordinary tokens."""
    rows = np.random.default_rng(length).integers(
        5, VOCABULARY, (count, length)
    )
    rows[:, 0], rows[:, -1] = SPECIAL.cls_id, SPECIAL.sep_id
    numbers = first + np.arange(count)
    rows[:, 1], rows[:, 2] = 5 + numbers // 20, 5 + numbers % 20
    return rows.astype(np.uint16)


def sharded(folder, rows, per_shard=7):
    folder.mkdir(exist_ok=True)
    pieces = [rows[i : i + per_shard] for i in range(0, len(rows), per_shard)]
    name = f"train_{rows.shape[1]}"
    paths = [
        folder / shard_name(name, i, len(pieces)) for i in range(len(pieces))
    ]
    for path, piece in zip(paths, pieces, strict=True):
        write_shard(path, piece)
    return ShardedSequences(
        paths, [len(p) for p in pieces], length=rows.shape[1], dtype=rows.dtype
    )


def values(dataset):
    return [tf.nest.flatten(batch) for batch in dataset.as_numpy_iterator()]


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("make", [masked_lm_dataset, held_out_dataset])
def test_shards_give_the_batches_of_an_array(tmp_path, make):
    rows = rows_of(23, 16)
    options = {**OPTIONS, "batch_size": 4}
    if make is masked_lm_dataset:
        options["steps"] = 15
    made = make(sharded(tmp_path, rows), **options)
    expected = make(rows, **options)
    assert made.element_spec == expected.element_spec
    assert_same(values(made), values(expected))


@pytest.fixture
def buckets(tmp_path):
    return [
        sharded(tmp_path, rows_of(11, 8)),
        sharded(tmp_path, rows_of(0, 12)),
        sharded(tmp_path, rows_of(22, 16, first=11)),
    ]


def number(originals):
    return ((originals[:, 1] - 5) * 20 + originals[:, 2] - 5).tolist()


def test_batches_are_of_one_bucket(buckets):
    dataset = masked_lm_dataset(buckets, batch_size=4, steps=14, **OPTIONS)
    epochs = [[], []]
    for step, (x, y, weight) in enumerate(dataset.as_numpy_iterator()):
        assert x["token_ids"].shape == y.shape == weight.shape
        epochs[step // 7].append((y.shape[1], number(y)))
        assert {n < 11 for n in number(y)} == {y.shape[1] == 8}
    for epoch in epochs:
        # 2 batches of the 11 short sequences, 5 of the 22 long ones.
        assert sorted(length for length, _ in epoch) == [8] * 2 + [16] * 5
        seen = [n for _, numbers in epoch for n in numbers]
        assert len(set(seen)) == len(seen) == 28
    assert epochs[0] != epochs[1]
    # Buckets alternate, rather than come one after the other.
    assert [n for n, _ in epochs[0]] != sorted(n for n, _ in epochs[0])


@pytest.mark.slow
def test_buckets_can_be_entered_anywhere(buckets):
    options = {**OPTIONS, "batch_size": 4, "steps": 20}
    whole = values(masked_lm_dataset(buckets, **options))
    late = values(masked_lm_dataset(buckets, first_step=13, **options))
    assert_same(late, whole[13:])
    assert_same(values(masked_lm_dataset(buckets, **options)), whole)


def test_masks_differ_from_bucket_to_bucket(tmp_path):
    same = rows_of(4, 16)
    buckets = [sharded(tmp_path, same), sharded(tmp_path / "b", same)]
    dataset = masked_lm_dataset(
        buckets, batch_size=4, steps=2, shuffle=False, **OPTIONS
    )
    (_, _, one), (_, _, other) = dataset.as_numpy_iterator()
    assert (one != other).any()


def test_too_few_sequences_for_a_batch(buckets):
    with pytest.raises(ValueError, match="No bucket of the corpus has the 30"):
        masked_lm_dataset(buckets, batch_size=30, **OPTIONS)


def distiller(**options):
    teacher = make_teacher(max_sequence_length=16)
    student = keras_distil.models.initialize_student(teacher, 1)
    made = keras_distil.Distiller(teacher, student, losses.triple_loss())
    made.compile(keras.optimizers.SGD(0.1), **options)
    return made


@pytest.mark.slow
def test_trains_from_buckets(buckets):
    made = distiller(run_eagerly=True)
    dataset = masked_lm_dataset(buckets, batch_size=4, **OPTIONS)
    history = made.fit(dataset, steps_per_epoch=7, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


@pytest.mark.parametrize("damage", ["vanished", "corrupted"])
@pytest.mark.slow
@pytest.mark.essential
def test_damaged_shard_ends_training_in_one_line(tmp_path, damage):
    rows = rows_of(40, 16)
    sequences = sharded(tmp_path, rows)
    path = sorted(tmp_path.iterdir())[-1]
    if damage == "vanished":
        os.unlink(path)
    else:
        content = bytearray(path.read_bytes())
        content[content.index(rows[-1].tobytes()) + 5] ^= 1
        path.write_bytes(content)
    made = distiller(run_eagerly=damage == "vanished")
    dataset = masked_lm_dataset(sequences, batch_size=4, **OPTIONS)
    with pytest.raises(CorpusError) as caught:
        made.fit(dataset, steps_per_epoch=20, verbose=0)
    held_out = held_out_dataset(sequences, batch_size=4, **OPTIONS)
    with pytest.raises(CorpusError, match="has vanished or is damaged"):
        made.evaluate(held_out, verbose=0)
    message = str(caught.value)
    assert message.startswith(f"The shard {path} cannot be read: it has vani")
    assert message.endswith(
        "Copy it again, or remove the folder and prepare it again with "
        "`keras-distil prepare`."
    )
