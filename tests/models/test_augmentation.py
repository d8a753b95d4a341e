"""Augmentation against a model that is run for one word at a time."""

import numpy as np
import pytest
from toy import byte_level_tokenizer, randomize

from keras_distil import data, models
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.models.augmentation import augment_examples

TEXTS = ["a b c", "de f", "g", "h, i j"]


@pytest.fixture
def tokenizer(toy_teacher):
    return data.load_tokenizer(toy_teacher)


@pytest.fixture
def teacher(toy_teacher):
    return models.load_teacher(toy_teacher)


@pytest.fixture
def examples(tokenizer):
    labels = np.array([0, 1, 2, 3], "int32")
    return data.encode_examples(
        tokenizer, TEXTS, ["k", "l m", "n", "o"], labels, max_length=12
    )


def words_of(tokenizer, ids):
    """Places of words of one token, by looking at the tokens."""
    tokens = [tokenizer.id_to_token(int(i)) for i in ids] + ["[SEP]"]
    return [
        place
        for place in range(len(ids))
        if tokens[place].isalpha() and not tokens[place + 1].startswith("##")
    ]


def candidates_of(teacher, tokenizer, row, first, place, count):
    masked = row.copy()
    masked[place] = tokenizer.token_to_id("[MASK]")
    logits = np.array(
        teacher(
            {
                "token_ids": masked[None],
                "padding_mask": np.ones((1, len(row)), "int32"),
                "segment_ids": (np.arange(len(row)) >= first)[None].astype(int),
                "mask_positions": np.array([[place]]),
            }
        )
    )[0, 0]
    order = [
        i
        for i in np.argsort(-logits)
        if i < tokenizer.get_vocab_size()
        and tokenizer.id_to_token(int(i)).isalpha()
        and i != row[place]
    ]
    return set(order[:count])


def test_words_become_what_the_model_expects(examples, teacher, tokenizer):
    found = augment_examples(
        examples,
        teacher,
        tokenizer,
        copies=40,
        probability=1.0,
        candidates=3,
        seed=1,
    )
    assert len(found) == 41 * 4
    np.testing.assert_array_equal(found.labels, [0, 1, 2, 3] * 41)
    rows = np.split(found.token_ids, found.starts[1:-1])
    for number in range(4):
        original = rows[number]
        first = examples.first_lengths[number]
        copies = np.stack(rows[number + 4 :: 4])
        assert set(found.first_lengths[number::4]) == {first}
        places = words_of(tokenizer, original)
        assert places
        for place in range(len(original)):
            seen = set(copies[:, place])
            if place not in places:
                assert seen == {original[place]}
                continue
            expected = candidates_of(
                teacher, tokenizer, original, first, place, 3
            )
            # 40 draws from 3 miss one of them once in 3 million times.
            assert seen == expected


def test_words_are_replaced_at_the_rate_that_is_asked_for(
    examples, teacher, tokenizer
):
    found = augment_examples(
        examples, teacher, tokenizer, copies=500, probability=0.4, candidates=2
    )
    whole = len(examples.token_ids)
    copies = found.token_ids.reshape(501, whole)
    changed = (copies[1:] != copies[0]).mean(axis=0)
    rates = changed[changed > 0]
    # Five standard errors of 500 draws.
    assert rates.min() > 0.29 and rates.max() < 0.51
    again = augment_examples(
        examples, teacher, tokenizer, copies=500, probability=0.4, candidates=2
    )
    np.testing.assert_array_equal(found.token_ids, again.token_ids)


def test_progress_is_reported(examples, teacher, tokenizer):
    calls = []
    augment_examples(
        examples,
        teacher,
        tokenizer,
        copies=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1][0] == calls[-1][1] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"copies": 0}, "copies=0"),
        ({"copies": 1, "candidates": 0}, "candidates=0"),
        ({"copies": 1, "candidates": 27}, "at most 26, the words"),
        ({"copies": 1, "probability": 0.0}, "probability=0.0"),
    ],
)
def test_wrong_arguments_are_refused(
    examples, teacher, tokenizer, arguments, message
):
    with pytest.raises(ValueError, match=message):
        augment_examples(examples, teacher, tokenizer, **arguments)


def test_spans_are_refused(examples, teacher, tokenizer):
    spans = EncodedExamples(**{**vars(examples), "labels": {"start": 1}})
    with pytest.raises(ValueError, match="one label each. Received: dict"):
        augment_examples(spans, teacher, tokenizer, copies=1)


def test_words_of_a_byte_level_tokenizer(tmp_path):
    tokenizer = byte_level_tokenizer(tmp_path)
    text = "the student's way is here: a naïve, a\tb <mask> of"
    labels = np.array([0], "int32")
    examples = data.encode_examples(tokenizer, [text], None, labels)
    backbone = models.ExactBertBackbone(
        vocabulary_size=701,
        num_layers=1,
        num_heads=1,
        hidden_dim=4,
        intermediate_dim=4,
        max_sequence_length=64,
    )
    model = randomize(models.ExactBertMaskedLM(backbone), seed=1)
    found = augment_examples(
        examples, model, tokenizer, copies=40, probability=1.0, candidates=4
    )
    rows = found.token_ids.reshape(41, -1)
    replaced = {
        tokenizer.decode([int(rows[0, place])])
        for place in range(rows.shape[1])
        if (rows[1:, place] != rows[0, place]).any()
    }
    # Whole words after a space; the others are pieces of longer ones.
    whole = {" is", " a", " of"}
    assert whole <= replaced
    for word in replaced:
        assert f"{word} " in f"{text} " or f"{word}'" in text
    for place in range(rows.shape[1]):
        for token in set(rows[1:, place]) - {rows[0, place]}:
            word = tokenizer.decode([int(token)])
            assert word[0] == " " and word[1:].isalpha()
