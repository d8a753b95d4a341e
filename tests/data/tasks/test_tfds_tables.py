"""Data sets of TensorFlow Datasets as tables."""

import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_distil.data.tasks import tables
from keras_distil.data.tasks.columns import find_columns

FEATURES = tfds.features.FeaturesDict(
    {
        "sentence": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["bad", "good"]),
        "tags": tfds.features.Sequence(
            tfds.features.ClassLabel(names=["O", "B-X"])
        ),
        "answers": tfds.features.Sequence(
            {"text": tfds.features.Text(), "answer_start": np.int32}
        ),
        "score": np.float32,
    }
)


@pytest.fixture
def builder(monkeypatch):
    """A data set of two rows, of which the second has a secret label."""
    ragged = {
        "tags": tf.ragged.constant([[1, 0, 0], [0]], tf.int64),
        "answers": {
            "text": tf.ragged.constant([["f", "g"], ["h"]]),
            "answer_start": tf.ragged.constant([[2, 0], [1]]),
        },
    }
    rows = tf.data.Dataset.from_tensor_slices(
        {
            "sentence": ["é film", "b"],
            "label": np.array([1, -1]),
            "score": np.array([0.5, 2.0], np.float32),
            **ragged,
        }
    ).map(
        lambda row: tf.nest.map_structure(
            lambda x: x.to_tensor() if isinstance(x, tf.RaggedTensor) else x,
            row,
        )
    )
    asked = []

    def prepared(name, split):
        asked.append((name, split))
        return types.SimpleNamespace(
            info=types.SimpleNamespace(features=FEATURES),
            as_dataset=lambda **options: rows,
        )

    monkeypatch.setattr(tables, "prepared_builder", prepared)
    return asked


def test_rows_are_pythons_own(builder):
    table = tables.open_tfds("toy", "train[:2]")
    assert builder == [("toy", "train[:2]")]
    assert table.name == "'toy', split 'train[:2]'"
    assert table.where(2) == "'toy', split 'train[:2]', example 2"
    order = [table.columns.index(x) for x in FEATURES]
    found = [(place, [row[i] for i in order]) for place, row in table.rows()]
    assert found == [
        (
            1,
            [
                "é film",
                "good",
                ["B-X", "O", "O"],
                {"text": ["f", "g"], "answer_start": [2, 0]},
                0.5,
            ],
        ),
        (2, ["b", None, ["O"], {"text": ["h"], "answer_start": [1]}, 2.0]),
    ]
    columns = find_columns(table, ("text", "label"), {})
    assert columns == {"text": ["sentence"], "label": ["label"]}
