"""Figures of classes, labels and entities, against scikit-learn and seqeval."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from keras_distil.evaluation.class_figures import (
    class_figures,
    entity_figures,
    most_confused,
)

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "entities.json").read_text()
)
NAMES = ["a", "b", "c", "d"]


def example(kind):
    generator = np.random.default_rng(1)
    if kind == "labels":
        labels = (generator.random((40, 4)) < 0.3).astype(np.int8)
        said = np.where(generator.random((40, 4)) < 0.8, labels, 1 - labels)
        # One is never there, one never said, one neither.
        labels[:, [0, 2]] = said[:, [1, 2]] = 0
        return labels, said.astype(np.int8)
    labels = generator.choice([0, 1, 3], 40, p=[0.6, 0.3, 0.1])
    if kind == "one answer":
        return labels, np.zeros_like(labels)
    return labels, np.where(generator.random(40) < 0.7, labels, 2)


@pytest.mark.parametrize("kind", ["classes", "one answer", "labels"])
def test_figures_are_those_of_scikit_learn(kind):
    labels, said = example(kind)
    found = class_figures(labels, said, NAMES)
    wanted = metrics.precision_recall_fscore_support(
        labels, said, labels=range(4), average=None, zero_division=0.0
    )
    assert [each.name for each in found] == NAMES
    np.testing.assert_allclose(
        [(x.precision, x.recall, x.f1, x.support) for x in found],
        np.transpose(wanted),
        atol=1e-9,
    )
    counts = said.sum(0) if said.ndim == 2 else np.bincount(said, minlength=4)
    assert [each.predicted for each in found] == counts.tolist()


def test_a_single_label():
    labels, said = np.array([[1], [0], [1]]), np.array([[1], [1], [0]])
    (found,) = class_figures(labels, said, ["a"])
    assert dataclasses.astuple(found) == ("a", 0.5, 0.5, 0.5, 2, 2)


@pytest.mark.parametrize("case", GOLDEN["cases"][::5])
def test_entities_are_those_of_seqeval(case):
    found = entity_figures(case["tags"], case["predicted"])
    types = dict(sorted(case["types"].items()))
    assert [each.name for each in found] == list(types)
    np.testing.assert_allclose(
        [(x.precision, x.recall, x.f1, x.support) for x in found],
        list(types.values()),
        atol=1e-9,
    )


def test_the_most_confused_classes():
    one = np.array([[9, 0, 1, 0], [0, 9, 0, 0], [0, 0, 9, 4], [0, 0, 0, 9]])
    assert most_confused([one], 2).tolist() == [2, 3]
    # Right answers do not count; of equals, the first.
    other = np.diag([50, 60, 70, 80])
    assert most_confused([other], 3).tolist() == [0, 1, 2]
    assert most_confused([other, one], 9).tolist() == [0, 1, 2, 3]
