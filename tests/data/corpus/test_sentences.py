"""Paragraphs are split into sentences."""

import pytest

from keras_distil.data.corpus.sentences import split_sentences


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("One. Two!  Three?", ["One.", "Two!", "Three?"]),
        ("He said \u201cNo.\u201d Then (why?) left.", 2),
        ("Dr. No met J. R. Smith, e.g. Monday. It was 3.5 km.", 2),
        ("in lower case. and on", 1),
        ("Wait... What?", ["Wait...", "What?"]),
        (
            "\u4e00\u4e8c\u3002\u4e09\uff1f",
            ["\u4e00\u4e8c\u3002", "\u4e09\uff1f"],
        ),
        ("no end at all", ["no end at all"]),
        ("  ", []),
    ],
)
def test_sentences(paragraph, sentences):
    found = list(split_sentences(paragraph))
    if isinstance(sentences, int):
        assert len(found) == sentences
        sentences = found
    assert found == sentences
    # Nothing is lost but white space between them.
    assert "".join("".join(found).split()) == "".join(paragraph.split())
