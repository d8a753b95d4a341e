"""The reports of `tests/mutants.py`; the faults themselves take longer."""

import subprocess
import sys
from pathlib import Path

import pytest
from faults.all_faults import FAULTS
from faults.fault import Fault, FaultError, Package

ROOT = Path(__file__).parents[1]
CODE = """
LIMIT = 3


def unused():
    return twice(1)


def twice(number):
    def add(other):
        return (
            number + other  # A comment.
        )

    return add(number)
"""
TEST = """
import sums


def test_twice():
    assert sums.code.twice(2) == 4
"""


@pytest.fixture
def root(tmp_path):
    """A package with a test."""
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums" / "__init__.py").write_text("from sums import code")
    (tmp_path / "sums" / "code.py").write_text(CODE)
    (tmp_path / "test_sums.py").write_text(TEST)
    return tmp_path


def fault(name, symbol, old, new):
    return Fault(name, symbol, old, new, ("test_sums.py",))


ADDED = fault("minus", "twice.add", "number+other", "number - other")


def check(root, *faults):
    """Status and output of the script, for this package."""
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
import pathlib
import mutants
from faults.fault import Fault, Package

mutants.ROOT = pathlib.Path({str(root)!r})
logs = mutants.ROOT / "logs"
logs.mkdir()
package = Package(mutants.ROOT / "sums")
sys.exit(mutants.check({faults!r}, package, 2, logs))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_fault_is_found_by_its_symbol_and_whatever_its_layout(root):
    mutant = Package(root / "sums").apply(ADDED)
    assert mutant.module == "sums.code"
    assert mutant.source == CODE.replace("number + other", "number - other")
    assert mutant.path.read_text() == CODE


def test_a_constant_is_a_symbol(root):
    mutant = Package(root / "sums").apply(fault("x", "LIMIT", "3", "4"))
    assert mutant.source == CODE.replace("LIMIT = 3", "LIMIT = 4")


@pytest.mark.parametrize(
    ("symbol", "old", "message"),
    [
        ("thrice", "number", "nothing is called 'thrice'"),
        ("twice.add", "number * other", "Found: 0"),
        ("twice", "number", "Found: 3"),
        ("unused", "number", "Found: 0"),
    ],
)
def test_a_fault_that_no_longer_fits_is_told(root, symbol, old, message):
    with pytest.raises(FaultError, match=message):
        Package(root / "sums").apply(fault("x", symbol, old, "0"))


def test_what_is_no_python_is_told(root):
    with pytest.raises(FaultError, match="^broken: .*syntax"):
        Package(root / "sums").apply(
            fault("broken", "twice.add", "number + other", "number +")
        )


def test_all_noticed(root):
    status, out = check(root, ADDED)
    assert status == 0
    assert "1 of 1 were noticed" in out and "at most" in out
    assert (root / "sums" / "code.py").read_text() == CODE


def test_survivors_fail(root):
    lived = fault("nobody looks", "unused", "twice(1)", "twice(3)")
    status, out = check(root, ADDED, lived)
    assert status == 1
    assert "1 of 2 were noticed" in out
    assert "Not noticed: nobody looks" in out


def test_a_fault_that_breaks_the_tests_themselves_does_not_count(root):
    broken = fault("broken", "twice", "number)", "number, *, 3)")
    with pytest.raises(FaultError):
        Package(root / "sums").apply(broken)
    unloadable = Fault(
        "unloadable", "unused", "return twice(1)", "pass\n1 / 0", ADDED.tests
    )
    status, out = check(root, unloadable)
    assert status == 1 and "BROKEN" in out


def test_tests_that_fail_without_a_fault_end_it(root):
    (root / "test_sums.py").write_text(TEST.replace("4", "5"))
    status, out = check(root, ADDED)
    assert status == 1
    assert "They do not pass" in out and "noticed" not in out


def test_a_fault_that_cannot_be_put_in_ends_it(root):
    status, out = check(root, ADDED, fault("gone", "twice", "x", "y"))
    assert status == 1
    assert out.startswith("Cannot be put in: gone: ")


PACKAGE = Package(ROOT / "keras_distil")


def test_there_are_faults_of_different_names():
    assert len({x.name for x in FAULTS}) == len(FAULTS) >= 55


@pytest.mark.parametrize("fault", FAULTS, ids=lambda x: x.name)
def test_it_can_be_put_in(fault):
    PACKAGE.apply(fault)
    for test in fault.tests:
        assert (ROOT / test.partition("::")[0]).is_file()
