"""Searches of toy models, whose few updates are faster without a graph."""

import pytest
import toy


@pytest.fixture(autouse=True, scope="module")
def _eager():
    with toy.quick_runs():
        yield
