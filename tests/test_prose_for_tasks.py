"""The benchmark's text without labels."""

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[1] / "benchmarks" / "prose_for_tasks.py"


@pytest.fixture(scope="module")
def prose():
    specification = importlib.util.spec_from_file_location("prose", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_changed_sentences_have_words_of_both(prose):
    one = "a b c d e f g h"
    generator = random.Random(1)
    made = {prose.changed(one, "x y", generator) for _ in range(100)}
    assert len(made) > 50
    for sentence in made:
        words = sentence.split()
        assert set(words) <= set("abcdefghxy")
        assert len(words) >= 3 and words != ["x"] * len(words)
    assert {"x", "y"} <= set(" ".join(made).split())


def test_files_are_of_the_prose_and_alike_each_time(
    prose, tmp_path, monkeypatch
):
    numbers = [
        f"Word {' '.join('abcdef'[: n % 5 + 2])} {n}." for n in range(80)
    ]
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = [" ".join(numbers[n : n + 4]) for n in range(0, 80, 4)]
    (folder / "one.txt").write_text("\n".join(lines) + "\n")

    class Embedder:
        def encode_text(self, texts):
            made = [np.random.default_rng(len(x)).normal(size=6) for x in texts]
            return np.stack(made)

    monkeypatch.setattr(
        prose.models, "load_embedding_model", lambda source: Embedder()
    )
    written = []
    for name in ("first", "second"):
        words = [folder, tmp_path / name, "--sentences", "70", "--pairs", "24"]
        monkeypatch.setattr(sys, "argv", ["prose", *map(str, words)])
        prose.main()
        names = ("sentences.txt", "pairs.tsv")
        written.append([(tmp_path / name / x).read_text() for x in names])
    assert written[0] == written[1]
    sentences, pairs = (x.splitlines() for x in written[0])
    assert len(set(sentences)) == 70 and set(sentences) <= set(numbers)
    assert pairs[0] == "sentence1\tsentence2" and len(pairs) == 25
    sides = [line.split("\t") for line in pairs[1:]]
    whole = [one in numbers and other in numbers for one, other in sides]
    # Three fifths are whole sentences; a changed one may stay as it was.
    assert sum(whole) >= 14
    assert all(one in numbers or other in numbers for one, other in sides)


def test_too_little_prose_is_told(prose, tmp_path, monkeypatch, capsys):
    (tmp_path / "one.txt").write_text(
        "A first one. A second.\n\nA third one.\n"
    )
    assert list(prose.read_sentences(tmp_path)) == [
        "A first one.",
        "A second.",
        "A third one.",
    ]
    for words, wanted in (
        (["--sentences", "9"], "has 3 different sentences in its *.txt, fewer"),
        (["--sentences", "3", "--pairs", "2"], "0 of the sentences have 6 to"),
    ):
        given = [str(tmp_path), str(tmp_path / "out"), *words]
        monkeypatch.setattr(sys, "argv", ["prose", *given])
        with pytest.raises(SystemExit):
            prose.main()
        assert wanted in capsys.readouterr().err
