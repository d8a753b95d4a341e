"""Predictions of rows as outputs of examples, by hand."""

import json

import numpy as np
import pytest

from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.dev_split import digests_of
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.teachers.predictions.lines import prediction_lines
from keras_distil.teachers.predictions.reading import read_predictions
from keras_distil.teachers.predictions.records import outputs_of

HASHES = np.array([7, 8], np.uint64)


def examples(*lengths):
    starts = np.cumsum([0, *lengths])
    return EncodedExamples(
        token_ids=np.arange(starts[-1], dtype=np.int32),
        starts=starts,
        first_lengths=np.array(lengths, np.int32),
        labels=None,
        pad_id=0,
        max_length=8,
    )


def word_keys():
    """Two sentences: of three words in two windows, and of one word.

    The second word is in both windows; the third has two pieces.
    """
    return RowKeys(
        "train",
        HASHES,
        owners=np.array([0, 0, 1]),
        places=np.array(
            [
                [0, 1, 1, 2, 3],
                [0, 0, 1, 1, 2],
                [1, 2, 1, 2, 1],
            ]
        ),
        counts=np.array([3, 1]),
    )


def test_words_are_at_their_first_pieces():
    # [CLS], pieces, [SEP].
    cases = examples(4, 5, 3)
    whole = [np.array([[1, 2], [3, 4], [5, 6]], np.float32)]
    other = [np.array([[7, 8]], np.float32)]
    found = outputs_of([whole, other], word_keys(), cases, 2)
    zero = [0, 0]
    np.testing.assert_array_equal(found[0], [zero, [1, 2], [3, 4], zero])
    np.testing.assert_array_equal(found[1], [zero, [3, 4], [5, 6], zero, zero])
    np.testing.assert_array_equal(found[2], [zero, [7, 8], zero])
    # With a list for each window, what is not in a window may be missing.
    nothing = [np.nan, np.nan]
    windows = [
        np.array([[1, 2], [3, 4], nothing], np.float32),
        np.array([nothing, [9, 9], [5, 6]], np.float32),
    ]
    found = outputs_of([windows, other], word_keys(), cases, 2)
    np.testing.assert_array_equal(found[1], [zero, [9, 9], [5, 6], zero, zero])
    windows[1][2] = np.nan
    with pytest.raises(ValueError, match="is read. Received: null for word 3"):
        outputs_of([windows, other], word_keys(), cases, 2)
    with pytest.raises(ValueError, match="has 1 words, and must have a pred"):
        outputs_of([whole, whole], word_keys(), cases, 2)


def test_spans_have_a_number_for_each_token():
    keys = RowKeys("train", HASHES, owners=np.array([0, 1, 1]))
    rows = [[np.ones((4, 2))], [np.ones((3, 2)), np.ones((5, 2))]]
    assert len(outputs_of(rows, keys, examples(4, 3, 5), 2)) == 3
    with pytest.raises(
        ValueError,
        match="Row 2 of the part train must have predictions for its 6 tokens. "
        "Received: 5. They are of another tokenizer, `max_length` or",
    ):
        outputs_of(rows, keys, examples(4, 3, 6), 2)


def test_what_is_written_is_read_back_to_the_last_digit(tmp_path):
    generator = np.random.default_rng(0)
    keys = word_keys()
    outputs = [
        generator.normal(size=(tokens, 2)).astype(np.float32)
        for tokens in (4, 5, 3)
    ]
    lines = list(
        prediction_lines(
            outputs,
            keys,
            "token_classification",
            ["O", "B-X"],
            rows=[1, 2],
            ids=None,
        )
    )
    assert lines[0]["hash"] == "0000000000000007" and lines[1]["row"] == 2
    first, second = lines[0]["logits"]
    assert first[2] is None and second[0] is None
    file = tmp_path / "predictions.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    read = read_predictions(
        [file],
        "token_classification",
        # In another order.
        ["b_x", "o"],
        {"train": keys},
        task="mine",
    )
    found = outputs_of(read["train"], keys, examples(4, 5, 3), 2)
    places = keys.places
    for example, position in zip(places[1], places[2], strict=True):
        np.testing.assert_array_equal(
            found[example][position], outputs[example][position][::-1]
        )


def test_an_id_of_several_parts_is_that_of_the_first(tmp_path):
    ids = digests_of(["1", "2"])
    keys = {
        "train": RowKeys("train", HASHES, ids),
        "dev": RowKeys("dev", HASHES + np.uint64(2), ids),
    }
    file = tmp_path / "predictions.jsonl"
    file.write_text(
        '{"id": 1, "scores": 1.0}\n{"id": 2, "scores": 2.0}\n'
        '{"id": 1, "hash": "0000000000000009", "scores": 3.0}\n'
    )
    read = read_predictions([file], "regression", None, keys, task="mine")
    assert [float(x[0][0]) for x in read["train"]] == [1.0, 2.0]
    assert float(read["dev"][0][0][0]) == 3.0 and read["dev"][1] is None
