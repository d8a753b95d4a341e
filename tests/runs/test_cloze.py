"""Questions that are made of sentences."""

import random

import pytest

from keras_distil.runs import cloze


def asked(paragraph, times=200):
    generator = random.Random(0)
    return [cloze.ask(paragraph, generator) for _ in range(times)]


@pytest.mark.parametrize(
    ("sentence", "answers", "asking"),
    [
        (
            "They went home and saw 40 birds fly away.",
            {"40"},
            {"how many", "how much", "what"},
        ),
        (
            "They went home and slept until 1842 or so.",
            {"1842"},
            {"when", "what year", "in what year"},
        ),
        (
            "They had all been seen in San Pedro, where it rained.",
            {"San Pedro,"},
            {"where", "what", "which"},
        ),
        (
            "They went home when Anna Low of the Hills sang there.",
            {"Anna Low of the Hills"},
            {"who", "what", "which"},
        ),
        (
            "They went home before the heavy rain began that day.",
            {"heavy rain began"},
            {"what", "which"},
        ),
        (
            "They saw some old houses, which were empty and cold.",
            {"old houses,"},
            {"what", "which"},
        ),
    ],
)
def test_a_part_of_the_sentence_is_asked_for(
    monkeypatch, sentence, answers, asking
):
    monkeypatch.setattr(cloze, "_LEFT_OUT", 0.0)
    monkeypatch.setattr(cloze, "_WORDS", (40, 40))
    first, inside = set(), set()
    for answer in answers:
        before, after = sentence.removesuffix(".").split(answer)
        rest = " ".join(f"{before}{after}".split())
        for words in asking:
            first.add(f"{words} {rest}?")
            inside.add(" ".join(f"{before}{words}{after}".split()) + "?")
    found = asked(sentence)
    assert set(found) == first | inside
    # Three quarters begin with the question word.
    assert 0.6 < sum(x in first for x in found) / len(found) < 0.9


def test_questions_are_short_and_words_are_left_out():
    words = [f"word{n}" for n in range(39)]
    for at in (0, 20, 38):
        sentence = " ".join([*words[:at], "1842", *words[at:]]) + "."
        lengths = [len(x.split()) for x in asked(sentence)]
        # At most 14 of the sentence, and a question word of three.
        assert max(lengths) <= 17 and min(lengths) <= 6
        assert len(set(lengths)) > 5


@pytest.mark.parametrize(
    "paragraph",
    [
        "",
        "Too short, in 1842.",
        "nothing here can be asked about, sadly.",
        "...",
    ],
)
def test_nothing_to_ask_about(paragraph):
    assert cloze.ask(paragraph, random.Random(0)) is None


def test_another_sentence_is_taken_if_one_has_no_answer():
    first = "nothing here can be asked about, sadly."
    question = cloze.ask(
        f"{first} It was built by monks in 1842 here.", random.Random(0)
    )
    assert question is not None and "asked" not in question
