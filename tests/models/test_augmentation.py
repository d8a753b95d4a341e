"""Augmentation against counting and replacing by hand."""

import dataclasses

import numpy as np
import pytest

from keras_distil import data, models
from keras_distil.models import augmentation
from keras_distil.models.augmentation import Augmenter, check_text
from keras_distil.models.replaceable_words import WordFinder

TEXTS = ["ab c 12", "de f", "g", "h, i jk"]


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
        tokenizer, TEXTS, ["k", "lm m", "n", "o"], labels, max_length=12
    )


def rows(examples):
    return [
        [int(i) for i in row]
        for row in np.split(examples.token_ids, examples.starts[1:-1])
    ]


def pieces_of(tokenizer, ids):
    """Groups tokens into words, and tells which are words of letters."""
    groups = []
    for number in ids:
        token = tokenizer.id_to_token(int(number))
        if token.startswith("##"):
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


def is_word(group):
    return "".join(token.removeprefix("##") for token in group).isalpha()


def test_whole_words_become_other_words_and_nothing_else_changes(
    examples, teacher, tokenizer
):
    augmenter = Augmenter(
        teacher, tokenizer, copies=20, probability=1.0, candidates=3, seed=1
    )
    copies = list(augmenter.copies_of(examples, 0))
    assert len(copies) == 20
    for copy in copies:
        np.testing.assert_array_equal(copy.labels, [0, 1, 2, 3])
        for number, (old, new) in enumerate(
            zip(rows(examples), rows(copy), strict=True)
        ):
            before = pieces_of(tokenizer, old)
            after = pieces_of(tokenizer, new)
            assert len(before) == len(after)
            for one, other in zip(before, after, strict=True):
                if is_word(one):
                    assert len(other) == 1 and other[0].isalpha()
                    assert one != other
                else:
                    assert one == other
            # The first segment still ends with its [SEP].
            first = copy.first_lengths[number]
            assert tokenizer.id_to_token(new[first - 1]) == "[SEP]"
            assert new[:first].count(3) == 1


def test_all_candidates_are_drawn_alike(examples, teacher, tokenizer):
    augmenter = Augmenter(
        teacher, tokenizer, copies=600, probability=1.0, candidates=3
    )
    # The only word of the third example's first text.
    drawn = [rows(x)[2][1] for x in augmenter.copies_of(examples, 0)]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 3
    # Five standard errors of 600 draws.
    assert np.abs(counts - 200).max() < 5 * np.sqrt(600 * 2 / 9)


def test_words_are_replaced_at_the_rate_that_is_asked_for(
    examples, teacher, tokenizer
):
    augmenter = Augmenter(
        teacher, tokenizer, copies=500, probability=0.4, candidates=2
    )
    copies = [x.token_ids for x in augmenter.copies_of(examples, 0)]
    original = rows(examples)
    words = [
        (number, place)
        for number, row in enumerate(original)
        for place, group in enumerate(pieces_of(tokenizer, row))
        if is_word(group)
    ]
    assert len(words) == 13
    changed = np.zeros((500, len(words)), bool)
    for place, copy in enumerate(augmenter.copies_of(examples, 0)):
        groups = [pieces_of(tokenizer, row) for row in rows(copy)]
        before = [pieces_of(tokenizer, row) for row in original]
        changed[place] = [groups[n][w] != before[n][w] for n, w in words]
    rates = changed.mean(axis=0)
    # Five standard errors of 500 draws.
    assert rates.min() > 0.29 and rates.max() < 0.51
    # Words are replaced independently of one another.
    related = np.corrcoef(changed.T) - np.eye(len(words))
    assert np.abs(related).max() < 5 / np.sqrt(500)
    again = augmenter.copies_of(examples, 0)
    for one, other in zip(copies, again, strict=True):
        np.testing.assert_array_equal(one, other.token_ids)


