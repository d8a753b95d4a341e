"""Encoded rows on disk: made once, equal to those in memory."""

import dataclasses
import os

import numpy as np
import pytest

from keras_distil import config, data
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.encoding import TextEncoder
from keras_distil.runs.own_tasks import features
from keras_distil.runs.own_tasks.features import keep_examples
from keras_distil.runs.tasks import load_task

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
