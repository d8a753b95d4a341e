"""Sentences and pairs without labels, drawn from prose."""

import random

import numpy as np
import pytest
from commands import keras_distil

from keras_distil.runs import prose
from keras_distil.utils.progress import Progress

QUIET = Progress(quiet=True)


class Embedder:
    """Vectors that depend on a text alone."""

    def encode_text(self, texts):
        made = [np.random.default_rng(len(x)).normal(size=6) for x in texts]
        return np.stack(made).astype(np.float32)


@pytest.fixture(autouse=True)
def _embedder(monkeypatch):
    monkeypatch.setattr(
        prose.models, "load_embedding_model", lambda source: Embedder()
    )


@pytest.fixture
def texts(tmp_path):
    """A folder of 80 sentences, four to a line."""
    numbers = [
        f"Word {' '.join('abcdef'[: n % 5 + 2])} {n}." for n in range(80)
    ]
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [" ".join(numbers[n : n + 4]) for n in range(0, 80, 4)]
    (folder / "one.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_changed_sentences_have_words_of_both():
    one = "a b c d e f g h"
    generator = random.Random(1)
    made = {prose.changed(one, "x y", generator) for _ in range(100)}
    assert len(made) > 50
    for sentence in made:
        words = sentence.split()
        assert set(words) <= set("abcdefghxy")
        assert len(words) >= 3 and words != ["x"] * len(words)
    assert {"x", "y"} <= set(" ".join(made).split())


def test_files_are_of_the_prose_and_alike_each_time(texts, tmp_path):
    written = []
    for name in ("first", "second"):
        folder = tmp_path / name
        prose.write_prose(texts, folder, sentences=70, pairs=24, progress=QUIET)
        names = (prose.SENTENCES_FILE, prose.PAIRS_FILE)
        written.append([(folder / x).read_text() for x in names])
    assert written[0] == written[1]
    sentences, pairs = (x.splitlines() for x in written[0])
    prose_of_it = (texts / "one.txt").read_text()
    there = set(prose_of_it.replace(". ", ".\n").splitlines())
    assert len(set(sentences)) == 70 and set(sentences) <= there
    assert pairs[0] == "sentence1\tsentence2" and len(pairs) == 25
    sides = [line.split("\t") for line in pairs[1:]]
    whole = [one in there and other in there for one, other in sides]
    # Three fifths are whole sentences; a changed one may stay as it was.
    assert sum(whole) >= 14
    assert all(one in there or other in there for one, other in sides)


def test_vectors_stay_with_their_sentences(monkeypatch):
    sentences = [f"{'long ' * (n % 7)}sentence {n}" for n in range(40)]
    monkeypatch.setattr(prose, "_AT_ONCE", 8)
    vectors = prose._embed(sentences, QUIET)
    np.testing.assert_array_equal(vectors, Embedder().encode_text(sentences))


def test_sentences_of_a_table_would_have_no_tabs(tmp_path):
    (tmp_path / "one.txt").write_text(
        "A first\tone. A second, of Dr. No.\n\nA third one.\nA third one.\n"
    )
    assert prose.read_sentences(tmp_path, QUIET) == [
        "A first one.",
        "A second, of Dr. No.",
        "A third one.",
    ]


@pytest.mark.parametrize(
    ("words", "lower", "wanted"),
    [
        (
            ["--sentences", "99", "--pairs", "24"],
            ["--sentences", "80", "--pairs", "24"],
            "has 80 different sentences in its *.txt, fewer than --sentences "
            "99: add text, or lower it.",
        ),
        (
            ["--sentences", "80", "--pairs", "60"],
            ["--sentences", "80", "--pairs", "48"],
            "of the sentences have 6 to 30 words, too few for --pairs 60: "
            "lower it, or raise --sentences.",
        ),
    ],
)
def test_too_little_prose_is_told(
    texts, tmp_path, capsys, words, lower, wanted
):
    command = ["prose", str(texts), str(tmp_path / "out")]
    status, out, error = keras_distil(capsys, *command, *words)
    assert (status, out) == (1, "")
    assert wanted in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert keras_distil(capsys, *command, *lower)[0] == 0


def test_a_folder_without_text_is_told(tmp_path, capsys):
    status, _, error = keras_distil(capsys, "prose", str(tmp_path), "out")
    assert status == 1
    assert error == (
        f"keras-distil: `{tmp_path}` has no *.txt. Give a folder of such "
        "files, with one paragraph per line.\n"
    )


def test_a_file_for_a_folder_is_told_before_the_work(
    texts, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(prose, "make_pairs", None)
    (tmp_path / "out").touch()
    words = ["--sentences", "70", "--pairs", "24"]
    status, _, error = keras_distil(
        capsys, "prose", str(texts), str(tmp_path / "out"), *words
    )
    assert status == 1
    assert f"{tmp_path / 'out'} could not be written: File exists" in error


def test_nothing_is_overwritten(texts, tmp_path, capsys):
    (tmp_path / "pairs.tsv").write_text("mine\n")
    status, _, error = keras_distil(capsys, "prose", str(texts), str(tmp_path))
    assert status == 1
    assert "pairs.tsv exists, and nothing is overwritten" in error
    assert (tmp_path / "pairs.tsv").read_text() == "mine\n"


def test_the_command_says_what_it_wrote(texts, tmp_path, capsys):
    output = tmp_path / "out"
    status, out, _ = keras_distil(
        capsys, "prose", str(texts), str(output), "--sentences", "70",
        "--pairs", "24", "--quiet",
    )  # fmt: skip
    assert status == 0
    assert out.splitlines()[:2] == [
        f"Sentences: {output / 'sentences.txt'} (70)",
        f"Pairs: {output / 'pairs.tsv'} (24)",
    ]
