"""What is taken out of a training set, against hashes computed by hand."""

import collections
import hashlib
import random

import numpy as np
import pytest

from keras_distil.data import SquadExample, TaskExamples
from keras_distil.data.tasks.selection import split_examples, split_questions


def digest(text):
    """The hash of a text of lower-case words with single spaces."""
    made = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(made, "big")


def make_examples(texts, labels, second=None):
    return TaskExamples(texts, second, labels, list(range(len(texts))))


def random_texts(count):
    draw = random.Random(count)
    return [
        " ".join(draw.choices("abcdefghijklmnop", k=6)) + f" {number}"
        for number in range(count)
    ]


def test_every_class_gives_the_tenth_with_the_smallest_hashes():
    texts = random_texts(340)
    labels = np.array([0] * 200 + [1] * 120 + [2] * 20, np.int32)
    rest, taken = split_examples(make_examples(texts, labels))
    expected = set()
    for wanted in range(3):
        of_class = [
            x for x, y in zip(texts, labels, strict=True) if y == wanted
        ]
        size = {0: 20, 1: 12, 2: 2}[wanted]
        expected |= set(sorted(of_class, key=digest)[:size])
    assert set(taken.first) == expected
    assert set(rest.first) == set(texts) - expected
    # Each part keeps its texts with their labels and numbers, in order.
    for part in (rest, taken):
        assert part.ids == sorted(part.ids) and part.second is None
        assert part.first == [texts[i] for i in part.ids]
        np.testing.assert_array_equal(part.labels, labels[part.ids])
        assert part.labels.dtype == np.int32


def test_the_order_of_the_examples_does_not_matter():
    texts, labels = random_texts(90), np.arange(90, dtype=np.int32) % 2
    order = np.random.default_rng(0).permutation(90)
    _, taken = split_examples(make_examples(texts, labels))
    _, other = split_examples(
        make_examples([texts[i] for i in order], labels[order])
    )
    assert len(taken) == 8
    assert set(taken.first) == set(other.first)


def test_scores_are_one_class():
    texts = random_texts(40)
    scores = np.linspace(0, 5, 40).astype(np.float32)
    _, taken = split_examples(make_examples(texts, scores))
    assert set(taken.first) == set(sorted(texts, key=digest)[:4])
    assert taken.labels.dtype == np.float32


def test_both_texts_of_a_pair_count():
    first = ["a b"] * 30 + ["a"] * 30
    second = [f"c {i}" for i in range(30)] + [f"b c {i}" for i in range(30)]
    examples = make_examples(first, np.zeros(60, np.int32), second)
    _, taken = split_examples(examples)
    expected = sorted(
        zip(first, second, strict=True),
        key=lambda pair: digest(f"{digest(pair[0])} {digest(pair[1])}"),
    )[:6]
    found = zip(taken.first, taken.second, strict=True)
    assert set(found) == set(expected)


def test_equal_texts_stay_together():
    """They are three of a kind, in any case and spacing, of two classes."""
    words = random_texts(60)
    texts = [*words, *(f" {x.upper()} " for x in words), *words]
    labels = np.array([0] * 60 + [1] * 60 + [0] * 60, np.int32)
    rest, taken = split_examples(make_examples(texts, labels))
    # All count as class 0, of which a tenth are 18.
    assert len(taken) == 18
    sides = collections.defaultdict(set)
    for name, part in (("rest", rest), ("taken", taken)):
        for text in part.first:
            sides[" ".join(text.lower().split())].add(name)
    assert len(sides) == 60
    assert all(len(names) == 1 for names in sides.values())
    assert set(taken.first[:6]) == set(sorted(words, key=digest)[:6])


def test_a_text_that_does_not_fit_into_the_tenth_is_passed_over():
    """A tenth are 2 of 20; the smallest hash is that of 9 equal texts."""
    words = sorted(random_texts(12), key=digest)
    texts = [words[0]] * 9 + words[1:]
    _, taken = split_examples(make_examples(texts, np.zeros(20, np.int32)))
    assert taken.first == words[1:3]
    # If none fits, the smallest group is taken.
    texts = [words[0]] * 9 + [words[1]] * 4 + [words[2]] * 7
    _, taken = split_examples(make_examples(texts, np.zeros(20, np.int32)))
    assert taken.first == [words[1]] * 4


def test_a_class_of_one_text_keeps_it():
    texts, labels = ["a", "a", "b", "c"], np.array([0, 0, 1, 1], np.int32)
    rest, taken = split_examples(make_examples(texts, labels))
    assert taken.first == [min("bc", key=digest)]
    rest, taken = split_examples(make_examples(texts[:2], labels[:2]))
    assert (len(rest), len(taken)) == (2, 0)


def make_questions(*articles):
    """Questions of (title, {paragraph: number of questions})."""
    return [
        SquadExample(f"{title}{text}{i}", title, f"Who {i}?", text, (), True)
        for title, paragraphs in articles
        for text, count in paragraphs.items()
        for i in range(count)
    ]


def sides_of(questions, key):
    rest, taken = split_questions(questions)
    assert sorted(x.id for x in rest + taken) == sorted(x.id for x in questions)
    return [{key(x) for x in part} for part in (rest, taken)]


def test_an_article_is_on_one_side():
    articles = [
        (f"title {i}", {f"text {i} {j}": 3 for j in range(2)})
        for i in range(30)
    ]
    questions = make_questions(*articles)
    rest, taken = sides_of(questions, lambda x: x.title)
    titles = sorted((title for title, _ in articles), key=digest)
    assert taken == set(titles[:3]) and not rest & taken
    rest, taken = sides_of(questions, lambda x: x.context)
    assert len(taken) == 6 and not rest & taken
    again = sides_of(questions[::-1], lambda x: x.context)
    assert again == [rest, taken]


def test_an_article_that_does_not_fit_into_the_tenth_is_passed_over():
    """Of 50 questions, 5 are a tenth."""
    titles = sorted((f"title {i}" for i in range(6)), key=digest)
    sizes = [20, 4, 3, 12, 1, 10]
    questions = make_questions(
        *((x, {f"text of {x}": n}) for x, n in zip(titles, sizes, strict=True))
    )
    _, taken = sides_of(questions, lambda x: x.title)
    assert taken == {titles[1], titles[4]}


@pytest.mark.parametrize("titles", [["x"] * 30, ["", *["x", "y"] * 15][:30]])
def test_without_articles_a_paragraph_is_on_one_side(titles):
    questions = make_questions(
        *((title, {f"text {i}": 2}) for i, title in enumerate(titles))
    )
    rest, taken = sides_of(questions, lambda x: x.context)
    texts = sorted((f"text {i}" for i in range(30)), key=digest)
    assert taken == set(texts[:3]) and not rest & taken


def test_a_paragraph_of_two_articles_is_on_one_side():
    articles = [(f"title {i}", {f"text {i}": 1}) for i in range(40)]
    shared = [(title, {"shared": 1}) for title, _ in articles]
    questions = make_questions(*articles, *shared)
    rest, taken = sides_of(questions, lambda x: x.context)
    assert not rest & taken and len(taken) > 1


def test_nothing_is_taken_from_a_single_paragraph():
    rest, taken = split_questions(make_questions(("x", {"text": 9})))
    assert (len(rest), taken) == (9, [])
