import errno
import os

import pytest
import tensorflow as tf
from safetensors import SafetensorError

from keras_distil.export import folders


def write(folder, text="new", *, overwrite=False):
    with folders.replacing_folder(
        folder, overwrite=overwrite, mark="mark"
    ) as scratch:
        (scratch / "mark").write_text(text)
        (scratch / "inner").mkdir()
        (scratch / "inner" / "file").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder(tmp_path):
    write(tmp_path / "deep" / "made")
    assert names(tmp_path / "deep") == ["made"]
    assert names(tmp_path / "deep" / "made") == ["inner", "mark"]


def test_an_empty_folder_is_none(tmp_path):
    (tmp_path / "made").mkdir()
    write(tmp_path / "made")
    assert (tmp_path / "made" / "mark").read_text() == "new"


def test_an_export_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "made", "old")
    (tmp_path / "made" / "left").write_text("over")
    with pytest.raises(FileExistsError, match=r"made exists.*--overwrite"):
        write(tmp_path / "made")
    assert (tmp_path / "made" / "mark").read_text() == "old"
    write(tmp_path / "made", overwrite=True)
    assert names(tmp_path / "made") == ["inner", "mark"]
    assert names(tmp_path) == ["made"]


def test_a_link_to_an_export(tmp_path):
    write(tmp_path / "real", "old")
    (tmp_path / "made").symlink_to(tmp_path / "real")
    write(tmp_path / "made", overwrite=True)
    assert (tmp_path / "real" / "mark").read_text() == "new"
    assert (tmp_path / "made").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_export_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(FileExistsError, match="no earlier export: mark is mis"):
        write(tmp_path, overwrite=overwrite)
    with pytest.raises(FileExistsError, match="is a file. Give another fol"):
        write(tmp_path / "file", overwrite=overwrite)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on"),
        (SafetensorError("x: I/O error: No space (os error 28)"), "No space"),
        (
            tf.errors.ResourceExhaustedError(
                None, None, "{{node a}} b; No space left on device [Op:Save]"
            ),
            "No space left on device",
        ),
    ],
)
def test_a_failure_leaves_what_was_there(tmp_path, error, words):
    write(tmp_path / "made", "old")
    with pytest.raises(OSError, match=f"made could not be written: {words}"):
        with folders.replacing_folder(
            tmp_path / "made", overwrite=True, mark="mark"
        ) as scratch:
            (scratch / "half").write_text("half")
            raise error
    assert names(tmp_path) == ["made"]
    assert (tmp_path / "made" / "mark").read_text() == "old"


def failing_eagerly():
    tf.gather(tf.range(3), [7])


@tf.function
def failing_graph(indices):
    return tf.gather(tf.range(3), indices)


def failing_in_a_graph():
    failing_graph(tf.constant([7]))


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (failing_eagerly, r"indices\[0\] = 7 is not in \[0, 3\) \(in Gather"),
        (
            failing_in_a_graph,
            r"indices\[0\] = 7 is not in \[0, 3\) \(in GatherV2",
        ),
    ],
)
def test_other_errors_of_tensorflow_say_their_own_cause(tmp_path, fail, words):
    write(tmp_path / "made", "old")
    message = f"export to {tmp_path}/made failed in TensorFlow: {words}"
    with pytest.raises(RuntimeError, match=message) as raised:
        with folders.replacing_folder(
            tmp_path / "made", overwrite=True, mark="mark"
        ):
            fail()
    assert "make room" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "made" / "mark").read_text() == "old"


def test_other_errors_pass(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with folders.replacing_folder(
            tmp_path / "made", overwrite=False, mark="mark"
        ):
            raise ZeroDivisionError
    assert not names(tmp_path)


def test_a_failing_swap_puts_the_old_folder_back(tmp_path, monkeypatch):
    write(tmp_path / "made", "old")
    rename = folders.Path.rename

    def fail(self, target):
        if self.name == ".made.partial":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(folders.Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "made", overwrite=True)
    assert names(tmp_path) == ["made"]
    assert (tmp_path / "made" / "mark").read_text() == "old"


def test_a_kill_in_the_middle_of_a_swap_is_undone(tmp_path):
    write(tmp_path / "made", "old")
    os.rename(tmp_path / "made", tmp_path / ".made.old")
    (tmp_path / ".made.partial").mkdir()
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(tmp_path / "made")
    assert (tmp_path / "made" / "mark").read_text() == "old"


def test_a_kill_after_a_swap_is_tidied_up(tmp_path):
    write(tmp_path / "made", "new")
    write(tmp_path / ".made.old", "old")
    write(tmp_path / "made", "newer", overwrite=True)
    assert names(tmp_path) == ["made"]
    assert (tmp_path / "made" / "mark").read_text() == "newer"


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="made could not be written: Not a dir"):
        write(tmp_path / "file" / "made")
