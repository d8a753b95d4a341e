"""Examples on disk: equal bytes however often the writing broke off."""

import dataclasses
import errno
import json

import numpy as np
import pytest

from keras_distil import data
from keras_distil.data.tasks.stored_examples import (
    ExampleWriter,
    open_examples,
)
from keras_distil.utils import disk

SETTINGS = {"of": "these", "copies": 2}


def make_writer(folder, examples, settings=SETTINGS):
    return ExampleWriter(
        folder, settings, like=examples, token_dtype=np.dtype("uint16")
    )


def write_all(writer, examples):
    """Writes three shards, of 40 examples in two pieces each, and the rest."""
    for begin in range(40 * writer.shards, 101, 40):
        end = min(begin + 40, 101)
        middle = begin + 15
        writer.write([examples.part(begin, middle), examples.part(middle, end)])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def stored(examples, tmp_path):
    writer = make_writer(tmp_path / "partial", examples)
    write_all(writer, examples)
    writer.finish(tmp_path / "whole")
    return tmp_path / "whole"


def test_what_is_read_is_what_was_written(examples, stored):
    assert not stored.with_name("partial").exists()
    found = open_examples(stored, SETTINGS)
    assert len(found) == 101
    for name in ("token_ids", "starts", "first_lengths", "labels"):
        values = getattr(found, name)
        assert isinstance(values, np.memmap)
        np.testing.assert_array_equal(values, getattr(examples, name))
    assert found.token_ids.dtype == np.uint16
    assert (found.pad_id, found.max_length) == (0, 128)


def test_several_labels_of_each_example_are_kept(examples, tmp_path):
    labels = np.arange(303, dtype="float32").reshape(101, 3)
    several = dataclasses.replace(examples, labels=labels)
    writer = make_writer(tmp_path / "partial", several)
    write_all(writer, several)
    assert writer.bytes == writer.most_bytes(several, 1)
    writer.finish(tmp_path / "whole")
    found = open_examples(tmp_path / "whole", SETTINGS)
    np.testing.assert_array_equal(found.labels, labels)


def test_batches_are_those_of_examples_in_memory(examples, stored):
    batches = [
        list(
            data.task_dataset(
                each, batch_size=7, seed=3, steps=40
            ).as_numpy_iterator()
        )
        for each in (examples, open_examples(stored, SETTINGS))
    ]
    for (x, y, _), (x_disk, y_disk, _) in zip(*batches, strict=True):
        np.testing.assert_array_equal(y, y_disk)
        for name, values in x.items():
            np.testing.assert_array_equal(values, x_disk[name])


def test_the_size_is_known_before(examples, tmp_path):
    writer = make_writer(tmp_path / "partial", examples)
    assert writer.bytes == 0
    write_all(writer, examples)
    assert writer.bytes == writer.most_bytes(examples, 1)
    files = (tmp_path / "partial").glob("*.bin")
    assert writer.bytes == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("shards", [0, 1, 2])
@pytest.mark.parametrize("torn", ["", "token_ids", "labels"])
def test_an_interrupted_writer_goes_on_with_equal_bytes(
    examples, stored, tmp_path, shards, torn
):
    folder = tmp_path / "again"
    writer = make_writer(folder, examples)

    def pieces():
        yield examples.part(40 * shards, 40 * shards + 9)
        raise KeyboardInterrupt

    for begin in range(0, 40 * shards, 40):
        writer.write([examples.part(begin, begin + 40)])
    with pytest.raises(KeyboardInterrupt):
        writer.write(pieces())
    if torn:
        with (folder / f"{torn}.bin").open("ab") as file:
            file.write(b"torn")
    writer = make_writer(folder, examples)
    assert writer.shards == shards
    write_all(writer, examples)
    writer.finish(tmp_path / "finished")
    assert contents(tmp_path / "finished") == contents(stored)


def test_a_damaged_shard_is_written_again_with_those_after_it(
    examples, stored, tmp_path
):
    writer = make_writer(tmp_path / "again", examples)
    write_all(writer, examples)
    path = tmp_path / "again" / "first_lengths.bin"
    content = bytearray(path.read_bytes())
    content[4 * 40] ^= 1
    path.write_bytes(content)
    writer = make_writer(tmp_path / "again", examples)
    assert writer.shards == 1
    write_all(writer, examples)
    writer.finish(tmp_path / "finished")
    assert contents(tmp_path / "finished") == contents(stored)


@pytest.mark.parametrize(
    "other",
    [
        {"settings": {**SETTINGS, "copies": 3}},
        {"pad_id": 1},
        {"labels": np.zeros(101, np.float32)},
        {"labels": np.zeros((101, 2), np.int32)},
    ],
)
def test_nothing_of_other_settings_is_kept(examples, tmp_path, other):
    writer = make_writer(tmp_path / "again", examples)
    write_all(writer, examples)
    settings = other.pop("settings", SETTINGS)
    changed = dataclasses.replace(examples, **other)
    writer = make_writer(tmp_path / "again", changed, settings)
    assert writer.shards == writer.bytes == 0
    write_all(writer, changed)
    writer.finish(tmp_path / "finished")
    found = open_examples(tmp_path / "finished", settings)
    np.testing.assert_array_equal(found.labels, changed.labels)


def test_damage_is_named(examples, stored):
    def refused(message, settings=SETTINGS):
        with pytest.raises(data.CorpusError, match=message):
            open_examples(stored, settings)

    refused("holds other examples: of .*'copies': 2.*not .*3", {"copies": 3})
    path = stored / "token_ids.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    refused("whole are damaged: their checksums differ. Remove the folder")
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    refused("checksums differ")
    path.unlink()
    refused("checksums differ")
    path.write_bytes(content)
    assert len(open_examples(stored, SETTINGS)) == 101
    manifest = stored / "examples.json"
    values = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**values, "format_version": 9}))
    refused("have format version 9; this keras_distil reads 1")
    # Object arrays would hold pointers.
    for name, value in (
        ("dtypes", {**values["dtypes"], "labels": "|O"}),
        ("dtypes", {"labels": "<i4"}),
        ("shards", [{"examples": 1, "bytes": {}, "sha256": {}}]),
    ):
        body = {**values, name: value}
        del body["sha256"]
        body["sha256"] = disk.sha256(disk.canonical(body))
        manifest.write_text(json.dumps(body))
        refused(f"is damaged \\(({name}|: Value error, an array is missing)")
    manifest.write_text("{")
    refused("it is not JSON")
    manifest.unlink()
    refused("holds no examples: examples.json is missing")


def test_a_full_disk_is_one_line(examples, tmp_path, monkeypatch):
    writer = make_writer(tmp_path / "partial", examples)

    def fail(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="partial could not be written: No space"):
        writer.write([examples])
