"""Evaluators of tasks from files: pooled windows, and words."""

import numpy as np
import pytest

from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.words import EncodedWords
from keras_distil.evaluation.task_files import (
    TextSplit,
    TextTaskEvaluator,
    WordSplit,
    WordTaskEvaluator,
    pool_windows,
)


def examples(lengths, owners=None):
    """Examples whose tokens are counted through all of them, from 10."""
    starts = np.cumsum([0, *lengths])
    return EncodedExamples(
        token_ids=np.arange(10, 10 + starts[-1], dtype=np.int32),
        starts=starts,
        first_lengths=np.array(lengths, np.int32),
        labels=None,
        pad_id=0,
        max_length=16,
        owners=None if owners is None else np.array(owners),
    )


def test_the_output_of_a_text_is_the_mean_of_its_windows():
    outputs = np.array([[1, 2], [3, 8], [0, 1], [5, 5], [6, 7]], np.float32)
    found = pool_windows(outputs, np.array([0, 0, 1, 2, 2]))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[2, 5], [0, 1], [5.5, 6]])
    assert pool_windows(outputs, None) is outputs


def evaluator(kind, metric, labels, owners=(0, 0, 1, 2)):
    split = TextSplit(examples([3, 2, 4, 2], owners), np.array(labels))
    names = None if kind == "regression" else ("a", "b")
    return TextTaskEvaluator("mine", kind, metric, {"dev": split}, names)


def outputs_of(inputs):
    """The first token of an example, less 12, and one less."""
    first = inputs["token_ids"][:, 0].astype(np.float32) - 12
    return np.stack([first, first - 1], axis=1)


@pytest.mark.parametrize(
    ("kind", "metric", "labels", "predictions", "score"),
    [
        # The windows begin at 10, 13, 15 and 19.
        ("classification", "accuracy", [0, 1, 0], [0, 0, 0], 2 / 3),
        (
            "multi_label",
            "accuracy",
            [[0, 0], [1, 1], [1, 0]],
            [[0, 0], [1, 1], [1, 1]],
            2 / 3,
        ),
        (
            "regression",
            "mean_absolute_error",
            [0.0, 3.0, 5.0],
            [-0.5, 3.0, 7.0],
            -2.5 / 3,
        ),
    ],
)
def test_decisions_of_texts(kind, metric, labels, predictions, score):
    made = evaluator(kind, metric, labels)
    found = made.predictions(outputs_of)
    np.testing.assert_array_equal(found["dev"], predictions)
    assert made.score(outputs_of) == pytest.approx(score, abs=1e-9)
    counted = made.counted_metric(made.labels["dev"], found["dev"])
    assert counted == pytest.approx(score, abs=1e-6)
    inputs = list(made.inputs())
    assert sum(len(x["token_ids"]) for x in inputs) == 4


def test_a_loss_is_kept_per_text():
    made = evaluator("classification", "log_loss", [0, 1, 0])
    found = made.predictions(outputs_of)["dev"]
    # The logits differ by 1 everywhere.
    wanted = np.log1p(np.exp([-1.0, 1.0, -1.0]))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert made.score(outputs_of) == pytest.approx(-wanted.mean(), abs=1e-9)
    assert list(made.labels["dev"]) == [0.0, 0.0, 0.0]
    assert list(made.classes["dev"]) == [0, 1, 0]


def tagged(metric):
    """Two sentences: the second in two windows, its last word unread."""
    encoded = EncodedWords(
        examples=examples([4, 4, 4], [0, 1, 1]),
        counts=np.array([2, 3]),
        words=np.array([0, 1, 2, 3]),
        windows=np.array([0, 0, 1, 2]),
        positions=np.array([1, 2, 1, 2]),
        places=np.array([[0, 1, 2, 3], [0, 0, 1, 2], [1, 2, 1, 2]]),
        without_pieces=0,
        unread=1,
    )
    tags = [["B-X", "O"], ["B-X", "I-X", "O"]]
    split = WordSplit(encoded, tags)
    return WordTaskEvaluator(
        "mine", metric, {"dev": split}, ("B-X", "I-X", "O")
    )


def classes_of(inputs):
    """Tokens 11, 12, 15 and 20 are of the classes 0, 1, 0 and 1."""
    classes = np.full(inputs["token_ids"].shape, 2)
    for token, number in ((11, 0), (12, 1), (15, 0), (20, 1)):
        classes[inputs["token_ids"] == token] = number
    return np.eye(3, dtype=np.float32)[classes]


def test_words_are_read_where_they_are():
    made = tagged("entity_f1")
    assert made.tags(classes_of) == [["B-X", "I-X"], ["B-X", "I-X", "O"]]
    found = made.predictions(classes_of)["dev"]
    np.testing.assert_array_equal(found, [[0, 1, 1], [1, 1, 1]])
    assert made.score(classes_of) == pytest.approx(0.5, abs=1e-9)
    assert made.counted_metric(made.labels["dev"], found) == 0.5


def test_the_accuracy_of_words():
    made = tagged("accuracy")
    found = made.predictions(classes_of)["dev"]
    np.testing.assert_array_equal(found, [[1, 2], [3, 3]])
    assert made.score(classes_of) == pytest.approx(0.8, abs=1e-9)
    assert made.counted_metric(made.labels["dev"], found) == 0.8


def test_entities_need_tags_of_entities():
    made = tagged("accuracy")
    with pytest.raises(ValueError, match="needs tags of IOB1"):
        WordTaskEvaluator("mine", "entity_f1", made.splits, ("NOUN", "O"))
