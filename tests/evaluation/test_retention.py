"""Shares of a teacher's score, only where they have a meaning."""

import numpy as np
import pytest

from keras_distil.evaluation import (
    chance_score,
    kept_percent,
    most_frequent_share,
)
from keras_distil.evaluation.significance import (
    ACCURACY,
    F1,
    MATTHEWS,
    PEARSON,
    ScoredExamples,
    mean_of,
)
from keras_distil.runs.score_table import TaskResult
from keras_distil.runs.table_making import make_table


@pytest.mark.parametrize(
    ("score", "teacher", "chance", "expected"),
    [
        (0.4, 0.5, 0.0, 80.0),
        (0.4, 0.5, 0.3, 80.0),
        (0.6, 0.5, 0.3, 120.0),
        # A teacher's 0.0 with a student's 14.0 is not "0.0% kept".
        (14.0, 0.0, 0.0, None),
        (0.4, 0.5, 0.5, None),
        (0.4, 0.5, 0.6, None),
        (0.4, -0.1, -0.5, None),
        (None, 0.5, 0.0, None),
        (0.4, None, 0.0, None),
        (0.4, float("nan"), 0.0, None),
    ],
)
def test_kept_percent(score, teacher, chance, expected):
    found = kept_percent(score, teacher, chance)
    assert found == (None if expected is None else pytest.approx(expected))


def test_chance_by_hand():
    labels = np.array([1, 1, 1, 0])
    assert chance_score(labels, ACCURACY) == 0.75
    # Precision 3/4, recall 1.
    assert chance_score(labels, F1) == pytest.approx(6 / 7)
    assert chance_score(1 - labels, F1) == 0.0
    assert chance_score(labels, MATTHEWS) == 0.0
    both = mean_of(ACCURACY, F1)
    assert chance_score(labels, both) == pytest.approx((0.75 + 6 / 7) / 2)
    scores = np.array([0.5, 0.5, 3.0])
    assert chance_score(scores, PEARSON) == 0.0
    # SQuAD's labels are zeros, two for each question.
    assert chance_score(np.zeros((3, 2)), lambda labels, said: 1.0) == 0.0


def test_the_most_frequent_masked_token():
    batches = [
        (None, np.array([[7, 7, 5]]), np.array([[1.0, 0.0, 1.0]])),
        (None, np.array([[5, 9, 0]]), np.array([[1.0, 1.0, 0.0]])),
    ]
    # Masked are 7, 5, 5 and 9.
    assert most_frequent_share(batches) == 0.5
    assert most_frequent_share([]) == 0.0


def result(labels, predictions):
    accuracy = float(np.mean(labels == predictions))
    return TaskResult(
        ScoredExamples(labels, predictions[None]), [{"accuracy": accuracy}]
    )


def test_no_ratio_of_a_teacher_at_the_majority_class():
    labels = np.array([1, 1, 1, 0, 1, 1, 1, 0])
    majority = np.ones_like(labels)
    worse = np.array([0, 1, 1, 0, 1, 0, 1, 1])
    rows = make_table(
        {
            "teacher": {
                "sst2": result(labels, majority),
                "rte": result(labels, labels),
            },
            "student": {
                "sst2": result(labels, worse),
                "rte": result(labels, worse),
            },
        },
        {},
    ).rows
    assert [row.tasks["sst2"].retention for row in rows] == [None, None]
    assert rows[1].tasks["rte"].retention == pytest.approx(62.5)
    # The means: 87.5 of the teacher, 75 by chance, 62.5 of the student.
    assert rows[1].macro.retention == pytest.approx(100 * 62.5 / 87.5)
