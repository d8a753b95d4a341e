"""Fixtures that more than one folder of tests uses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parent / "models" / "golden"


@pytest.fixture
def golden_bert() -> Path:
    """A Hugging Face directory: BERT of 2 layers, width 16, 64 words."""
    return GOLDEN / "bert"


@pytest.fixture
def golden_distil_bert() -> Path:
    """A Hugging Face directory: DistilBERT of the same sizes."""
    return GOLDEN / "distil_bert"


@pytest.fixture
def edit_checkpoint(tmp_path) -> Callable[..., Path]:
    """Copies a Hugging Face directory, with other tensors or settings.

    `tensors` is a function from the dict of tensors to a new one, `config`
    holds settings to replace; None removes a setting.
    """

    def edit(source, *, tensors=None, config=None):
        target = tmp_path / "checkpoint"
        shutil.copytree(source, target)
        if tensors is not None:
            file = target / "model.safetensors"
            save_file(tensors(load_file(file)), file)
        settings = json.loads((target / "config.json").read_text())
        settings.update(config or {})
        settings = {k: v for k, v in settings.items() if v is not None}
        (target / "config.json").write_text(json.dumps(settings))
        return target

    return edit
