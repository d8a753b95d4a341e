"""Variables that no loss reaches stay as they are in a block."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, losses
from keras_distil.training.objectives.unreached import unreached_frozen


@pytest.fixture(scope="module")
def pair():
    encoder = toy.make_teacher(num_layers=3)
    teacher = toy.task_model(encoder, "classification", 3, seed=1)
    small = toy.initialize_student(encoder, 2, dropout=0.3)
    return teacher, toy.task_model(small, "classification", 3, seed=2)


@pytest.fixture(scope="module")
def batch():
    x, _, _ = toy.make_batch()
    x = {name: tf.constant(values) for name, values in x.items()}
    labels = tf.constant([0, 2, 1, 1])
    return x, labels, tf.ones(4)


def last_layer(student):
    return student.backbone.transformer_layers[-1]


def projections(layer):
    attention = layer._self_attention_layer
    parts = ("query", "key", "value")
    return [
        variable
        for part in parts
        for variable in getattr(attention, f"_{part}_dense").variables
    ]


def head_of(student):
    inside = {id(v) for v in student.backbone.variables}
    return {v.path for v in student.trainable_variables if id(v) not in inside}


def paths(variables):
    return {variable.path for variable in variables}


@pytest.mark.parametrize(
    ("made", "of_last_layer"),
    [
        # The last layer's states: all of it is reached.
        ([losses.HiddenStateCosineDistance()], lambda layer: set()),
        # Its attention: only queries, keys and values are.
        (
            [losses.AttentionRelationKLDivergence(relation_heads=2)],
            lambda layer: (
                paths(layer.trainable_variables) - paths(projections(layer))
            ),
        ),
        # The states of the layer before it: nothing of it is.
        (
            [losses.HiddenStateMeanSquaredError(layers=[(1, 0)])],
            lambda layer: paths(layer.trainable_variables),
        ),
    ],
    ids=["states", "attention", "states before"],
)
def test_what_follows_the_last_layer_that_is_read(
    pair, batch, made, of_last_layer
):
    teacher, student = pair
    wanted = head_of(student) | of_last_layer(last_layer(student))
    everything = paths(student.trainable_variables)
    kept = [np.array(v) for v in student.variables]
    with unreached_frozen(teacher, student, made, batch) as frozen:
        assert paths(frozen) == wanted
        assert paths(student.trainable_variables) == everything - wanted
        distiller = Distiller(teacher, student, made)
        distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    assert paths(student.trainable_variables) == everything
    # Nothing moved, random generators included.
    for before, variable in zip(kept, student.variables, strict=True):
        np.testing.assert_array_equal(before, variable)


def test_they_are_not_even_decayed(pair, batch):
    teacher, student = pair
    start = [np.array(v) for v in student.trainable_variables]
    made = [losses.HiddenStateCosineDistance()]
    with unreached_frozen(teacher, student, made, batch) as frozen:
        distiller = Distiller(teacher, student, made)
        distiller.compile(
            keras.optimizers.AdamW(0.01, weight_decay=0.5), run_eagerly=True
        )
        distiller.train_on_batch(*batch)
    same = {
        variable.path
        for before, variable in zip(
            start, student.trainable_variables, strict=True
        )
        if np.array_equal(before, variable)
    }
    # The segments and the tokens that no example has get no gradient, but are
    # decayed.
    assert same == paths(frozen)


def test_a_loss_on_the_outputs_reaches_all(pair, batch):
    teacher, student = pair
    made = [losses.LabelCrossentropy(), losses.HiddenStateCosineDistance()]
    with unreached_frozen(teacher, student, made, batch) as frozen:
        assert frozen == []


def test_they_are_trainable_again_after_an_error(pair, batch):
    teacher, student = pair
    everything = paths(student.trainable_variables)
    made = [losses.HiddenStateCosineDistance()]
    with (
        pytest.raises(OSError, match="gone"),
        unreached_frozen(teacher, student, made, batch),
    ):
        raise OSError("gone")
    assert paths(student.trainable_variables) == everything


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("regression", np.array([0.5, 1.0, 2.0, 3.0], "float32")),
        (
            "span",
            {"start": np.array([0, 1, 1, 1]), "end": np.array([1, 2, 1, 3])},
        ),
    ],
)
def test_other_kinds_of_tasks(pair, batch, kind, labels):
    teacher, student = (toy.task_model(model.backbone, kind) for model in pair)
    made = [losses.HiddenStateCosineDistance()]
    data = (batch[0], labels, batch[2])
    head = head_of(student)
    with unreached_frozen(teacher, student, made, data) as frozen:
        assert paths(frozen) == head != set()
