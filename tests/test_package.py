"""What importing the package gives, and what it does not load."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import keras_distil

ROOT = Path(__file__).parents[1]


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_configurations_load_without_tensorflow():
    code = (
        "import sys, keras_distil; keras_distil.config;"
        "from keras_distil import config;"
        "loaded = {'tensorflow', 'keras', 'keras_hub'} & set(sys.modules);"
        "sys.exit(str(loaded) if loaded else 0)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_public_names():
    # As in the contract; asked for one by one so that a missing part shows.
    for name in ("callbacks", "export", "losses", "models", "schedules"):
        module = getattr(keras_distil, name)
        assert module.__name__ == f"keras_distil.{name}"
    assert (
        keras_distil.Distiller.__module__ == "keras_distil.training.distiller"
    )


def test_contract_imports():
    from keras_distil import callbacks, export, losses, models, schedules  # noqa: F401


def test_version():
    parts = keras_distil.__version__.split(".")
    assert len(parts) == 3
    assert all(part[0].isdigit() for part in parts)


def test_names_are_listed():
    assert dir(keras_distil) == sorted(keras_distil.__all__)
    assert {"Distiller", "losses", "__version__"} <= set(dir(keras_distil))
    for name in ("benchmark", "data", "losses"):
        module = importlib.import_module(f"keras_distil.{name}")
        assert dir(module) == module.__all__
    assert "AttentionTransfer" in dir(keras_distil.losses)


def test_an_unknown_name():
    with pytest.raises(
        AttributeError, match="module 'keras_distil' has no attribute 'loses'"
    ):
        _ = keras_distil.loses
