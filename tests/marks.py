"""Marks of parameters."""

import pytest


def slow_except(values, *quick):
    """Parameters of a test, of which all but the named ones are slow."""
    assert set(quick) <= set(values)
    slow = pytest.mark.slow
    return [
        value if value in quick else pytest.param(value, marks=slow)
        for value in values
    ]
