"""Texts in parts and in windows, weights, and labels of tokens in batches."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tokenizers

from keras_distil import data
from keras_distil.data.tasks.batches import IGNORED
from keras_distil.data.tasks.encoding import TextEncoder, join_examples
from keras_distil.data.tasks.training_batches import task_dataset


@pytest.fixture(scope="module")
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            {word: i for i, word in enumerate(words)}, unk_token="[UNK]"
        )
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(words[:5])
    return made


FIRST = ["a b c", "d", "e f g h a b c d", "a"]
SECOND = ["h", "g f", "e e e e e", "b"]


@pytest.mark.parametrize("second", [None, SECOND])
def test_parts_are_the_whole(tokenizer, second):
    whole = data.encode_examples(tokenizer, FIRST, second, max_length=8)
    encoder = TextEncoder(tokenizer, max_length=8)
    parts = (
        encoder.encode(FIRST[x], None if second is None else second[x])
        for x in (slice(0, 1), slice(1, 3), slice(3, 4))
    )
    found = join_examples(parts)
    for name in ("token_ids", "starts", "first_lengths"):
        one, other = getattr(found, name), getattr(whole, name)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert found.cut == whole.cut == 1
    with pytest.raises(ValueError, match="must be a text or more"):
        join_examples([])


def test_windows(tokenizer):
    encoder = TextEncoder(tokenizer, max_length=8, stride=2)
    parts = [encoder.encode(FIRST[:2]), encoder.encode(FIRST[2:])]
    found = join_examples(parts)
    rows = np.split(found.token_ids, found.starts[1:-1])
    assert [list(row[1:-1]) for row in rows] == [
        [5, 6, 7],
        [8],
        [9, 10, 11, 12, 5, 6],
        [5, 6, 7, 8],
        [5],
    ]
    assert all(row[0] == 2 and row[-1] == 3 for row in rows)
    assert list(found.owners) == [0, 1, 2, 2, 3]
    assert found.cut == 0
    with pytest.raises(ValueError, match="is for single texts"):
        encoder.encode(FIRST, SECOND)
    with pytest.raises(ValueError, match="`stride` must be from 1 to 5"):
        TextEncoder(tokenizer, max_length=8, stride=6)


def test_weights_and_labels_of_several(tokenizer):
    examples = data.encode_examples(tokenizer, FIRST, max_length=8)
    examples = dataclasses.replace(
        examples,
        labels=np.eye(4, dtype=np.float32),
        weights=np.array([1, 2, 3, 4], np.float32),
    )
    seen = {}
    for x, y, weight in task_dataset(examples, batch_size=2, seed=0, steps=2):
        for row, label, one in zip(x["token_ids"], y, weight, strict=True):
            place = int(tf.argmax(label))
            ids = np.trim_zeros(row.numpy())
            wanted = np.split(examples.token_ids, examples.starts[1:-1])
            np.testing.assert_array_equal(ids, wanted[place])
            seen[place] = float(one)
    assert seen == {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0}


def test_labels_of_tokens(tokenizer):
    examples = data.encode_examples(tokenizer, FIRST, max_length=12)
    # Every token is its own label.
    examples = dataclasses.replace(examples, labels=examples.token_ids)
    assert examples.has_token_labels
    for x, y, weight in task_dataset(examples, batch_size=2, seed=0, steps=2):
        real = x["padding_mask"].numpy() > 0
        assert y.shape == weight.shape == x["token_ids"].shape
        np.testing.assert_array_equal(y[real], x["token_ids"][real])
        assert (y.numpy()[~real] == IGNORED).all()
        np.testing.assert_array_equal(weight, real)
