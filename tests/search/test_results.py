"""The summary, table and picture of a search."""

import io
import types

import pytest
import rich.console

from keras_distil import config
from keras_distil.config.finetune_section import FineTuneSection
from keras_distil.search import results

KEYS = ("distill.losses.soft_target.temperature", "student.layers")


def row(name, score, **values):
    made = {"name": name, "values": values, "score": score}
    if score is None:
        return {**made, "message": "Training stopped at step 3."}
    check = {"check_teacher_agreement": score - 0.01}
    return {**made, "scores": {"duration_s": 7.0, **check}}


def search(*rows, best=None, **more):
    return {
        "name": "toy",
        "objective": "teacher_agreement",
        "metric": "held_out_teacher_agreement",
        "direction": "max",
        "trials": list(rows),
        "best": best,
        **more,
    }


def trial(name, score, temperature, layers):
    values = dict(zip(KEYS, (temperature, layers), strict=True))
    return {**row(name, score), "values": values}


def test_the_gain_is_reported():
    found = search(
        row("recipe", 0.40),
        trial("trial_0", 0.35, 1.0, "first"),
        trial("trial_1", None, 2.0, "last"),
        trial("trial_2", 0.45, 4.0, "last"),
        best=3,
    )
    lines = " ".join(results.summary(found))
    assert "3 trials, 1 without a score" in lines
    assert "40.00% with the recipe's own values, 45.00%" in lines
    assert "trial_2, which was chosen for it: +5.00 points." in lines
    # From the text that was not used to choose.
    assert "39.00% and 44.00%, +5.00 points." in lines
    made = rich.console.Console(file=io.StringIO(), width=150)
    made.print(results.make_table(found))
    text = made.file.getvalue()
    for part in ("temperature", "layers", "45.00%", "stopped at step 3"):
        assert part in text


def test_losses_and_tasks_are_reported_in_their_units():
    made = trial("trial_0", 2.5, 1.0, "first")
    made["scores"]["check_mlm_loss"] = 2.6
    before = row("recipe", 2.75)
    before["scores"]["check_mlm_loss"] = 2.7
    found = search(before, made, best=1, objective="mlm_loss", direction="min")
    lines = " ".join(results.summary(found))
    assert "2.750 with the recipe's own values, 2.500" in lines
    assert "which was chosen for it: -0.250." in lines
    assert "2.700 and 2.600, -0.100." in lines
    # A task's development set has no other half.
    task = search(row("recipe", 0.5), trial("t", 0.6, 1.0, "last"), best=1)
    lines = " ".join(results.summary({**task, "objective": "rte"}))
    assert "60.00%" in lines and "no trial was chosen" not in lines


def test_errors_of_a_task_are_shown_as_they_are():
    """Inside, an error counts negative."""
    rows = [row("recipe", -0.75), trial("trial_0", -0.5, 1.0, "first")]
    found = search(*rows, best=1, objective="stars", is_error=True)
    lines = " ".join(results.summary(found))
    assert "objective: stars (error) (min)" in lines
    assert "0.750 with the recipe's own values, 0.500 with those" in lines
    assert "chosen for it: -0.250." in lines
    made = rich.console.Console(file=io.StringIO(), width=150)
    made.print(results.make_table(found))
    text = made.file.getvalue()
    assert "stars (error)" in text and "0.500" in text and "0.750" in text
    for shown in (lines, text):
        assert "%" not in shown and "-0.5" not in shown and "-50" not in shown


@pytest.mark.parametrize(
    ("metric", "expected"), [("mean_absolute_error", True), ("pearson", False)]
)
def test_the_objective_knows_errors(metric, expected):
    entry = {"name": "stars", "kind": "regression", "train": "a.csv"}
    recipe = types.SimpleNamespace(
        finetune=FineTuneSection(tasks=[{**entry, "metric": metric}]),
        search=config.SearchSection(
            objective="stars",
            space={"distill.batch_size": {"choices": [1, 2]}},
        ),
    )
    assert results.counts_errors(recipe) is expected
    recipe.finetune = None
    assert results.counts_errors(recipe) is False


def test_errors_are_drawn_as_they_are(tmp_path, monkeypatch):
    drawn = []

    def record(axes, columns):
        drawn.append(columns)

    monkeypatch.setattr(results, "_draw_axes", record)
    rows = [row("recipe", -0.75), trial("t", -0.5, 1.0, "first")]
    found = search(*rows, trial("u", -1.0, 1.0, "last"), is_error=True)
    results.draw(found, tmp_path / "trials.png")
    places, ticks = drawn[0][-1]
    # The worst first.
    assert places == [1.0, 0.0]
    assert [text for _, text in ticks] == ["0.5", "0.625", "0.75", "0.875", "1"]


@pytest.mark.parametrize(
    ("rows", "best", "said"),
    [
        ([row("recipe", None), row("trial_0", None)], None, "No trial has"),
        ([row("recipe", None), row("trial_0", 0.4)], 1, "no score to comp"),
    ],
)
def test_what_has_failed_is_reported(rows, best, said):
    assert said in " ".join(results.summary(search(*rows, best=best)))


@pytest.mark.parametrize(
    "rows",
    [
        [row("recipe", None), row("trial_0", None)],
        [row("recipe", 0.4), row("trial_0", None)],
        [row("recipe", 0.4), trial("trial_0", 0.4, 2.0, "last")],
        [
            row("recipe", None),
            trial("trial_0", 0.3, 1.0e-5, "last"),
            trial("trial_1", 0.5, 1.0, "first"),
            trial("trial_2", 0.4, 3, "[1, 2]"),
        ],
    ],
)
def test_a_picture_of_any_trials(rows, tmp_path):
    path = tmp_path / "trials.png"
    results.draw(search(*rows), path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [x.name for x in tmp_path.iterdir()] == ["trials.png"]


def test_places_on_an_axis():
    places, ticks = results._axis([1.0, 10.0, 100.0])
    # A wide range of positive numbers is drawn by its logarithm.
    assert places == pytest.approx([0.0, 0.5, 1.0])
    assert [text for _, text in ticks] == ["1", "3.16", "10", "31.6", "100"]
    places, ticks = results._axis([2, 3, 4, 3])
    assert places == pytest.approx([0.0, 0.5, 1.0, 0.5])
    assert ticks == [(0.0, "2"), (0.5, "3"), (1.0, "4")]
    assert results._axis(["b", "a"]) == ([1.0, 0.0], [(0.0, "a"), (1.0, "b")])
