"""Marks of parameters."""

import pytest


def slow_except(values, *quick):
    """Parameters of a test, of which all but the named ones are slow."""
    assert set(quick) <= set(values)
    return _marked(pytest.mark.slow, values, set(values) - set(quick))


def essential(values, *named):
    """Parameters of a slow test, of which `.ci/run` has the named ones."""
    assert set(named) <= set(values)
    return _marked(pytest.mark.essential, values, named)


def _marked(mark, values, chosen):
    return [
        pytest.param(value, marks=mark) if value in chosen else value
        for value in values
    ]
