"""What the tests of training share."""

import pytest
import toy


@pytest.fixture(scope="module")
def teacher():
    """A toy teacher, which no training changes."""
    return toy.make_teacher()
