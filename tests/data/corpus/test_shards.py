import json
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_distil.data.corpus import prepared_corpus, shards
from keras_distil.data.corpus.prepared_corpus import open_corpus
from keras_distil.data.corpus.shards import (
    CorpusError,
    ShardedSequences,
    write_shard,
)
from keras_distil.data.corpus.text_files import CorpusReport
from keras_distil.utils import disk

ROWS = np.arange(40 * 5).reshape(40, 5).astype(np.uint16)


def write(folder, rows=ROWS, *, of=15):
    """A corpus of `rows`, `of` per shard, all of them for training."""
    folder.mkdir()
    pieces = [rows[i : i + of] for i in range(0, len(rows), of)]
    entries = [
        write_shard(folder / shards.shard_name("train", i, len(pieces)), piece)
        for i, piece in enumerate(pieces)
    ]
    manifest = prepared_corpus.make_manifest(
        {"dtype": "uint16", "tokenizer": "a" * 64, "sequence_length": 5},
        {
            "train": {"length": 5, "shards": entries},
            "held_out": {"length": 5, "shards": []},
        },
        np.arange(7),
        CorpusReport(files=1, paragraphs=2),
        [],
    )
    prepared_corpus.write_manifest(folder / prepared_corpus.MANIFEST, manifest)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "corpus")


def change_manifest(folder, change, *, seal=True):
    path = folder / prepared_corpus.MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    if seal:
        body = {k: v for k, v in manifest.items() if k != "sha256"}
        manifest["sha256"] = disk.sha256(disk.canonical(body))
    path.write_text(json.dumps(manifest))


def test_round_trip(folder):
    made = open_corpus(folder, verify=True)
    np.testing.assert_array_equal(made.train[:], ROWS)
    assert made.train.shape == (40, 5)
    assert made.held_out.shape == (0, 5)
    assert made.held_out[:].shape == (0, 5)
    assert made.token_counts.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert made.report == CorpusReport(files=1, paragraphs=2)
    assert made.train_sequences == 40


@pytest.mark.parametrize(
    "rows",
    [
        slice(13, 18),
        slice(None, None, -7),
        slice(38, 99),
        7,
        -1,
        [39, 0, 14, 15, 15],
        np.array([[3, 30], [29, 14]]),
        np.arange(40) % 3 == 0,
    ],
    ids=str,
)
def test_rows_are_those_of_an_array(folder, rows):
    np.testing.assert_array_equal(open_corpus(folder).train[rows], ROWS[rows])


def test_no_such_row(folder):
    with pytest.raises(IndexError, match="out of bounds"):
        open_corpus(folder).train[40]


def test_wide_vocabulary(tmp_path):
    rows = np.array([[70_000, 5], [0, 2**31 - 1]], np.int32)
    path = tmp_path / "a.array_record"
    write_shard(path, rows)
    read = ShardedSequences([path], [2], length=2, dtype=np.dtype(np.int32))
    np.testing.assert_array_equal(read[:], rows)


def test_same_rows_same_bytes(folder, tmp_path):
    other = write(tmp_path / "other")
    for path in folder.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_corrupted_shard_is_named_when_read(folder):
    path = folder / "train-00001-of-00003.array_record"
    data = bytearray(path.read_bytes())
    at = data.index(ROWS[20].tobytes())
    data[at + 3] ^= 0x55
    path.write_bytes(data)
    made = open_corpus(folder)  # the size is right
    np.testing.assert_array_equal(made.train[:20], ROWS[:20])
    with pytest.raises(CorpusError, match="train-00001-of-00003.array_record "):
        made.train[20]
    with pytest.raises(
        CorpusError, match="checksum of the shard .*train-00001"
    ):
        open_corpus(folder, verify=True)


def test_no_corruption_gives_other_rows(folder):
    path = folder / "train-00001-of-00003.array_record"
    whole = path.read_bytes()
    random, raised = np.random.default_rng(0), 0
    used = [i for i, byte in enumerate(whole) if byte]
    for at in random.choice(used, 100, replace=False):
        data = bytearray(whole)
        data[at] ^= 0x55
        path.write_bytes(data)
        try:
            rows = open_corpus(folder).train[:]
        except CorpusError as error:
            raised += 1
            assert path.name in str(error)
        else:  # A byte that no record depends on.
            np.testing.assert_array_equal(rows, ROWS)
    assert raised > 50


