import subprocess
import sys

import pytest

import keras_distil.data


@pytest.mark.parametrize("name", keras_distil.data.__all__)
def test_public_names_exist(name):
    found = getattr(keras_distil.data, name)
    if not name.isupper():
        assert found.__module__.startswith("keras_distil.data.")


def test_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = keras_distil.data.nothing


def test_preparing_imports_no_tensorflow():
    code = (
        "import sys; from keras_distil.data import prepare_corpus, TextFiles;"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
