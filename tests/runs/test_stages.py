import json

import pytest

from keras_distil import config
from keras_distil.runs import run_folder, stages
from keras_distil.runs.environment import describe_environment
from keras_distil.utils.progress import Progress


@pytest.fixture
def recipe(toy_recipe):
    return config.load_recipe(toy_recipe)


def test_a_run_that_never_started_leaves_nothing_aside(recipe, tmp_path):
    folder = tmp_path / "run"
    run_folder.open_run(recipe, folder, Progress(quiet=True))
    run_folder.open_run(recipe, folder, Progress(quiet=True))
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]


def test_the_resolved_recipe_can_be_run_again(recipe, tmp_path):
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    assert config.load_recipe(run.folder / "recipe.yaml") == recipe


def test_the_environment_is_told(recipe):
    found = describe_environment(recipe)
    assert {"python", "keras-distil", "tensorflow"} <= set(found["versions"])
    assert found["hardware"]["cpu_cores"] >= 1
    assert found["hardware"]["memory_gb"] > 0
    assert found["seed"] == recipe.seed


def test_a_teacher_without_positions_for_the_text_is_refused(
    toy_recipe, tmp_path
):
    longer = config.load_recipe(toy_recipe, ["data.sequence_length=13"])
    run = run_folder.open_run(longer, tmp_path / "run", Progress(quiet=True))
    with pytest.raises(ValueError, match="is 13, but the teacher has 12"):
        stages.run_recipe(run)


def test_a_foreign_vocabulary_is_refused(toy_recipe, toy_teacher, tmp_path):
    vocabulary = toy_teacher / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text() + "more\n")
    run = run_folder.open_run(
        config.load_recipe(toy_recipe), tmp_path / "run", Progress(quiet=True)
    )
    with pytest.raises(ValueError, match="has 65 entries, but the teacher's"):
        stages.run_recipe(run)


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.slow
@pytest.mark.essential
def test_a_recipe_balances_its_losses(toy_recipe, tmp_path):
    recipe = config.load_recipe(
        toy_recipe,
        ["distill.balance={mlm: 1, cosine: 3, every_steps: 2}"],
    )
    run = run_folder.open_run(recipe, tmp_path / "run", Progress(quiet=True))
    stages.run_recipe(run)
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    weights = [
        [
            json.loads(line)[f"{name}_weight"]
            for name in ("mlm", "soft_target", "cosine")
        ]
        for line in lines
    ]
    assert all(sum(found) == pytest.approx(3.0) for found in weights)
    # Before the first update, and after the second of three.
    assert weights[0] != [1.0, 1.0, 1.0]
    assert weights[0] == weights[1] != weights[2]
