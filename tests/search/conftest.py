"""Searches of toy models, whose few updates are faster without a graph."""

import pytest

from keras_distil import Distiller


@pytest.fixture(autouse=True, scope="module")
def _eager():
    compile_ = Distiller.compile

    def eagerly(self, *args, **arguments):
        return compile_(self, *args, **{**arguments, "run_eagerly": True})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distiller, "compile", eagerly)
        yield
