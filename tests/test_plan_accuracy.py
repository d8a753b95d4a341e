"""The benchmark of a measured plan's accuracy."""

import sys
from pathlib import Path

import pytest

from keras_distil.planning.measured.process import Update

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(SCRIPTS))

import plan_accuracy  # noqa: E402


def test_cases_are_read_and_become_recipes():
    case = plan_accuracy.Case.parse("8x128x2")
    assert str(case) == "8x128x2"
    recipe = case.recipe("float32")
    assert recipe.distill.batch_size == 8
    assert recipe.data.sequence_length == 128
    assert recipe.student.num_layers == 2
    assert plan_accuracy.MEASURED not in plan_accuracy.CASES


class Scripted:
    """Answers with given updates."""

    def __init__(self, *updates):
        self._updates = iter(updates)

    def update(self):
        return next(self._updates)


def test_noisy_rounds_do_not_count(monkeypatch):
    monkeypatch.setattr(plan_accuracy, "SECONDS_BETWEEN_TRIES", 0)
    turns = plan_accuracy.Rounds(
        (
            Scripted(*(Update(1.0 + x, 0.0) for x in range(4))),
            Scripted(
                Update(5.0, 0.01),
                Update(9.0, 0.5),
                Update(6.0, 0.02),
                Update(7.0, 0.0),
            ),
        ),
        tries=9,
    )
    turns.run(3)
    times, others = turns.results()
    assert sorted(times) == [[1.0, 5.0], [3.0, 6.0], [4.0, 7.0]]
    assert others == 0.01


def test_the_least_noisy_count_where_none_is_quiet(monkeypatch):
    monkeypatch.setattr(plan_accuracy, "SECONDS_BETWEEN_TRIES", 0)
    noise = [0.4, 0.2, 0.9, 0.3]
    turns = plan_accuracy.Rounds(
        (
            Scripted(*(Update(1.0, 0.0) for _ in noise)),
            Scripted(*(Update(x, x) for x in noise)),
        ),
        tries=4,
    )
    turns.run(3)
    times, others = turns.results()
    assert times == [[1.0, 0.2], [1.0, 0.3], [1.0, 0.4]]
    assert others == 0.3


def test_table():
    row = {
        "precision": "float32",
        "batch": 8,
        "length": 64,
        "layers": 3,
        "predicted_s": 0.5,
        "measured_s": 0.4,
        "time_ratio": 1.25,
        "predicted_gb": 1.9,
        "measured_gb": 2.0,
        "memory_ratio": 0.95,
    }
    text = plan_accuracy.markdown([row])
    assert "| 0.500 | 0.400 | 1.25 | 1.90 | 2.00 | 0.95 |" in text
    assert "time 25%, memory 5% (aim: 15%)" in text


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--tries", "2"]])
def test_bad_arguments(monkeypatch, capsys, arguments):
    monkeypatch.setattr("sys.argv", ["plan_accuracy.py", *arguments])
    with pytest.raises(SystemExit):
        plan_accuracy.parse_arguments()
    said = capsys.readouterr().err
    assert "--rounds: must be at least 1, and at most --tries" in said
