"""One metric has one name, wherever it is shown."""

import inspect

import pytest

from keras_distil import losses
from keras_distil.losses import registry
from keras_distil.training.metrics import TABLE, find_metric


@pytest.mark.parametrize(
    ("name", "value", "title", "written"),
    [
        ("mlm_accuracy", 0.4567, "Masked-word accuracy, %", "45.7"),
        ("mlm_loss", 2.34567, "Masked-LM loss, nats", "2.346"),
        ("teacher_agreement", 1.0, "Agreement with the teacher, %", "100.0"),
        ("parameters", 66_362_880, "Parameters", "66.4 M"),
        ("parameters", 1234, "Parameters", "1.2 k"),
        ("size_mb", 253.149, "Size, MB", "253.1"),
        ("latency_ms", 3.149, "CPU latency, ms", "3.15"),
        # A divergence or a squared error, so without a unit.
        ("soft_target_loss", 0.5, "Soft-target loss", "0.500"),
        ("cosine_loss", 0.5, "Cosine distance of states", "0.500"),
        # Crossentropy or squared error, so without a unit.
        ("label_loss", 0.5, "Loss on the labels", "0.500"),
        ("own_statistic", 0.5, "Own statistic", "0.500"),
    ],
)
def test_titles_and_formats(name, value, title, written):
    metric = find_metric(name)
    assert metric.title == title
    assert metric.format(value) == written


def test_charts_of_shares_have_no_percent():
    assert find_metric("accuracy").chart_title == "Accuracy"
    assert find_metric("mlm_loss").chart_title == "Masked-LM loss, nats"
    of_text = find_metric("soft_target_loss", kinds=["masked_lm"])
    assert of_text.chart_title == "Soft-target loss, nats"


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("loss", "down"),
        ("mlm_loss", "down"),
        ("mean_absolute_error", "down"),
        ("accuracy", "up"),
        ("teacher_agreement", "up"),
        ("temperature", None),
        ("soft_target_inverse_confidence", None),
    ],
)
def test_what_is_better(name, better):
    assert find_metric(name).better == better


class Own(losses.LogitsLoss):
    caption = "my distance"
    unit = "miles"


class Silent(losses.LogitsLoss):
    pass


def test_a_loss_of_ones_own_has_its_own_caption():
    made = [Own(weight=1.0, name="far"), Silent(weight=1.0, name="soft_one")]
    assert find_metric("far_loss", made).title == "My distance, miles"
    assert find_metric("far_loss", made).better == "down"
    assert find_metric("soft_one_loss", made).title == "Soft one loss"
    assert find_metric("far_loss").better is None


def test_every_loss_has_a_caption():
    for row in registry.ROWS:
        kind = registry.loss_class(row.name, row.kinds[0])
        assert not inspect.isabstract(kind)
        assert kind.caption, row.name


def test_the_table_is_known():
    titles = [find_metric(name).title for name in TABLE]
    assert len(set(titles)) == len(TABLE)
