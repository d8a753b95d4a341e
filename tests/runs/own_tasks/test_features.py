"""Encoded rows on disk: made once, equal to those in memory."""

import dataclasses
import json
import os
import random

import numpy as np
import pytest
from tensorflow import nest

from keras_distil import config, data
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.dev_split import choose_dev
from keras_distil.data.tasks.encoding import TextEncoder
from keras_distil.data.tasks.word_rows import read_word_rows
from keras_distil.data.tasks.words import encode_words
from keras_distil.runs import run_folder
from keras_distil.runs.own_tasks import features, spans, words
from keras_distil.runs.own_tasks.features import keep_examples
from keras_distil.runs.tasks import load_task, load_tasks
from keras_distil.utils.progress import Progress

SETTINGS = {"of": "these"}
NAMES = ["train", "dev"]
ARRAYS = ("token_ids", "starts", "first_lengths", "owners")


def make_part(generator, texts, *, windows):
    counts = generator.integers(1, 4, texts) if windows else np.ones(texts, int)
    lengths = generator.integers(2, 9, counts.sum())
    owners = np.repeat(np.arange(texts), counts).astype("int32")
    return EncodedExamples(
        token_ids=generator.integers(0, 999, lengths.sum()).astype("int32"),
        starts=np.cumsum([0, *lengths]),
        first_lengths=lengths.astype("int32"),
        labels=None,
        pad_id=1,
        max_length=8,
        owners=owners if windows else None,
        cut=int(generator.integers(0, 3)),
    )


def keep(parts, folder, settings=SETTINGS):
    return keep_examples(
        parts, NAMES, folder, settings, token_dtype=np.dtype("uint16")
    )


def no_parts():
    raise AssertionError("The parts are read again.")
    yield


@pytest.fixture(params=[False, True], ids=["texts", "windows"])
def parts(request):
    generator = np.random.default_rng(3)
    return [
        (NAMES[number % 3 == 2], make_part(generator, 7, windows=request.param))
        for number in range(11)
    ]


def check_same(found, expected):
    for name in NAMES:
        one, other = found[name], expected[name]
        for array in ARRAYS:
            values = getattr(other, array)
            if values is None:
                assert getattr(one, array) is None
                continue
            assert isinstance(getattr(one, array), np.memmap)
            np.testing.assert_array_equal(getattr(one, array), values)
        assert one.labels is None and one.cut == other.cut
        assert (one.pad_id, one.max_length) == (1, 8)


def test_they_are_written_once(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_TOKENS", 60)
    expected = keep(parts, None)
    folder = tmp_path / "features" / "mine"
    check_same(keep(parts, folder), expected)
    check_same(keep(no_parts(), folder), expected)
    assert sorted(path.name for path in folder.iterdir()) == ["dev", "train"]


def test_others_take_their_place(parts, tmp_path):
    expected = keep(parts, None)
    keep(parts[:6], tmp_path)
    with pytest.raises(AssertionError, match="are read again"):
        keep(no_parts(), tmp_path, {"of": "others"})
    check_same(keep(parts, tmp_path, {"of": "others"}), expected)
    # Damaged ones do not count.
    path = tmp_path / "dev" / "token_ids.bin"
    path.write_bytes(path.read_bytes()[:-1])
    check_same(keep(parts, tmp_path, {"of": "others"}), expected)


def test_a_task_is_encoded_once(toy_teacher, tmp_path, monkeypatch):
    lines = [f"{'abc'[i % 3]} word {i},{i % 2}" for i in range(60)]
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join(["text,label", *lines]) + "\n")
    recipe = config.Recipe.model_validate(
        {
            "name": "own",
            "teacher": {"source": str(toy_teacher)},
            "data": {"root": str(tmp_path)},
            "finetune": {
                "rows": ["teacher"],
                "max_length": 12,
                "tasks": [
                    {"name": "mine", "kind": "classification", "train": "*.csv"}
                ],
            },
        }
    )
    expected = load_task(recipe, "mine")
    folder = tmp_path / "features"
    load_task(recipe, "mine", folder=folder)
    encode = TextEncoder.encode
    monkeypatch.setattr(TextEncoder, "encode", lambda *_: pytest.fail("again"))
    found = load_task(recipe, "mine", folder=folder)
    batches = [
        data.task_dataset(x.train, batch_size=7, seed=1, steps=20)
        for x in (expected, found)
    ]
    for one, other in zip(*batches, strict=True):
        for name, values in one[0].items():
            np.testing.assert_array_equal(values, other[0][name])
        np.testing.assert_array_equal(one[1], other[1])
    dev = [x.evaluator.splits["dev"] for x in (expected, found)]
    np.testing.assert_array_equal(*(x.examples.token_ids for x in dev))
    np.testing.assert_array_equal(*(x.labels for x in dev))
    # Letter case alone changes, which the rows' hashes do not tell.
    monkeypatch.setattr(TextEncoder, "encode", encode)
    rows.write_text(rows.read_text().replace("word", "WORD"))
    os.utime(rows, (1, 1))
    tokenizer = data.load_tokenizer(toy_teacher)
    calls = []
    monkeypatch.setattr(
        TextEncoder,
        "encode",
        lambda self, *texts: calls.append(1) or encode(self, *texts),
    )
    load_task(recipe, "mine", folder=folder, tokenizer=tokenizer)
    assert calls


