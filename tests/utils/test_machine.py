"""The machine that a process runs on."""

import pytest

from keras_distil.utils import machine


def test_a_cache_folder_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        OSError,
        match="^The folder that runs share, .*/file/cache, cannot be made: Not "
        r"a directory\. Set KERAS_DISTIL_CACHE to another\.$",
    ):
        machine.cache_folder()
    # As the message says.
    monkeypatch.setenv("KERAS_DISTIL_CACHE", str(tmp_path / "other" / "cache"))
    assert machine.cache_folder().is_dir()
