"""Marks of parameters."""

import pytest


def slow_except(values, *quick):
    """Parameters of a test, of which all but the named ones are slow."""
    return _marked_except(pytest.mark.slow, values, quick)


def exhaustive_except(values, *kept):
    """Parameters of a slow test; `.ci/run` has the named ones only."""
    return _marked_except(pytest.mark.exhaustive, values, kept)


def _marked_except(mark, values, plain):
    assert set(plain) <= set(values)
    return [
        value if value in plain else pytest.param(value, marks=mark)
        for value in values
    ]