def test_a_part_of_examples_has_lost_no_ends(parts):
    _, part = parts[0]
    assert dataclasses.replace(part, cut=5).part(0, 2).cut == 0


def write_words(folder):
    generator = random.Random(1)
    lines = []
    for _ in range(90):
        for _ in range(generator.randint(1, 12)):
            word = generator.choice(["a", "b", "ab", "zz", "\u200b"])
            lines.append(f"{word}\t{generator.choice(['O', 'B-X', 'I-X'])}")
        lines.append("")
    (folder / "rows.conll").write_text("\n".join(lines) + "\n")


def write_questions(folder):
    lines = []
    for number in range(90):
        words = [*"abcdefgh"[: 2 + number % 7], str(number // 2)]
        answer = {"text": words[1], "answer_start": 2}
        lines.append(
            json.dumps(
                {
                    "question": f"{words[0]} {number}",
                    "context": " ".join(words),
                    "answers": [answer] if number % 5 else [],
                }
            )
        )
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def recipe_of(folder, teacher, entry):
    return config.Recipe.model_validate(
        {
            "name": "own",
            "teacher": {"source": str(teacher)},
            "data": {"root": str(folder)},
            "finetune": {
                "rows": ["teacher"],
                "max_length": 12,
                "max_question": 2,
                "stride": 2,
                "tasks": [{"name": "mine", **entry}],
            },
        }
    )


PARTS = {
    "words": (
        write_words,
        words,
        {"kind": "token_classification", "train": "*.conll"},
    ),
    "windows of words": (
        write_words,
        words,
        {"kind": "token_classification", "train": "*.conll", "stride": 2},
    ),
    "spans": (write_questions, spans, {"kind": "span", "train": "*.jsonl"}),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_words_and_spans_are_encoded_once(
    name, toy_teacher, tmp_path, monkeypatch
):
    """In parts of any size, on disk and in memory, all is equal."""
    write, module, entry = PARTS[name]
    write(tmp_path)
    recipe = recipe_of(tmp_path, toy_teacher, entry)
    expected = load_task(recipe, "mine")
    folder = tmp_path / "features"
    monkeypatch.setattr(module, "_BATCH", 7)
    monkeypatch.setattr(features, "_TOKENS", 60)
    check_equal(load_task(recipe, "mine"), expected)
    check_equal(load_task(recipe, "mine", folder=folder), expected)
    loader = {words: words.WordLoader, spans: spans.SpanLoader}[module]
    make = loader._parts
    monkeypatch.setattr(loader, "_parts", lambda *_: no_parts())
    found = load_task(recipe, "mine", folder=folder)
    check_equal(found, expected)
    assert isinstance(found.train.token_ids, np.memmap)
    labels = found.train.labels
    for array in labels.values() if name == "spans" else [labels]:
        assert isinstance(array, np.memmap)
    # Damaged, or of other settings: made again.
    path = folder / "train" / "labels.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="are read again"):
        load_task(recipe, "mine", folder=folder)
    monkeypatch.setattr(loader, "_parts", make)
    check_equal(load_task(recipe, "mine", folder=folder), expected)


def check_equal(found, expected):
    assert found.remarks == expected.remarks
    assert found.train.cut == expected.train.cut
    assert (found.train.owners is None) == (expected.train.owners is None)
    batches = [
        data.task_dataset(x.train, batch_size=7, seed=1, steps=30)
        for x in (expected, found)
    ]
    for one, other in zip(*batches, strict=True):
        for a, b in zip(nest.flatten(one), nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)
    for part, keys in expected.keys.items():
        theirs = found.keys[part]
        np.testing.assert_array_equal(theirs.hashes, keys.hashes)
        np.testing.assert_array_equal(theirs.owners, keys.owners)
        if keys.places is not None:
            np.testing.assert_array_equal(theirs.counts, keys.counts)
            np.testing.assert_array_equal(
                theirs.find_places(), keys.find_places()
            )


def test_places_are_those_of_the_words(toy_teacher, tmp_path):
    """Those of the training rows are found in their encoded form."""
    write_words(tmp_path)
    recipe = recipe_of(tmp_path, toy_teacher, PARTS["windows of words"][2])
    task = load_task(recipe, "mine")
    rows = read_word_rows([tmp_path / "rows.conll"], {})
    held_out = choose_dev(rows.digests, 0.1)
    encoded = encode_words(
        data.load_tokenizer(toy_teacher),
        [each.words for each in rows.chosen(~held_out).sentences],
        max_length=12,
        stride=2,
    )
    found = task.keys["train"].find_places()
    assert found.shape == encoded.places.shape and found.shape[1] > 100
    order = np.lexsort((encoded.places[2], encoded.places[1]))
    np.testing.assert_array_equal(found, encoded.places[:, order])
    np.testing.assert_array_equal(task.keys["train"].counts, encoded.counts)


def test_the_size_on_disk_is_told(toy_teacher, tmp_path, capsys):
    write_words(tmp_path)
    recipe = recipe_of(tmp_path, toy_teacher, PARTS["words"][2])
    run = run_folder.open_run(recipe, tmp_path / "run", Progress())
    load_tasks(run)
    folder = tmp_path / "run" / "features" / "mine"
    told = f"Encoded rows of mine: 0.0 MB in {folder}"
    assert told in " ".join(capsys.readouterr().err.split())
