"""Expected calibration error, by hand and against a plain loop."""

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from toy import randomize

from keras_distil import models
from keras_distil.evaluation import (
    expected_calibration_error,
    masked_lm_calibration,
)
from keras_distil.evaluation.calibration import first_choices
from keras_distil.models import forward


@pytest.mark.parametrize(
    ("confidences", "correct", "expected"),
    [
        ([1.0, 1.0], [1, 1], 0.0),
        ([1.0, 1.0], [0, 0], 1.0),
        # 0.3 and 0.35 share a bin of five; 0.9 has a separate one.
        ([0.3, 0.35, 0.9], [1, 0, 1], (2 * 0.175 + 0.1) / 3),
        # An edge belongs to the bin below: 0.2 goes with 0.1.
        ([0.1, 0.2], [0, 1], abs(0.5 - 0.15)),
        ([0.0], [0], 0.0),
    ],
)
def test_by_hand(confidences, correct, expected):
    found = expected_calibration_error(confidences, correct, bins=5)
    assert found == pytest.approx(expected, abs=1e-12)


def test_against_a_loop():
    generator = np.random.default_rng(0)
    confidences = generator.uniform(size=500)
    correct = generator.uniform(size=500) < confidences**2
    total = 0.0
    for index in range(15):
        inside = (confidences > index / 15) & (confidences <= (index + 1) / 15)
        if inside.any():
            gap = correct[inside].mean() - confidences[inside].mean()
            total += inside.mean() * abs(gap)
    found = expected_calibration_error(confidences, correct)
    assert found == pytest.approx(total, abs=1e-9)
    assert found > 0.1


@pytest.mark.parametrize(
    ("confidences", "correct", "message"),
    [
        ([], [], "at least 1"),
        ([0.5], [1, 0], r"shapes \(1,\) and \(2,\)"),
        ([0.5, 1.5], [1, 0], "from 0 to 1. Received: from 0.5 to 1.5"),
        ([float("nan")], [1], "from 0 to 1"),
    ],
)
def test_bad_input(confidences, correct, message):
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidences, correct)


def test_first_choices():
    logits = np.log([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]) + 1000.0
    chosen, confidences = first_choices(logits)
    assert chosen.tolist() == [1, 0]
    np.testing.assert_allclose(confidences, [0.7, 0.5], rtol=1e-9)


def test_masked_words():
    backbone = keras_hub.models.DistilBertBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    model = randomize(models.ExactDistilBertMaskedLM(backbone), seed=1)
    generator = np.random.default_rng(1)
    batches = []
    confidences, correct = [], []
    for _ in range(2):
        x = {
            "token_ids": generator.integers(0, 20, (3, 8), np.int32),
            "padding_mask": np.ones((3, 8), np.int32),
        }
        y = generator.integers(0, 20, (3, 8), np.int32)
        weight = (generator.uniform(size=(3, 8)) < 0.4).astype(np.float32)
        batches.append((x, y, weight))
        logits = np.asarray(forward.logits(model, x), np.float64)
        probabilities = np.exp(logits - logits.max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        confidences.append(probabilities.max(-1)[weight > 0])
        correct.append((logits.argmax(-1) == y)[weight > 0])
    dataset = tf.data.Dataset.from_tensors(batches[0]).concatenate(
        tf.data.Dataset.from_tensors(batches[1])
    )
    assert masked_lm_calibration(model, dataset) == pytest.approx(
        expected_calibration_error(
            np.concatenate(confidences), np.concatenate(correct)
        ),
        abs=1e-5,
    )
