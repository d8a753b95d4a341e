"""The form in which a run's steps hold the teacher."""

import pytest
import toy

from keras_distil import config
from keras_distil.runs.teacher import freeze_teacher
from keras_distil.training import distribution


@pytest.mark.parametrize(
    ("precision", "workers", "dtype"),
    [
        ("float32", 1, "float32"),
        ("mixed_bfloat16", 1, "bfloat16"),
        # TensorFlow cannot send variables in bfloat16 to other workers.
        ("mixed_bfloat16", 2, "float32"),
    ],
)
def test_frozen_weights(precision, workers, dtype, toy_recipe, monkeypatch):
    monkeypatch.setattr(distribution, "worker_index", lambda: (0, workers))
    recipe = config.load_recipe(toy_recipe, [f"precision={precision}"])
    teacher = toy.make_teacher(dtype=precision)
    frozen = freeze_teacher(recipe, teacher)
    assert {weight.dtype for weight in frozen.weights} == {dtype}
