"""A full disk, for every file of a run; /dev/full acts as one."""

import errno
import types
from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
from safetensors import SafetensorError
from toy import dataset, make_batch, make_student, make_teacher

from keras_distil import Distiller, callbacks, config, losses
from keras_distil.cli import app
from keras_distil.models import adapters
from keras_distil.runs import run_folder
from keras_distil.utils import disk
from keras_distil.utils.progress import Progress

FULL = "could not be written: No space left on device. Finished work"


@pytest.fixture(scope="module")
def distiller():
    teacher = make_teacher()
    made = Distiller(
        teacher, make_student(teacher), [losses.SoftTargetKLDivergence()]
    )
    made.compile("sgd", run_eagerly=True)
    return made


def fill(path):
    """Makes every write to the path fail as on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/full")


def fit(distiller, callback):
    batches = dataset(make_batch())
    distiller.fit(batches, callbacks=[callback], verbose=0)


def test_text(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    fill(tmp_path / ".report.json.partial")
    with pytest.raises(OSError, match=f"report.json {FULL}"):
        run_folder.write_json(path, {"a": 1})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_metrics(distiller, tmp_path):
    path = tmp_path / "metrics.jsonl"
    fill(path)
    with pytest.raises(OSError, match=f"metrics.jsonl {FULL}"):
        fit(distiller, callbacks.MetricsLog(path, stage="distill"))


def test_student(distiller, tmp_path):
    path = tmp_path / "student.keras"
    path.write_text("old")
    fill(tmp_path / ".student.keras")
    with pytest.raises(OSError, match=f"student.keras {FULL}"):
        fit(distiller, callbacks.StudentCheckpoint(path))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("name", ["flush", "close"])
def test_logs(distiller, tmp_path, monkeypatch, name):
    # In TensorFlow's words.
    message = "{{node x}} a; No space left on device\n\tFailed [Op:Flush]"

    def fail():
        raise tf.errors.ResourceExhaustedError(None, None, message)

    board = callbacks.TensorBoard(tmp_path / "logs")
    writer = types.SimpleNamespace(
        flush=lambda: None, close=lambda: None, as_default=nullcontext
    )
    monkeypatch.setattr(writer, name, fail)
    monkeypatch.setattr(board, "_write", lambda *_: None)
    board._writers["train"] = writer
    with pytest.raises(OSError, match=f"logs/train {FULL}"):
        fit(distiller, board)


def test_logs_below_a_file(distiller, tmp_path):
    (tmp_path / "logs").write_text("")
    board = callbacks.TensorBoard(tmp_path / "logs")
    with pytest.raises(OSError, match="logs could not be written: is a file. "):
        fit(distiller, board)


def test_adapter(tmp_path, monkeypatch):
    def fail(arrays, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "adapter.safetensors"
    monkeypatch.setattr(adapters, "save_file", fail)
    with pytest.raises(OSError, match=f"adapter.safetensors {FULL}"):
        adapters._write(path, {"a": np.zeros(1)}, {})
    assert not list(tmp_path.iterdir())


def test_an_error_without_words_is_named_by_its_type(tmp_path):
    assert disk.reason(OSError()) == "OSError"


def test_the_system_s_words_are_all_that_is_kept_of_safetensors():
    message = "Error while serializing: I/O error: No space (os error 28)"
    assert disk.reason(SafetensorError(message)) == "No space"


def test_the_system_s_words_are_all_that_is_kept_of_hdf5():
    message = (
        "Can't synchronously write data (file write failed: time = now, "
        "errno = 28, error message = 'No space left on device', buf = 0x7f)"
    )
    assert disk.reason(OSError(message)) == "No space left on device"


@pytest.mark.parametrize(
    "name", [".environment.json.partial", ".recipe.yaml.partial"]
)
def test_a_run_that_found_no_room_begins_again(toy_recipe, tmp_path, name):
    recipe = config.load_recipe(toy_recipe)
    folder = tmp_path / "run"
    fill(folder / name)
    with pytest.raises(OSError, match=FULL):
        run_folder.open_run(recipe, folder, Progress(quiet=True))
    assert not (folder / "recipe.yaml").exists()
    run_folder.open_run(recipe, folder, Progress(quiet=True))
    assert (folder / "recipe.yaml").is_file()


def test_a_folder_below_a_file(toy_recipe, tmp_path):
    (tmp_path / "file").write_text("")
    recipe = config.load_recipe(toy_recipe)
    with pytest.raises(OSError, match="file/run could not be written: Not a"):
        run_folder.open_run(
            recipe, tmp_path / "file" / "run", Progress(quiet=True)
        )


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(30, "Read-only file system", "a"), "Read-only file system: a"),
        (OSError(18, "Cross-device", "a", None, "b"), "Cross-device: a -> b"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("a\n b"), "a b"),
        (ValueError(), "ValueError"),
    ],
)
def test_the_system_s_errors_are_told_without_numbers(error, line):
    assert app._in_one_line(error) == line


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError("errno = 28, error message = 'No space left on device', b"),
        SafetensorError("x: I/O error: Quota (os error 122)"),
        RuntimeError("INTERNAL: write failed: No space left on device"),
        tf.errors.ResourceExhaustedError(
            None, None, "{{node x}} a; No space left on device [Op:Flush]"
        ),
    ],
)
def test_errors_of_a_disk_are_known_in_all_words(error):
    assert disk.is_of_disk(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "input"),
        ConnectionError("Could not download"),
        TimeoutError("timed out"),
        SafetensorError("Error while deserializing: InvalidHeader"),
        SafetensorError("x: I/O error: Too many open files (os error 24)"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"),
        tf.errors.InvalidArgumentError(None, None, "indices[0] = 9"),
    ],
)
def test_other_errors_are_not_told_as_those_of_a_disk(tmp_path, error):
    assert not disk.is_of_disk(error)
    with pytest.raises(type(error)) as raised:
        with disk.writing(tmp_path):
            raise error
    assert raised.value is error


def test_a_file_within_a_folder_is_named_once(tmp_path):
    with pytest.raises(OSError, match="^inner could not be written: No") as e:
        with disk.writing(tmp_path), disk.writing("inner"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path) not in str(e.value)


def test_other_errors_of_tensorflow_pass_the_logs(distiller, tmp_path):
    board = callbacks.TensorBoard(tmp_path / "logs")

    def fail():
        raise tf.errors.InvalidArgumentError(None, None, "not a disk's")

    board._writers["train"] = types.SimpleNamespace(
        flush=fail, close=fail, as_default=nullcontext
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a disk's"):
        fit(distiller, board)
