"""Whole texts on disk, split and without repeats."""

import pytest

from keras_distil import data
from keras_distil.data.corpus.split import is_held_out
from keras_distil.data.corpus.texts import prepare_texts

PARAGRAPHS = [
    f"The {one} is {other}. A {other} was seen."
    for one in ("sun", "moon", "star")
    for other in ("red", "blue", "far", "old", "new")
]


@pytest.fixture
def prepare(tmp_path):
    """Returns `prepare_texts` of lines, with options that may be replaced."""

    def prepare_(lines, kind="paragraphs", **options):
        path = tmp_path / "text.txt"
        # Sources are told by their time, too.
        if not path.exists():
            path.write_text("\n".join(lines) + "\n")
        arguments = {
            "held_out_fraction": 0.4,
            "max_skipped_fraction": 0.2,
            "cache_dir": tmp_path / "cache",
            **options,
        }
        return prepare_texts(
            [data.TextFiles(str(path))], kind=kind, **arguments
        )

    return prepare_


def test_paragraphs_are_held_out_by_content(prepare):
    repeated = "THE sun  is red. A red was seen."
    corpus = prepare([*PARAGRAPHS, repeated, "...", PARAGRAPHS[3]])
    held_out = [x for x in PARAGRAPHS if is_held_out(x, 0.4)]
    assert 0 < len(held_out) < len(PARAGRAPHS)
    assert corpus.held_out[:] == held_out
    assert corpus.train[:] == [x for x in PARAGRAPHS if x not in held_out]
    assert corpus.report.skipped["repeated text"] == 2
    assert corpus.report.skipped["text without a letter or digit"] == 1
    assert f"{len(held_out)} held out" in str(corpus)


def test_no_sentence_is_on_both_sides(prepare):
    corpus = prepare(PARAGRAPHS, "sentences")
    held_out = {
        sentence
        for x in PARAGRAPHS
        if is_held_out(x, 0.4)
        for sentence in (f"{x.split('.')[0]}.", f"{x.split('.')[1].strip()}.")
    }
    assert set(corpus.held_out) == held_out
    every = [*corpus.train, *corpus.held_out]
    # "A red was seen." is in three paragraphs.
    assert len(every) == len(set(every)) == 15 + 5
    both = prepare(PARAGRAPHS, "both")
    assert set(both.train) | set(both.held_out) == {*every, *PARAGRAPHS}


def test_some_are_evenly_spaced(prepare):
    corpus = prepare(PARAGRAPHS, held_out_fraction=0.0)
    assert corpus.train.spaced(3)[:] == [PARAGRAPHS[x] for x in (0, 5, 10)]
    assert corpus.train.spaced(99)[:] == PARAGRAPHS
    assert corpus.train[-1] == PARAGRAPHS[-1]
    assert len(corpus.held_out) == 0


def test_what_was_read_is_found_again_or_refused(prepare, monkeypatch):
    lines = ["\u00e4 text", "another one"]
    corpus = prepare(lines)
    with monkeypatch.context() as patch:
        patch.setattr(data.TextFiles, "units", None)
        assert prepare(lines).fingerprint == corpus.fingerprint
    path = corpus.folder / "train.txt"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(data.CorpusError, match="is missing or damaged. Remove"):
        prepare(lines)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["...", " "], "no text to train on .* Check the sources"),
        ([PARAGRAPHS[0]], "no text to train on .* lower `held_out_fraction`"),
    ],
)
def test_without_text_there_is_an_error(prepare, lines, message):
    with pytest.raises(ValueError, match=message):
        prepare(lines, held_out_fraction=0.999999)
