"""Pairs of layers: what may be written, and what is made of it."""

import keras
import pytest

from keras_distil import losses
from keras_distil.losses.layers import check_layers, find_pairs


@pytest.mark.parametrize(
    ("layers", "teacher", "student", "expected"),
    [
        ("last", 12, 6, [("last", "last")]),
        ("last", None, None, [("last", "last")]),
        ("uniform", 4, 2, [(1, 0), ("last", "last")]),
        ("uniform", 12, 3, [(3, 0), (7, 1), ("last", "last")]),
        ("uniform", 2, 2, [(0, 0), ("last", "last")]),
        ([[3, 1]], 4, 2, [("last", "last")]),
        ([(0, 1), (2, 0)], 4, 2, [(0, "last"), (2, 0)]),
        (
            (("embeddings", "embeddings"), (3, 0)),
            4,
            2,
            [("embeddings", "embeddings"), ("last", 0)],
        ),
    ],
)
def test_pairs_of_two_models(layers, teacher, student, expected):
    found = find_pairs(check_layers(layers), teacher, student)
    assert found == tuple(expected)


@pytest.mark.parametrize(
    ("layers", "received"),
    [
        ("first", "layers='first'"),
        ([], r"layers=\[\]"),
        (3, "layers=3"),
        ([1, 2], "the pair 1"),
        ([(1, 2, 3)], r"the pair \(1, 2, 3\)"),
        ([(-1, 0)], r"the pair \(-1, 0\)"),
        ([(True, 0)], r"the pair \(True, 0\)"),
        ([(1.0, 0)], r"the pair \(1.0, 0\)"),
        ([("last", 0)], r"the pair \('last', 0\)"),
    ],
)
def test_other_forms_are_refused(layers, received):
    with pytest.raises(ValueError, match=f"^`layers` must be .*{received}"):
        losses.HiddenStateCosineDistance(layers=layers)


def test_a_pair_is_listed_once():
    with pytest.raises(ValueError, match=r"each pair once.*\(1, 0\) twice"):
        losses.HiddenStateCosineDistance(layers=[(1, 0), (3, 1), [1, 0]])


@pytest.mark.parametrize(
    ("layers", "counts", "message"),
    [
        ([(4, 0)], (4, 2), "teacher has 4 layers, 0 to 3. Received: layer 4"),
        ([(0, 2)], (4, 2), "student has 2 layers, 0 to 1. Received: layer 2"),
        ("uniform", (5, 2), "multiple .* Received: 5 and 2 layers; give pai"),
        ("uniform", (None, 2), "teacher has hidden states of its last layer"),
        ([(0, 0)], (4, None), "student has hidden states of its last layer"),
    ],
)
def test_layers_that_two_models_do_not_have(layers, counts, message):
    with pytest.raises(ValueError, match=message):
        find_pairs(check_layers(layers), *counts)


@pytest.mark.parametrize(
    "layers", ["last", "uniform", [("embeddings", 0), (3, 1)]]
)
def test_layers_survive_saving(layers):
    loss = losses.HiddenStateCosineDistance(layers=layers)
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert again.layers == loss.layers
    assert again.get_config() == loss.get_config()


def test_a_loss_saved_without_layers_is_on_the_last():
    config = losses.HiddenStateCosineDistance().get_config()
    del config["layers"]
    loss = losses.HiddenStateCosineDistance.from_config(config)
    assert loss.layers == "last"
