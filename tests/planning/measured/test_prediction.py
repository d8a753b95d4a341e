"""Predictions from a given measurement."""

import dataclasses

import pytest
from test_costs import STEP

from keras_distil.planning.measured import costs, prediction

MEASURED = prediction.Measurement(
    step=STEP,
    seconds=3.0,
    others=0.0,
    base_gb=0.8,
    peak_gb=1.5,
    matrix_flops=1e9,
    bandwidth=1e8,
    updates=5,
)


def changed(**values):
    return dataclasses.replace(STEP, **values)


def test_what_was_measured_is_predicted():
    found = prediction.predict(MEASURED, STEP)
    assert found.step_s == pytest.approx(3.0)
    assert found.peak_gb == pytest.approx(1.5)
    assert found.memory_gb["program"] == 0.8
    assert set(found.seconds) == set(costs.arithmetic(STEP))


def test_slowness_by_hand():
    ideal = sum(costs.arithmetic(STEP).values()) / 1e9
    ideal += sum(costs.traffic(STEP).values()) / 1e8
    assert prediction.slowness(MEASURED) == pytest.approx(3.0 / ideal)


def test_parts_are_of_the_other_step():
    other = changed(sequences=60)
    found = prediction.predict(MEASURED, other)
    for name, seconds in found.seconds.items():
        ideal = costs.arithmetic(other)[name] / 1e9
        ideal += costs.traffic(other)[name] / 1e8
        assert seconds == pytest.approx(prediction.slowness(MEASURED) * ideal)
    more = found.peak_gb - MEASURED.peak_gb
    assert more == pytest.approx(
        (costs.memory(other)["activations"] - costs.memory(STEP)["activations"])
        / 1e9
    )


def test_a_measurement_counts_for_its_precision():
    with pytest.raises(ValueError, match="Received: float32 for a step in mi"):
        prediction.predict(MEASURED, changed(precision="mixed_bfloat16"))