def test_vanished_shard_while_training(folder):
    made = open_corpus(folder)
    (folder / "train-00002-of-00003.array_record").unlink()
    np.testing.assert_array_equal(made.train[:30], ROWS[:30])
    with pytest.raises(CorpusError, match="00002.* has vanished or is damaged"):
        made.train[30:]


def test_truncated_shard_is_refused(folder):
    path = folder / "train-00000-of-00003.array_record"
    os.truncate(path, 100)
    with pytest.raises(
        CorpusError, match="has 100 bytes, but its manifest say"
    ):
        open_corpus(folder)


def test_missing_shard_is_refused(folder):
    (folder / "train-00000-of-00003.array_record").unlink()
    with pytest.raises(CorpusError, match="00000-of-00003.* is missing. Copy"):
        open_corpus(folder)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (
            {"tokenizer": "b" * 64},
            "prepared for another tokenizer .*aaa, the tea",
        ),
        ({"sequence_length": 9}, "with sequence_length=5, but 9 was requested"),
    ],
)
def test_other_settings_are_refused(folder, expected, message):
    with pytest.raises(CorpusError, match=message):
        open_corpus(folder, expected=expected)


@pytest.mark.parametrize(
    ("version", "message"),
    [(99, "version 99; this keras_distil reads up to"), (1, "Prepare it aga")],
)
def test_other_versions_are_refused(folder, version, message):
    change_manifest(folder, lambda m: m.update(format_version=version))
    with pytest.raises(CorpusError, match=message):
        open_corpus(folder)


def test_altered_manifest_is_refused(folder):
    change_manifest(folder, lambda m: m["token_counts"].append(1), seal=False)
    with pytest.raises(CorpusError, match="manifest.json is damaged .its chec"):
        open_corpus(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", "[]", "3"])
def test_manifest_that_is_none(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorpusError, match="manifest.json is damaged .it is no"):
        open_corpus(folder)


def test_no_manifest(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            CorpusError, match="does not hold a prepared corpus: manif"
        ):
            open_corpus(path)


def test_shards_stay_in_their_folder(folder, tmp_path):
    def escape(manifest):
        shard = manifest["parts"]["train"]["shards"][0]
        shard["file"] = f"../outside/{shard['file']}"

    write(tmp_path / "outside")
    change_manifest(folder, escape)
    with pytest.raises(
        CorpusError, match="train.shards.0.file: String should "
    ):
        open_corpus(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["parts"].pop("held_out"), "`parts` lacks held_out or tr"),
        (lambda m: m["settings"].pop("dtype"), "`settings.dtype` is neither"),
        (lambda m: m["parts"]["train"].update(length=[5]), "parts.train.leng"),
        (lambda m: m["token_counts"].append([]), "token_counts.7: Input shou"),
        (lambda m: m.update(more=1), "more: Extra inputs are not permitted"),
    ],
)
def test_manifest_that_makes_no_sense(folder, change, message):
    change_manifest(folder, change)
    with pytest.raises(
        CorpusError, match=f"manifest.json is damaged .*{message}"
    ):
        open_corpus(folder)


@pytest.mark.parametrize("key", ["parts", "settings", "report", "fingerprint"])
def test_incomplete_manifest(folder, key):
    change_manifest(folder, lambda m: m.pop(key))
    with pytest.raises(CorpusError, match=f"manifest.json is damaged .*{key}"):
        open_corpus(folder)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file/a could not be written: File ex"):
        write_shard(tmp_path / "file" / "a", ROWS)


def test_process_ends_while_shards_are_read(folder):
    # The interpreter must neither hang nor abort when it exits.
    code = f"""
import numpy as np, threading
from keras_distil.data.corpus.prepared_corpus import open_corpus
rows = open_corpus({str(folder)!r}).train
def read():
    while True:
        rows[np.arange(40)]
for _ in range(3):
    threading.Thread(target=read, daemon=True).start()
import time; time.sleep(0.1)
"""
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code], timeout=60, capture_output=True
        )
        assert done.returncode == 0
