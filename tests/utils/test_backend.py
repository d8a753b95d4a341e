"""Keras on another backend is refused at once, in one line."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from keras_distil.utils import backend

ROOT = Path(__file__).parents[2]
MESSAGE = "needs Keras's TensorFlow backend. Set KERAS_BACKEND=tensorflow"


@pytest.fixture
def before_keras(monkeypatch, tmp_path):
    """As in a process that has not imported Keras, with another home."""
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_settings(folder, content):
    folder.mkdir(parents=True)
    (folder / "keras.json").write_text(content)


def test_by_default_it_is_tensorflow(before_keras):
    backend.check_backend()


@pytest.mark.parametrize("name", ["jax", "torch", "numpy", "openvino"])
def test_the_variable_is_read(before_keras, monkeypatch, name):
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(ImportError, match=f"{MESSAGE}.*'{name}', from the var"):
        backend.check_backend()


def test_the_settings_are_read(before_keras, monkeypatch):
    write_settings(before_keras / ".keras", json.dumps({"backend": "torch"}))
    with pytest.raises(ImportError, match="Received: 'torch', from .*keras.js"):
        backend.check_backend()
    # As in Keras, the variable comes first.
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    backend.check_backend()


def test_the_settings_may_be_elsewhere(before_keras, monkeypatch):
    home = before_keras / "elsewhere"
    write_settings(home, json.dumps({"backend": "jax"}))
    monkeypatch.setenv("KERAS_HOME", str(home))
    with pytest.raises(ImportError, match=f"'jax', from {home}/keras.json"):
        backend.check_backend()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"floatx": "float32"}'])
def test_settings_without_a_backend(before_keras, content):
    write_settings(before_keras / ".keras", content)
    backend.check_backend()


def test_keras_itself_knows_best(monkeypatch):
    backend.check_backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match="'jax', from the Keras that is alr"):
        backend.check_backend()


def run(*words):
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_import_is_refused():
    result = run("-c", "import keras_distil")
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("ImportError: keras_distil needs Keras's TensorFlow")


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "keras_distil", "--help"),
        (
            "-c",
            "import sys; sys.argv = ['/bin/keras-distil', '--help'];"
            "from keras_distil.__main__ import main; main()",
        ),
    ],
)
def test_the_command_says_it_in_one_line(words):
    result = run(*words)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "keras-distil: keras_distil needs Keras's TensorFlow backend. Set "
        "KERAS_BACKEND=tensorflow before Keras is first imported. Received: "
        "'jax', from the variable KERAS_BACKEND.\n"
    )


def test_edge_needs_no_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    backend.check_backend()
