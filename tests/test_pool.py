"""The pool of toy models."""

import numpy as np
import pool
import pytest
import toy


@pytest.fixture(scope="session")
def scope_of_a_session():
    return pool._scope


def test_fixtures_that_outlive_a_test_have_models_of_their_own(
    scope_of_a_session,
):
    assert scope_of_a_session == "session"
    taken = toy.make_teacher()
    with pool.a_scope_of("session"):
        assert toy.make_teacher() is not taken


def test_a_model_comes_back_as_new():
    taken = toy.make_teacher()
    variable = taken.trainable_variables[0]
    before = variable.numpy()
    variable.assign(np.zeros(variable.shape, "float32"))
    taken.trainable = False
    # Another one, as long as the first is in use.
    assert toy.make_teacher() is not taken
    pool.give_back()
    again = [toy.make_teacher() for _ in range(2)]
    assert any(each is taken for each in again)
    assert all(each.trainable for each in again)
    np.testing.assert_array_equal(variable.numpy(), before)


def test_a_model_with_another_layer_is_not_used_again():
    taken = toy.make_teacher()
    taken.masked_lm_head.extra = object()
    pool.give_back()
    assert toy.make_teacher() is not taken
