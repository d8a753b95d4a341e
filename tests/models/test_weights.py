"""Models rebuilt in another precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import losses, models
from keras_distil.training.objectives import make_objective


def batch():
    generator = np.random.default_rng(0)
    token_ids = generator.integers(5, toy.VOCABULARY, (4, 12)).astype("int32")
    x = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    masked = np.arange(12) % 4 == 1
    return x, token_ids, np.tile(masked, (4, 1)).astype("float32")


def sums_of(teacher, student):
    objective = make_objective(teacher, student, losses.triple_loss())
    made = objective.batch(tf.nest.map_structure(tf.constant, batch()))
    sizes = objective.denominators(made)
    sums, _ = tf.function(
        lambda: objective.compute_gradients(made, sizes, training=True),
        autograph=False,
    )()
    return {name: float(value) for name, value in sums.items()}


def test_every_weight_has_the_precision_and_the_value():
    teacher = toy.make_teacher()
    held = models.with_dtype(teacher, "bfloat16")
    assert type(held) is type(teacher)
    for ours, theirs in zip(held.weights, teacher.weights, strict=True):
        assert ours.path == theirs.path
        assert keras.backend.standardize_dtype(ours.dtype) == "bfloat16"
        np.testing.assert_allclose(
            np.array(ours).astype("float32"), np.array(theirs), rtol=2**-8
        )


@pytest.mark.slow
def test_a_teacher_in_bfloat16_teaches_as_a_mixed_one():
    exact = toy.make_teacher()
    student = models.initialize_student(
        exact, 1, dropout=0.0, dtype="mixed_bfloat16"
    )
    mixed = models.with_dtype(exact, "mixed_bfloat16")
    found = sums_of(models.with_dtype(exact, "bfloat16"), student)
    expected = sums_of(mixed, student)
    for name, value in expected.items():
        # Offsets and scales of normalisations are rounded as well: 2**-9.
        np.testing.assert_allclose(
            found[name], value, rtol=2**-6, atol=2**-6, err_msg=name
        )
    assert found["mlm_sum"] == expected["mlm_sum"]
