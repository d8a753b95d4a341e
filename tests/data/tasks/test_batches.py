"""Batches of tasks, against the tokenizer and against sorting by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
import tokenizers
from toy import byte_level_tokenizer

from keras_distil import data


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


def rows(examples):
    return np.split(examples.token_ids, examples.starts[1:-1])


def test_texts_and_pairs_are_framed(tokenizer):
    one = data.encode_examples(tokenizer, ["a b", "", "c"])
    assert [list(row) for row in rows(one)] == [[2, 5, 6, 3], [2, 3], [2, 7, 3]]
    pair = data.encode_examples(tokenizer, ["a b", "c"], ["d", "e f g"])
    assert [list(row) for row in rows(pair)] == [
        [2, 5, 6, 3, 8, 3],
        [2, 7, 3, 9, 10, 11, 3],
    ]
    assert list(pair.first_lengths) == [4, 3]


@pytest.mark.parametrize(
    ("one", "other", "kept"),
    [
        ("a b c d e f g h", "a", (6, 1)),
        ("a", "a b c d e f g h", (1, 6)),
        ("a b c d e f", "a b c d e f", (3, 4)),
        ("a b c d", "a b c", (4, 3)),
        ("a b c", "a b c d e f", (3, 4)),
    ],
)
def test_the_longer_text_of_a_pair_is_cut(tokenizer, one, other, kept):
    found = data.encode_examples(tokenizer, [one], [other], max_length=10)
    assert found.first_lengths[0] - 2 == kept[0]
    assert len(found.token_ids) == min(10, sum(kept) + 3)
    assert len(found.token_ids) - found.first_lengths[0] - 1 == kept[1]


def test_a_long_text_is_cut(tokenizer):
    found = data.encode_examples(tokenizer, ["a b c d e f g h"], max_length=8)
    assert list(found.token_ids) == [2, 5, 6, 7, 8, 9, 10, 3]


def test_no_padded_batch_is_longer_than_a_model_reads(examples):
    # The longest has 24 tokens; of 22, rounding up would make 24.
    shorter = dataclasses.replace(examples.part(0, 21), max_length=22)
    padded = data.padded_batches(shorter, batch_size=8)
    assert max(x["token_ids"].shape[1] for _, x in padded) == 22


def test_padded_batches_hold_every_example_once(examples):
    seen = []
    for numbers, x in data.padded_batches(examples, batch_size=8):
        seen += list(numbers)
        assert x["token_ids"].shape[1] % 8 == 0
        for number, ids, mask, segments in zip(
            numbers,
            x["token_ids"],
            x["padding_mask"],
            x["segment_ids"],
            strict=True,
        ):
            count = 2 + number % 23
            assert mask.sum() == count
            assert set(ids[:count]) == {number}
            assert segments.sum() == count - 1 - count // 2
    assert sorted(seen) == list(range(101))


def test_wrong_arguments_are_refused(tokenizer, examples):
    with pytest.raises(ValueError, match="at least one example.*: 0 and none"):
        data.encode_examples(tokenizer, [])
    with pytest.raises(ValueError, match="as many second.*: 1 and 2"):
        data.encode_examples(tokenizer, ["a"], ["a", "b"])
    with pytest.raises(ValueError, match="at least 8. Received: 7"):
        data.encode_examples(tokenizer, ["a"], max_length=7)


def test_pairs_are_cut_as_the_tokenizers_library_does(tokenizer):
    words = list("abcdefghi")
    cut = tokenizers.Tokenizer.from_str(tokenizer.to_str())
    cut.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", 3), ("[CLS]", 2)
    )
    for max_length in (8, 9, 12):
        cut.enable_truncation(max_length, strategy="longest_first")
        for one, other in itertools.product(range(1, 10), repeat=2):
            pair = " ".join(words[:one]), " ".join(words[-other:])
            made = data.encode_examples(
                tokenizer, [pair[0]], [pair[1]], max_length=max_length
            )
            expected = cut.encode(*pair)
            assert made.token_ids.tolist() == expected.ids, (pair, max_length)
            first = expected.type_ids.count(0)
            assert made.first_lengths.tolist() == [first]


# === Two separators, and one segment ===


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    return byte_level_tokenizer(tmp_path_factory.mktemp("byte_level"))


@pytest.mark.parametrize("length", [8, 9, 10, 11, 16, 64])
def test_byte_level_pairs_are_those_of_the_library(byte_level, length):
    firsts = ["a b c", "a", "the student's <mask>", "", " x y"] * 2
    seconds = ["d", "the teacher of the student", "z z z z z", " a", ""]
    seconds += seconds[::-1]
    found = data.encode_examples(byte_level, firsts, seconds, max_length=length)
    byte_level.enable_truncation(length, strategy="longest_first")
    try:
        pairs = list(zip(firsts, seconds, strict=True))
        expected = byte_level.encode_batch(pairs)
    finally:
        byte_level.no_truncation()
    assert [row.tolist() for row in rows(found)] == [e.ids for e in expected]
    assert list(found.first_lengths) == list(found.lengths)
    [(order, batch)] = data.padded_batches(found, batch_size=10)
    assert not batch["segment_ids"].any()
    for row, number in enumerate(order):
        real = batch["padding_mask"][row].sum()
        assert real == len(expected[number].ids)
        assert (batch["token_ids"][row, real:] == 1).all()


def test_byte_level_texts_are_framed_once(byte_level):
    found = data.encode_examples(byte_level, ["a b"], max_length=8)
    assert found.token_ids.tolist() == byte_level.encode("a b").ids


def test_a_part_of_examples_stands_alone(examples):
    part = examples.part(20, 45)
    assert len(part) == 25 and part.starts[0] == 0
    for number, row in enumerate(rows(part)):
        assert set(row) == {20 + number}
        assert len(row) == part.lengths[number] == 2 + (20 + number) % 23
    np.testing.assert_array_equal(part.labels, np.arange(20, 45))
    np.testing.assert_array_equal(
        part.first_lengths, examples.first_lengths[20:45]
    )
    labels = {"start": examples.labels, "end": examples.labels + 1}
    spans = dataclasses.replace(examples, labels=labels).part(3, 5)
    assert spans.labels["end"].tolist() == [4, 5]
    unlabelled = dataclasses.replace(examples, labels=None)
    assert unlabelled.part(3, 5).labels is None
