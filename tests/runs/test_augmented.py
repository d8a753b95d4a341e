"""Copies on disk: made once, continued with equal bytes, told beforehand."""

import dataclasses
import re

import numpy as np
import pytest

from keras_distil import data, models
from keras_distil.models import augmentation
from keras_distil.runs import augmented

TEXTS = ["ab c 1", "de f", "g", "h, i jk", "lm", "no p", "q"]


@pytest.fixture
def tokenizer(toy_teacher):
    return data.load_tokenizer(toy_teacher)


@pytest.fixture
def teacher(toy_teacher):
    return models.load_teacher(toy_teacher)


@pytest.fixture
def examples(tokenizer):
    labels = np.arange(len(TEXTS), dtype="int32")
    return data.encode_examples(tokenizer, TEXTS, None, labels, max_length=12)


@pytest.fixture
def write(examples, teacher, tokenizer, tmp_path, monkeypatch):
    """Writes copies in four parts; returns them and what was said."""
    monkeypatch.setattr(augmentation, "PART_EXAMPLES", 2)

    def write(folder="cache", progress=lambda done, total: None, **arguments):
        said = []
        found = augmented.write_copies(
            arguments.pop("examples", examples),
            arguments.pop("model", teacher),
            arguments.pop("tokenizer", tokenizer),
            cache_dir=tmp_path / folder,
            name="rte",
            say=said.append,
            progress=progress,
            **{"copies": 3, "seed": 5, **arguments},
        )
        return found, said

    return write


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_copies_are_those_of_the_augmenter_with_their_labels(
    write, examples, teacher, tokenizer
):
    calls = []
    found, _ = write(progress=lambda *call: calls.append(call))
    assert len(found) == 3 * len(TEXTS)
    augmenter = augmentation.Augmenter(teacher, tokenizer, copies=3, seed=5)
    expected = [
        copy
        for number in range(4)
        for copy in augmenter.copies_of(examples, number)
    ]
    assert [len(x) for x in expected] == [2] * 9 + [1] * 3
    for name in ("token_ids", "first_lengths", "labels"):
        np.testing.assert_array_equal(
            getattr(found, name),
            np.concatenate([getattr(copy, name) for copy in expected]),
        )
    lengths = np.concatenate([copy.lengths for copy in expected])
    np.testing.assert_array_equal(found.starts, np.cumsum([0, *lengths]))
    assert sorted(set(found.labels)) == list(range(len(TEXTS)))
    assert calls[-1] == (12, 12) and sorted(calls) == calls


def test_size_and_time_are_told_before_and_nothing_is_made_twice(
    write, tmp_path, monkeypatch
):
    _, (line,) = write()
    match = re.fullmatch(
        r"Augment rte: 3 copies of 7 examples, at most 0\.0 MB in (\S+); 12 "
        r"words to predict, about \d+ s here",
        line,
    )
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    assert match[1] == str(folder)
    monkeypatch.setattr(augmentation, "Augmenter", None)
    found, said = write()
    assert said == [f"Augmented rte: found in {folder}"]
    assert len(found) == 21


def test_what_is_told_is_not_less_than_what_is_written(write, tmp_path):
    found, _ = write(copies=40)
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    written = sum(path.stat().st_size for path in folder.glob("*.bin"))
    original = 40 * (7 * 16 + 2 * 33) + 8
    assert written <= original
    # Words of several tokens became shorter, and nothing else did.
    assert len(found.token_ids) < 40 * 33


@pytest.mark.parametrize("stop_at", [1, 5, 9])
def test_an_interruption_leaves_no_trace(write, tmp_path, stop_at):
    write("whole")

    def stop(done, total):
        if done >= stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write("broken", stop)
    assert not list((tmp_path / "broken").glob("[!.]*"))
    _, (line,) = write("broken")
    left = int(re.search(r"(\d+) words to predict", line)[1])
    assert left == 12 if stop_at == 1 else 0 < left < 12
    assert ("MB of it written" in line) == (stop_at > 1)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_copies_are_kept_apart_by_what_determines_them(
    write, examples, teacher, tokenizer, toy_teacher, tmp_path
):
    def count():
        return len(list((tmp_path / "cache").glob("[!.]*")))

    write()
    labels = examples.labels[::-1].copy()
    words = (toy_teacher / "vocab.txt").read_text().split()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "vocab.txt").write_text(
        "\n".join([*words[:5], *words[:4:-1]])
    )
    for number, arguments in enumerate(
        (
            {"seed": 6},
            {"copies": 4},
            {"examples": examples.part(0, 6)},
            {"examples": dataclasses.replace(examples, labels=labels)},
            {"tokenizer": data.load_tokenizer(tmp_path / "other")},
        ),
        2,
    ):
        write(**arguments)
        assert count() == number, arguments
    teacher.masked_lm_head._bias.assign_add(np.eye(64, dtype="float32")[7] * 9)
    write(model=teacher)
    assert count() == 7
    write()
    assert count() == 7


def test_memory_holds_one_part(write, examples, monkeypatch):
    """No piece that is written is larger than a part."""
    sizes = []
    replace = augmentation._replace

    def watched(part, *arguments):
        sizes.append(len(part))
        return replace(part, *arguments)

    monkeypatch.setattr(augmentation, "_replace", watched)
    write(copies=9)
    assert max(sizes) == 2 and len(sizes) == 9 * 4


def test_a_full_disk_is_told_before_the_work(write, monkeypatch):
    monkeypatch.setattr(
        augmented.shutil,
        "disk_usage",
        lambda path: type("Usage", (), {"free": 100}),
    )
    with pytest.raises(
        OSError,
        match=r"copies of rte need up to .*0.0 MB free. Lower `finetune",
    ):
        write()


def test_damaged_copies_are_named(write, tmp_path):
    write()
    (folder,) = (tmp_path / "cache").glob("[!.]*")
    (folder / "labels.bin").write_bytes(b"x")
    with pytest.raises(data.CorpusError, match="damaged.*Remove the folder"):
        write()
    # As the message says.
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert len(write()[0]) == 21


def test_labels_of_another_form_are_refused_before_the_work(write, examples):
    spans = dataclasses.replace(examples, labels={"start": examples.labels})
    with pytest.raises(ValueError, match="one label each. Received: dict"):
        write(examples=spans)
