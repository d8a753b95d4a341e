"""A small valid recipe on disk."""

import pytest

MINIMAL = """\
name: toy
teacher: {source: embedded}
data:
  sources:
    - kind: documentation
distill: {steps: 4, batch_size: 8, learning_rate: 1e-3}
"""


@pytest.fixture
def recipe_path(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path
