"""Marks of parameters."""

import pytest


def slow_except(values, *quick):
    """Parameters of a test, of which all but the named ones are slow."""
    slow = [value for value in values if value not in quick]
    return _marked(pytest.mark.slow, values, slow)


def essential(values, *essential):
    """Parameters of a slow test, of which `.ci/run` has the named ones."""
    return _marked(pytest.mark.essential, values, essential)


def _marked(mark, values, chosen):
    assert set(chosen) <= set(values)
    return [
        pytest.param(value, marks=mark) if value in chosen else value
        for value in values
    ]
