"""Scores of constant answers, worked out by hand."""

import math

import numpy as np
import pytest

from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.words import EncodedWords
from keras_distil.evaluation.constant_answers import constant_score
from keras_distil.evaluation.task_files import (
    TextSplit,
    TextTaskEvaluator,
    WordSplit,
    WordTaskEvaluator,
)

# Four texts of three tokens.
EXAMPLES = EncodedExamples(
    token_ids=np.arange(10, 22, dtype=np.int32),
    starts=np.arange(0, 13, 3),
    first_lengths=np.full(4, 3, np.int32),
    labels=None,
    pad_id=0,
    max_length=8,
)
ENTROPY = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
SEVERAL = [[1, 0], [1, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("kind", "metric", "labels", "score"),
    [
        ("classification", "accuracy", [1, 1, 0, 1], 0.75),
        ("classification", "macro_f1", [1, 1, 0, 1], 0.5 * 1.5 / 1.75),
        ("classification", "log_loss", [1, 1, 0, 1], -ENTROPY),
        # The first label alone.
        ("multi_label", "accuracy", SEVERAL, 0.5),
        ("regression", "pearson", [1.0, 2.0, 3.0, 6.0], 0.0),
        ("regression", "mean_absolute_error", [1.0, 2.0, 3.0, 6.0], -1.5),
    ],
)
def test_of_texts(kind, metric, labels, score):
    dtype = np.float32 if kind == "regression" else np.int32
    split = TextSplit(EXAMPLES, np.array(labels, dtype))
    names = None if kind == "regression" else ("a", "b")
    evaluator = TextTaskEvaluator("mine", kind, metric, {"dev": split}, names)
    outputs = 1 if kind == "regression" else 2
    found = constant_score(evaluator, kind, outputs)
    assert found == pytest.approx(score, abs=1e-6)


def test_of_words():
    encoded = EncodedWords(
        examples=EXAMPLES,
        counts=np.array([1, 1, 1, 1]),
        words=np.arange(4),
        windows=np.arange(4),
        positions=np.ones(4, np.int64),
        places=np.stack([np.arange(4), np.arange(4), np.ones(4, np.int64)]),
        without_pieces=0,
        unread=0,
    )
    split = WordSplit(encoded, [["O"], ["X"], ["O"], ["O"]])
    evaluator = WordTaskEvaluator(
        "mine", "accuracy", {"dev": split}, ("O", "X")
    )
    assert constant_score(evaluator, "token_classification", 2) == 0.75
