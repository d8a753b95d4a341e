"""Metrics of tasks from files, against scikit-learn and seqeval."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from keras_distil.evaluation import task_metrics
from keras_distil.evaluation.entities import (
    check_entity_tags,
    count_entities,
    find_entities,
)

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "entities.json").read_text()
)


def f1(average):
    return lambda labels, said: metrics.f1_score(
        labels, said, average=average, zero_division=0.0
    )


REFERENCE = {
    "accuracy": metrics.accuracy_score,
    "macro_f1": f1("macro"),
    "weighted_f1": f1("weighted"),
    "matthews": metrics.matthews_corrcoef,
    "pearson": lambda a, b: stats.pearsonr(a, b).statistic,
    "spearman": lambda a, b: stats.spearmanr(a, b).statistic,
    "mean_absolute_error": metrics.mean_absolute_error,
}
CLASSES = ("accuracy", "macro_f1", "weighted_f1", "matthews")
SEVERAL = ("accuracy", "macro_f1", "weighted_f1")
NUMBERS = ("pearson", "spearman", "mean_absolute_error")


def example(metric, seed, count=40):
    generator = np.random.default_rng(seed)
    if metric in NUMBERS:
        labels = generator.normal(size=count).round(1).astype(np.float32)
        noise = generator.normal(size=count).round(1)
        return labels, (labels + noise).astype(np.float32)
    # The last class is never there, the one before never said.
    labels = generator.choice([0, 1, 2, 3], count, p=[0.6, 0.2, 0.1, 0.1])
    said = np.where(generator.random(count) < 0.6, labels, 0)
    said[said == 3] = 1
    return labels, said


def draws(seed, examples):
    generator = np.random.default_rng(seed)
    return generator.integers(examples, size=(20, examples))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", REFERENCE)
def test_scores_are_those_of_scikit_learn(metric, seed):
    labels, said = example(metric, seed)
    wanted = REFERENCE[metric](labels, said)
    assert task_metrics.score(metric, labels, said) == pytest.approx(
        wanted, abs=1e-9
    )
    counted = task_metrics.COUNTED[metric]
    sign = -1 if metric in task_metrics.ERRORS else 1
    # float32 numbers are subtracted before they become float64.
    assert sign * counted(labels, said) == pytest.approx(wanted, abs=1e-7)
    rows = draws(seed, len(labels))
    counts = np.stack([np.bincount(x, minlength=len(labels)) for x in rows])
    found = counted.by_counts(labels, said, counts.astype(np.float64))
    np.testing.assert_allclose(
        sign * found,
        [REFERENCE[metric](labels[x], said[x]) for x in rows],
        atol=1e-6 if metric in NUMBERS else 1e-9,
    )


@pytest.mark.parametrize("metric", SEVERAL)
def test_several_labels(metric):
    generator = np.random.default_rng(5)
    labels = (generator.random((40, 5)) < 0.3).astype(np.int8)
    labels[:, 4] = 0
    said = np.where(generator.random((40, 5)) < 0.8, labels, 1 - labels)
    said = said.astype(np.int8)
    wanted = REFERENCE[metric](labels, said)
    assert task_metrics.score(metric, labels, said) == pytest.approx(
        wanted, abs=1e-9
    )
    counted = task_metrics.COUNTED[metric]
    assert counted(labels, said) == pytest.approx(wanted, abs=1e-9)
    rows = draws(1, 40)
    counts = np.stack([np.bincount(x, minlength=40) for x in rows])
    np.testing.assert_allclose(
        counted.by_counts(labels, said, counts.astype(np.float64)),
        [REFERENCE[metric](labels[x], said[x]) for x in rows],
        atol=1e-9,
    )


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlations_of_constants_are_0(metric):
    constant, other = np.ones(5, np.float32), np.arange(5, dtype=np.float32)
    assert task_metrics.score(metric, constant, other) == 0.0
    assert task_metrics.score(metric, other, constant) == 0.0


def test_log_loss():
    generator = np.random.default_rng(2)
    logits = (10.0 * generator.normal(size=(30, 4))).astype(np.float32)
    logits[0] = [200.0, 0.0, 0.0, 0.0]
    labels = generator.integers(4, size=30)
    labels[0] = 1
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1)[:, None])
    wanted = metrics.log_loss(
        labels, powers / powers.sum(axis=1)[:, None], labels=range(4)
    )
    losses = task_metrics.log_losses(labels, logits)
    assert losses.mean() == pytest.approx(wanted, abs=1e-9)
    zeros = np.zeros(30, np.float32)
    counted = task_metrics.COUNTED["log_loss"]
    assert counted(zeros, losses) == pytest.approx(-wanted, abs=1e-9)


# === Entities ===


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_entities_are_those_of_seqeval(case):
    counts = []
    for true, said in zip(case["tags"], case["predicted"], strict=True):
        counts.append(count_entities(true, said))
    counts = np.stack(counts)
    assert task_metrics.entity_f1(counts) == pytest.approx(case["f1"], abs=1e-9)
    found = sorted(
        [kind, begin, end]
        for tags in case["tags"][:1]
        for kind, begin, end in find_entities(tags)
    )
    assert found == case["entities"]
    counted = task_metrics.COUNTED["entity_f1"]
    labels = np.zeros((len(counts), 1), np.float32)
    assert counted(labels, counts) == pytest.approx(case["f1"], abs=1e-9)


def test_no_entities_at_all():
    assert task_metrics.entity_f1(np.zeros((3, 3))) == 0.0


def test_tags_that_mark_no_entities():
    check_entity_tags(["O", "B-PER", "I-PER", "E-a-b", "S"], "mine")
    with pytest.raises(ValueError, match="mine: .* such as B-PER. Rec.*'NOUN'"):
        check_entity_tags(["O", "NOUN"], "mine")
