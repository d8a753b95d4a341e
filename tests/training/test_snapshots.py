import errno
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_distil.training import snapshots
from keras_distil.utils import disk

TENSORS = {"kernel": np.arange(6.0).reshape(2, 3), "step": np.array(3)}


def write(folder, step=1, keep=5, **arguments):
    return snapshots.write_snapshot(
        folder, step, TENSORS, {"epoch": step}, keep=keep, **arguments
    )


def newest(folder):
    lines = []
    return snapshots.newest_snapshot(folder, lines.append), lines


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_read(tmp_path):
    path = write(tmp_path, step=12)
    snapshot, lines = newest(tmp_path)
    assert snapshot.path == path and snapshot.step == 12 and not lines
    assert snapshot.values == {"epoch": 12}
    np.testing.assert_array_equal(snapshot.tensors["kernel"], TENSORS["kernel"])
    assert snapshot.tensors["step"].shape == ()


def test_a_missing_folder_has_no_snapshot(tmp_path):
    assert newest(tmp_path / "none") == (None, [])


def test_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 1_000_000_000):
        write(tmp_path, step=step, keep=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000003", "step-1000000000"]
    assert newest(tmp_path)[0].step == 1_000_000_000


def test_a_step_may_be_written_again(tmp_path):
    write(tmp_path)
    snapshots.write_snapshot(tmp_path, 1, {}, {"epoch": 7}, keep=1)
    assert newest(tmp_path)[0].values == {"epoch": 7}


@pytest.mark.parametrize("name", ["tensors.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_damaged_one_is_passed_over(tmp_path, name, damage):
    write(tmp_path, step=1)
    file = write(tmp_path, step=2) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    elif damage == "flipped":
        file.write_bytes(content)
    else:
        os.truncate(file, len(content) // 2 if damage == "cut" else 0)
    snapshot, lines = newest(tmp_path)
    assert snapshot.step == 1
    assert len(lines) == 1
    assert "step-000000002 is damaged" in lines[0]
    assert "going back to the one before" in lines[0]


def test_a_changed_value_is_damage(tmp_path):
    write(tmp_path, step=1)
    edit_manifest(write(tmp_path, step=2), values={"epoch": 9})
    assert newest(tmp_path)[0].step == 1


def test_if_all_are_damaged_nothing_is_guessed(tmp_path):
    (write(tmp_path) / "manifest.json").unlink()
    with pytest.raises(ValueError, match="Every training state in .* damaged"):
        newest(tmp_path)


def test_a_later_format_is_refused(tmp_path):
    write(tmp_path, step=1)
    edit_manifest(write(tmp_path, step=2), format_version=2)
    with pytest.raises(ValueError, match="has format version 2; this keras"):
        newest(tmp_path)


def test_a_file_outside_the_folder_is_not_read(tmp_path):
    write(tmp_path, step=1)
    folder = write(tmp_path, step=2)
    body = json.loads((folder / "manifest.json").read_text())
    del body["sha256"]
    body["files"]["../../secret"] = "0"
    digest = disk.sha256(disk.canonical(body))
    edit_manifest(folder, files=body["files"], sha256=digest)
    snapshot, lines = newest(tmp_path)
    assert snapshot.step == 1 and "is not a file name" in lines[0]


def test_unfinished_ones_are_not_seen_and_are_removed(tmp_path):
    write(tmp_path, step=1)
    half = tmp_path / ".partial-2"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"half")
    assert newest(tmp_path)[0].step == 1
    write(tmp_path, step=3)
    assert not half.exists()


def test_errors_of_tensorflow_are_reported_by_their_cause(tmp_path):
    """The positions of iterators are written by TensorFlow."""
    write(tmp_path, step=1)

    def fail(words):
        def write_more(folder):
            raise tf.errors.ResourceExhaustedError(None, None, words)

        return write_more

    with pytest.raises(OSError, match="step 2 could not .* No space left"):
        write(tmp_path, step=2, write_more=fail("a; No space left on device"))
    with pytest.raises(tf.errors.ResourceExhaustedError, match="OOM"):
        write(tmp_path, step=2, write_more=fail("OOM when allocating"))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize("moment", ["write_more", "manifest", "rename"])
def test_a_full_disk_leaves_the_earlier_ones(tmp_path, monkeypatch, moment):
    write(tmp_path, step=1)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    more = {}
    if moment == "write_more":
        more = {"write_more": full}
    elif moment == "manifest":
        monkeypatch.setattr(snapshots, "_write_manifest", full)
    else:
        monkeypatch.setattr(snapshots.os, "replace", full)
    with pytest.raises(OSError, match="step 2 could not .* No space left"):
        write(tmp_path, step=2, **more)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    assert newest(tmp_path)[0].step == 1


def signed(folder, **changes):
    body = json.loads((folder / "manifest.json").read_text())
    del body["sha256"]
    body |= changes
    digest = disk.sha256(disk.canonical(body))
    edit_manifest(folder, **changes, sha256=digest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": [1]}, "manifest.json holds no values"),
        ({"files": {}}, "tensors.safetensors has no checksum"),
        ({"files": {"..": "0"}}, "'..' is not a file name"),
        ({"files": {"": "0"}}, "'' is not a file name"),
        ({"files": {"a\0b": "0"}}, "manifest.json cannot be read"),
    ],
)
def test_checksums_do_not_make_it_a_state(tmp_path, changes, message):
    write(tmp_path, step=1)
    signed(write(tmp_path, step=2), **changes)
    snapshot, lines = newest(tmp_path)
    assert snapshot.step == 1 and message in lines[0]


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{}"])
def test_a_manifest_of_any_kind_is_damage(tmp_path, text):
    write(tmp_path, step=1)
    (write(tmp_path, step=2) / "manifest.json").write_text(text)
    assert newest(tmp_path)[0].step == 1