def test_a_part_depends_on_nothing_but_its_number(
    examples, teacher, tokenizer, monkeypatch
):
    monkeypatch.setattr(augmentation, "PART_EXAMPLES", 2)
    assert augmentation.count_parts(examples) == 2
    made = {
        seed: Augmenter(
            teacher,
            tokenizer,
            copies=2,
            candidates=9,
            probability=0.9,
            seed=seed,
        )
        for seed in (0, 1)
    }
    assert made[0].count_words(examples) == [7, 6]
    second = [rows(x) for x in made[0].copies_of(examples, 1)]
    first = [rows(x) for x in made[0].copies_of(examples, 0)]
    assert [len(x) for x in (*first, *second)] == [2] * 4
    assert second == [rows(x) for x in made[0].copies_of(examples, 1)]
    other = [rows(x) for x in made[1].copies_of(examples, 1)]
    assert second != other and second[0] != second[1]
    labels = [x.labels.tolist() for x in made[0].copies_of(examples, 1)]
    assert labels == [[2, 3], [2, 3]]


def test_parts_of_equal_text_become_different_copies(
    teacher, tokenizer, monkeypatch
):
    monkeypatch.setattr(augmentation, "PART_EXAMPLES", 2)
    labels = np.zeros(4, "int32")
    alike = data.encode_examples(tokenizer, ["a b c d e f"] * 4, labels=labels)
    augmenter = Augmenter(teacher, tokenizer, copies=2)
    parts = [[rows(x) for x in augmenter.copies_of(alike, n)] for n in (0, 1)]
    assert parts[0] != parts[1]


def test_the_time_is_estimated(examples, teacher, tokenizer):
    augmenter = Augmenter(teacher, tokenizer, copies=1, candidates=1)
    once = augmenter.estimate_seconds(examples, 10)
    # Timed anew, so other by the noise of a short pass.
    assert 0 < once < augmenter.estimate_seconds(examples, 10**6)
    numbers = data.encode_examples(tokenizer, ["1"], labels=np.zeros(1))
    assert augmenter.estimate_seconds(numbers, 0) == 0


def test_progress_is_reported(examples, teacher, tokenizer):
    calls = []
    augmenter = Augmenter(teacher, tokenizer, copies=1)
    list(augmenter.copies_of(examples, 0, calls.append))
    assert calls == augmenter.count_words(examples) == [13]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"copies": 0}, "copies=0"),
        ({"copies": 1, "candidates": 0}, "candidates=0"),
        ({"copies": 1, "candidates": 27}, "at most 26, the words"),
        ({"copies": 1, "probability": 0.0}, "probability=0.0"),
    ],
)
def test_wrong_arguments_are_refused(teacher, tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        Augmenter(teacher, tokenizer, **arguments)


def test_spans_are_refused(examples, teacher, tokenizer):
    spans = dataclasses.replace(examples, labels={"start": examples.labels})
    augmenter = Augmenter(teacher, tokenizer, copies=1)
    with pytest.raises(ValueError, match="one label each. Received: dict"):
        next(augmenter.copies_of(spans, 0))


def test_an_empty_text_is_refused(tokenizer):
    labels = np.zeros(4, "int32")
    texts = ["a", "", "b", " "]
    examples = data.encode_examples(tokenizer, texts, labels=labels)
    with pytest.raises(
        ValueError,
        match="must have text to augment. Received: 2 of 4 without any, the "
        'first comes after "a". Remove them from the training set, or set',
    ):
        check_text(examples, tokenizer)
    first = "2 of 3 without any, the first comes before all others"
    with pytest.raises(ValueError, match=first):
        check_text(examples.part(1, 4), tokenizer)
    # One text of a pair may be empty.
    check_text(
        data.encode_examples(tokenizer, texts, ["", "c", "", "d"], labels),
        tokenizer,
    )


def test_a_task_without_words_is_refused(tokenizer):
    examples = data.encode_examples(tokenizer, ["1", "2, 3"])
    with pytest.raises(
        ValueError, match="words of letters to replace. Received: 2 without"
    ):
        check_text(examples, tokenizer)
    assert not len(WordFinder(tokenizer).find(examples))
