"""Candidates against the model called for one word at a time."""

import numpy as np
import pytest

from keras_distil import data, models
from keras_distil.models.replaceable_words import WordFinder
from keras_distil.models.word_candidates import (
    WordCandidates,
    count_places,
    mask_words,
)

TEXTS = ["ab c def", "de f", "g", "h, i jk", "1"]
SECONDS = ["k", "lm m", "n", "opq 2", "rst"]


@pytest.fixture
def tokenizer(toy_teacher):
    return data.load_tokenizer(toy_teacher)


@pytest.fixture
def teacher(toy_teacher):
    return models.load_teacher(toy_teacher)


@pytest.fixture
def examples(tokenizer):
    return data.encode_examples(tokenizer, TEXTS, SECONDS, max_length=12)


def masked_by_hand(examples, words, word, mask_id):
    """The tokens and the first segment's length, with one mask for a word."""
    example = words.example[word]
    ids = list(examples.token_ids[slice(*examples.starts[example:][:2])])
    first = int(words.first[word] - examples.starts[example])
    size, in_first = words.sizes[word], int(examples.first_lengths[example])
    ids[first : first + size] = [mask_id]
    if first < in_first:
        in_first -= size - 1
    return np.array(ids), in_first, first


def test_a_word_of_any_length_becomes_one_mask(examples, tokenizer):
    words = WordFinder(tokenizer).find(examples)
    assert set(words.sizes) == {1, 2, 3}
    mask_id = tokenizer.token_to_id("[MASK]")
    order = np.arange(len(words))[::-1]
    batch = mask_words(examples, words, order, mask_id)
    for row, word in enumerate(order):
        ids, in_first, place = masked_by_hand(examples, words, word, mask_id)
        real = np.arange(batch["token_ids"].shape[1]) < len(ids)
        np.testing.assert_array_equal(batch["token_ids"][row][real], ids)
        assert not batch["token_ids"][row][~real].any()
        np.testing.assert_array_equal(batch["padding_mask"][row], real)
        segments = batch["segment_ids"][row]
        assert segments[:in_first].sum() == 0
        assert segments.sum() == len(ids) - in_first
        assert batch["mask_positions"][row] == [place]


def test_candidates_are_the_likeliest_words(examples, teacher, tokenizer):
    finder = WordFinder(tokenizer)
    words = finder.find(examples)
    mask_id = tokenizer.token_to_id("[MASK]")
    model = WordCandidates(teacher, finder.whole, mask_id=mask_id, count=4)
    done = []
    found = model.predict(examples, words, done.append)
    assert done == [len(words)]
    for word in range(len(words)):
        ids, in_first, place = masked_by_hand(examples, words, word, mask_id)
        logits = np.array(
            teacher(
                {
                    "token_ids": ids[None],
                    "padding_mask": np.ones((1, len(ids)), "int32"),
                    "segment_ids": (np.arange(len(ids)) >= in_first)[
                        None
                    ].astype("int32"),
                    "mask_positions": np.array([[place]]),
                }
            )
        )[0, 0]
        original = examples.token_ids[words.first[word]]
        order = [
            i
            for i in np.argsort(-logits)
            if i < tokenizer.get_vocab_size()
            and tokenizer.id_to_token(int(i)).isalpha()
            # A word of several tokens begins with one that may replace it.
            and (i != original or words.sizes[word] > 1)
        ]
        assert found[word].tolist() == order[:4]


def test_places_are_those_of_padded_batches(examples):
    # 10, 9, 5, 12 and 7 tokens, each rounded up to 8 or 16.
    lengths = examples.lengths
    assert sorted(-(-lengths // 8) * 8) == [8, 8, 16, 16, 16]
    assert count_places(examples, np.array([0, 0, 4])) == 16 + 16 + 8


def test_a_pass_is_timed(examples, teacher, tokenizer):
    finder = WordFinder(tokenizer)
    words = finder.find(examples)
    model = WordCandidates(teacher, finder.whole, mask_id=4, count=1)
    # A toy pass takes far less than a second.
    assert 0 < model.seconds_per_place(examples, words) < 1
