"""Every key of a recipe reaches the object that it is meant for."""

from collections import Counter

import pytest
from checks import CHECKS, ITSELF
from keys import all_keys, default_of
from recording import get
from runs import Home, Runs

from keras_distil import config

KEYS = all_keys(config.Recipe)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs, each made when first asked for."""
    return Runs(Home(tmp_path_factory.mktemp("wiring")))


def test_every_key_has_a_check():
    assert set(KEYS) - set(CHECKS) == set(), "checks/ lacks these keys"
    assert set(CHECKS) - set(KEYS) == set(), "no recipe has these keys"


def by_run():
    """Keys that are seen in the same run together, as processes share them.

    A run that serves few keys is slow.
    """
    served = Counter(check.run for check in CHECKS.values())
    for key in sorted(CHECKS, key=lambda x: (CHECKS[x].run, x)):
        few = served[CHECKS[key].run] <= 5
        yield pytest.param(key, marks=[pytest.mark.slow] * few)


@pytest.mark.parametrize("key", list(by_run()))
def test_it_reaches_what_it_is_for(runs, key):
    check = CHECKS[key]
    made = runs(check.run)
    value = get(runs.values[check.run], check.at or key)
    # Otherwise a key that is not read would go unnoticed.
    assert value != default_of(KEYS[key])
    wanted = value if check.wanted is ITSELF else check.wanted
    found = check.see(runs, made)
    if isinstance(wanted, tuple | list) and isinstance(found, tuple | list):
        assert len(found) == len(wanted)
        pairs = zip(found, wanted, strict=True)
    else:
        pairs = [(found, wanted)]
    for one, other in pairs:
        if isinstance(other, float):
            # Variables are stored in float32.
            assert one == pytest.approx(other, rel=1e-5)
        else:
            assert one == other


def test_keys_of_other_sections_are_found():
    assert {"distill.beta_2", "RampSchedule.end", "Dimension.min"} <= set(KEYS)
    assert default_of(KEYS["distill.beta_2"]) == 0.999
    assert len(KEYS) > 100
