"""Sentences, pairs and questions without labels, drawn from prose."""

import json
import random

import numpy as np
import pytest
from commands import keras_distil

from keras_distil import config
from keras_distil.config import shipped
from keras_distil.data.corpus.sample import Sample
from keras_distil.data.tasks.unlabelled import read_unlabelled_questions
from keras_distil.runs import more_text, prose
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


PARAGRAPHS = [
    f"The library of Town {n} was built by farmers in {1800 + n} after the old "
    "one had burned down, and it was the largest of its kind for many years. "
    "Its readers came from Port Alma and from villages near the lake, some of "
    f"them twice a week. About {n} of them paid for new books, which the mayor "
    "of the town had promised to the school."
    for n in range(20)
]


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
        prose.write_prose(
            texts, folder, sentences=70, pairs=24, questions=0, progress=QUIET
        )
        assert not (folder / prose.QUESTIONS_FILE).exists()
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
        "A first\tone. A second, of Dr. No.\n\nA third one. ???\nA third one.\n"
    )
    found, contexts = Sample(9, seed=0), Sample(9, seed=0)
    prose.read_prose(tmp_path, found, contexts, 0, QUIET)
    assert not len(contexts)
    assert sorted(found.texts()) == [
        "A first one.",
        "A second, of Dr. No.",
        "A third one.",
    ]


@pytest.mark.parametrize(
    ("words", "lower", "wanted"),
    [
        (
            ["--sentences", "99", "--pairs", "24", "--questions", "0"],
            ["--sentences", "80", "--pairs", "24", "--questions", "0"],
            "has 80 different sentences in its *.txt, fewer than --sentences "
            "99: add text, or lower it.",
        ),
        (
            ["--sentences", "80", "--pairs", "60", "--questions", "0"],
            ["--sentences", "80", "--pairs", "48", "--questions", "0"],
            "of the sentences have 6 to 30 words, too few for --pairs 60: "
            "lower it, or raise --sentences.",
        ),
        (
            ["--sentences", "80", "--pairs", "24", "--questions", "1"],
            ["--sentences", "80", "--pairs", "24", "--questions", "0"],
            "has 0 paragraphs of 50 to 250 words that something can be asked "
            "about, fewer than --questions 1: add text, or lower it; 0 makes "
            "none.",
        ),
    ],
)
def test_too_little_prose_is_told(
    texts, tmp_path, capsys, words, lower, wanted
):
    command = ["prose", str(texts), str(tmp_path / "out"), "--quiet"]
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
    words = ["--sentences", "70", "--pairs", "24", "--questions", "0"]
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
    (texts / "more.txt").write_text("\n".join(PARAGRAPHS) + "\n")
    status, out, _ = keras_distil(
        capsys, "prose", str(texts), str(output), "--sentences", "70",
        "--pairs", "24", "--questions", "15", "--quiet",
    )  # fmt: skip
    assert status == 0
    assert out.splitlines()[:3] == [
        f"{output / 'sentences.txt'}: 70",
        f"{output / 'pairs.tsv'}: 24",
        f"{output / 'questions.jsonl'}: 15",
    ]


def test_the_order_of_the_prose_changes_nothing(texts, tmp_path):
    counts = {"sentences": 40, "pairs": 12, "questions": 9}
    written = []
    for name, lines in (("first", PARAGRAPHS), ("second", PARAGRAPHS[::-1])):
        # In two files of either order, some lines twice.
        (texts / "more.txt").write_text("\n".join(lines) + "\n")
        (texts / "again.txt").write_text("\n".join(lines[:7]) + "\n")
        output = tmp_path / name
        prose.write_prose(texts, output, **counts, progress=QUIET)
        written.append([(output / x).read_text() for x in prose.FILES])
    assert written[0] == written[1]
    other = tmp_path / "other"
    prose.write_prose(texts, other, **counts, seed=1, progress=QUIET)
    assert (other / prose.QUESTIONS_FILE).read_text() != written[0][2]


@pytest.mark.parametrize("wanted", ["sentences", "questions"])
def test_a_file_can_be_made_alone(texts, tmp_path, monkeypatch, wanted):
    # Only pairs need vectors.
    monkeypatch.setattr(prose, "make_pairs", None)
    (texts / "more.txt").write_text("\n".join(PARAGRAPHS) + "\n")
    counts = {"sentences": 0, "pairs": 0, "questions": 0, wanted: 9}
    output = tmp_path / "out"
    prose.write_prose(texts, output, **counts, progress=QUIET)
    (path,) = output.iterdir()
    assert path.stem == wanted and len(path.read_text().splitlines()) == 9


def test_nothing_to_make_is_told(texts, tmp_path, capsys):
    counts = ["--sentences", "0", "--pairs", "0", "--questions"]
    command = ["prose", str(texts), str(tmp_path / "out"), *counts]
    status, out, error = keras_distil(capsys, *command, "0")
    assert (status, out) == (1, "")
    assert error == (
        "keras-distil: One of --sentences, --pairs and --questions must be "
        "above 0.\n"
    )
    (texts / "more.txt").write_text(PARAGRAPHS[0])
    assert keras_distil(capsys, *command, "1")[0] == 0


def test_questions_are_about_their_paragraphs(texts, tmp_path):
    (texts / "more.txt").write_text("\n".join(PARAGRAPHS * 2) + "\n")
    output = tmp_path / "out"
    prose.write_prose(
        texts, output, sentences=70, pairs=24, questions=20, progress=QUIET
    )
    path = output / prose.QUESTIONS_FILE
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    # Each paragraph once, though it is there twice.
    assert {x["context"] for x in lines} == set(PARAGRAPHS)
    for line in lines:
        asked = line["question"].removesuffix("?").split()
        here = line["context"].replace(",", "").replace(".", "").split()
        new = [x for x in asked if x.strip(",.") not in here]
        assert len(new) <= 3, line["question"]
    # As the tasks of spans read it.
    examples = read_unlabelled_questions([path])
    assert [(x.question, x.context) for x in examples] == [
        (x["question"], x["context"]) for x in lines
    ]


@pytest.mark.parametrize("given", [True, False])
def test_a_recipe_says_what_makes_the_prose_it_lacks(
    texts, tmp_path, capsys, monkeypatch, given
):
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "glue") if given else "FOLDER"
    where, then = f"`{folder}`", ""
    if not given:
        where, then = "the current folder", ", and `data.root` names FOLDER"
    glue = shipped.find_shipped("glue")
    root = [f"data.root={folder}"] if given else []
    with pytest.raises(FileNotFoundError) as caught:
        more_text.read_unlabelled_files(config.load_recipe(glue, root), "mrpc")
    assert str(caught.value) == (
        f"mrpc: pairs.tsv is missing in {where}. `keras-distil prose TEXTS "
        f"{folder}` makes it of the *.txt in TEXTS{then}; to do without, set "
        "`unlabelled` and `unlabelled_share` to null."
    )
    numbers = ["--sentences", "70", "--pairs", "24", "--questions", "0"]
    made = keras_distil(capsys, "prose", str(texts), folder, *numbers)
    assert made[0] == 0
    recipe = config.load_recipe(glue, [f"data.root={folder}"])
    found = more_text.read_unlabelled_files(recipe, "mrpc")
    assert len(found) == 24
    without = [
        "finetune.by_task.mrpc.unlabelled=null",
        "finetune.unlabelled_share=null",
    ]
    recipe = config.load_recipe(glue, without)
    assert more_text.read_unlabelled_files(recipe, "mrpc") is None
