"""A package that is missing, and one that is installed but broken."""

import pytest

from keras_distil.utils import extras


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), True),
        (ModuleNotFoundError("No module", name="onnx.helper"), True),
        # Installing `onnx` would not help.
        (ModuleNotFoundError("No module", name="ml_dtypes"), False),
        (ImportError("libonnx.so: undefined symbol", name="onnx"), False),
        (ImportError("no name"), False),
    ],
)
def test_which_package_is_missing(error, expected):
    assert extras.names_package(error, "onnx", "onnxruntime") is expected
