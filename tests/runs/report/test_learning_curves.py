"""What is read of `metrics.jsonl`, and how much of it is drawn."""

import json

import numpy as np
import pytest

from keras_distil.runs.report import figures, learning


def write(path, *records):
    lines = [x if isinstance(x, str) else json.dumps(x) for x in records]
    path.write_text("\n".join(lines))
    return path


def test_stages_and_values(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        {"stage": "distill", "step": 1, "loss": 2, "temperature": 1.0},
        {"stage": "baseline", "step": 1, "mlm_loss": 3.5},
        {"stage": "distill", "step": 2, "loss": 1.5, "mlm_accuracy": 0.5},
        '{"stage": "distill", "step": 3, "lo',
    )
    found = learning.read_trainings(path)
    assert list(found) == ["distill", "baseline"]
    assert found["distill"].last_step == 2
    assert list(found["distill"].series) == ["loss", "mlm_accuracy"]
    loss = found["distill"].series["loss"]
    assert (loss.steps.tolist(), loss.values.tolist()) == ([1, 2], [2.0, 1.5])
    assert found["baseline"].series["mlm_loss"].values.tolist() == [3.5]


def test_no_file(tmp_path):
    assert learning.read_trainings(tmp_path / "metrics.jsonl") == {}
    assert figures.learning_curves({}) is None


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "1e999", "true", '"1"', "null", "1e13"]
)
def test_values_that_no_axis_holds(tmp_path, value):
    path = write(
        tmp_path / "metrics.jsonl",
        f'{{"stage": "a", "step": 1, "loss": {value}}}',
        f'{{"stage": "a", "step": 2, "loss": {"9" * 400}}}',
        {"stage": "a", "step": 3, "loss": 1.0},
    )
    series = learning.read_trainings(path)["a"].series["loss"]
    assert series.steps.tolist() == [3]


@pytest.mark.parametrize(
    "line",
    ["", "[]", "1", "{}", '{"stage": 1, "step": 1}', "[" * 9999]
    + [
        f'{{"stage": "a", "step": {step}}}'
        for step in ("0", "-1", "1.5", "true", "null", "9" * 400)
    ],
)
def test_lines_that_are_none(tmp_path, line):
    path = write(tmp_path / "metrics.jsonl", line)
    assert learning.read_trainings(path) == {}


def test_long_trainings_are_thinned_by_means(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        *(
            {"stage": "a", "step": step, "loss": float(step % 2)}
            for step in range(1, 1001)
        ),
    )
    training = learning.read_trainings(path)["a"]
    series = training.series["loss"]
    assert training.last_step == 1000
    assert series.steps.tolist() == list(np.arange(3.0, 1000, 5))
    assert set(np.round(series.values, 6)) == {0.4, 0.6}


def curves(tmp_path, *records):
    path = write(tmp_path / "metrics.jsonl", *records)
    section = figures.learning_curves(learning.read_trainings(path))
    return section.body.split("<figure>")[1:]


def test_the_sum_of_a_single_loss_is_not_drawn(tmp_path):
    one = {"stage": "teacher", "step": 1, "loss": 2.0, "mlm_loss": 2.0}
    drawn = curves(tmp_path, one)
    assert len(drawn) == 1 and "Masked-LM loss" in drawn[0]
    drawn = curves(tmp_path, one | {"cosine_loss": 1.0})
    assert len(drawn) == 3


def test_a_chart_for_each_task(tmp_path):
    drawn = curves(
        tmp_path,
        *(
            {"stage": f"{task}/{row}/seed_{seed}", "step": 1, "label_loss": 1}
            for task in ("rte", "cola")
            for row in ("teacher", "student")
            for seed in (0, 1)
        ),
    )
    # Each row is named once.
    for chart, task in zip(drawn, ("rte", "cola"), strict=True):
        label = f"{task}: loss on the labels over the updates: teacher, student"
        assert f'aria-label="{label}"' in chart
