"""How many updates fit into the minutes that a recipe gives."""

import json

import numpy as np
import pytest

from keras_distil import config, models
from keras_distil.runs import run_folder, settled, stages, time_plan
from keras_distil.utils.progress import Progress

NOW = 1000.0


@pytest.fixture
def plan(toy_recipe, tmp_path, monkeypatch):
    """Settles a recipe's updates at a given time, from given measurements."""

    def settle(*overrides, trials=((0.5, 4.0), (0.25, 2.0)), rest_s=0.0):
        recipe = config.load_recipe(
            toy_recipe, [*overrides, "distill.warmup_steps=3"]
        )
        run = run_folder.open_run(
            recipe, tmp_path / "run", Progress(quiet=True)
        )
        run.progress.started = NOW - 30.0
        monkeypatch.setattr(time_plan.time, "monotonic", lambda: NOW)
        monkeypatch.setattr(
            time_plan, "_time_updates", lambda run, trial: trial
        )
        time_plan.settle_steps(run, trials, began=NOW - 10.0, rest_s=rest_s)
        return run

    return settle


def test_minutes_of_the_training(plan):
    """60 s, 10 of them spent, 6 to start: 44 s for 0.75 s each."""
    run = plan("distill.minutes=1", rest_s=20.0)
    assert run.recipe.distill.steps == 58
    assert run.recipe.distill.minutes is None
    assert settled.read_settled(run.folder).steps == settled.SettledSteps(
        value=58, student_s=0.5, baseline_s=0.25, left_s=44.0
    )


def test_minutes_of_the_whole_run(plan):
    """120 s, 30 of them spent, 20 for the rest, 6 to start."""
    run = plan("minutes=2", rest_s=20.0)
    assert run.recipe.distill.steps == 85  # 64 / 0.75
    assert run.recipe.minutes is None


def test_without_a_baseline(plan):
    run = plan("distill.minutes=1", trials=[(0.5, 4.0)])
    assert run.recipe.distill.steps == 92  # (50 - 4) / 0.5
    assert settled.read_settled(run.folder).steps.baseline_s is None


def test_a_run_that_goes_on_keeps_its_updates(plan):
    plan("distill.minutes=1")
    run = plan("distill.minutes=1", trials=((50.0, 0.0),))
    assert run.recipe.distill.steps == 58


def test_too_few_minutes(plan):
    """16 s are spent or needed to start; 4 updates take 3 s."""
    message = r"One update takes 0.75 s.*at least 4, .*4 s more"
    with pytest.raises(ValueError, match=message):
        plan("distill.minutes=0.25")


def test_just_enough_minutes(plan):
    assert plan("distill.minutes=0.32").recipe.distill.steps == 4


@pytest.mark.slow
def test_the_student_is_that_of_as_many_steps(
    toy_recipe, tmp_path, quick_runs, monkeypatch
):
    """Nothing of the updates that were timed is left in it."""
    plan = time_plan._plan

    def plan_three(*arguments):
        found = plan(*arguments)
        return found.model_copy(update={"value": 3})

    monkeypatch.setattr(time_plan, "_plan", plan_three)
    weights, metrics = [], []
    overrides = ["distill.minutes=9", "student.dropout=0.2"]
    for name in ("minutes", "steps"):
        recipe = config.load_recipe(
            toy_recipe, ["distill.baseline=true", *overrides]
        )
        run = run_folder.open_run(recipe, tmp_path / name, Progress(quiet=True))
        report = stages.run_recipe(run)
        overrides[0] = f"distill.steps={report['updates']}"
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == [*range(1, report["updates"] + 1)] * 2
        metrics.append([{**json.loads(x), "time": 0} for x in lines])
        weights.append(
            [
                models.load_teacher(run.folder / file).get_weights()
                for file in ("student.keras", "baseline.keras")
            ]
        )
    for one, other in zip(*weights, strict=True):
        for values, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, others)
    losses = [[line["loss"] for line in lines] for lines in metrics]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_too_few_minutes_in_a_run(toy_recipe, tmp_path, quick_runs):
    recipe = config.load_recipe(toy_recipe, ["minutes=0.001"])
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    with pytest.raises(ValueError, match="`minutes` leaves too little time"):
        stages.run_recipe(run)
