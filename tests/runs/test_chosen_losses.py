"""Runs that learn from some of the losses alone."""

import json

import pytest
from commands import keras_distil

SCHEDULE = "{kind: linear, start: 4, end: 1, steps: 2}"


@pytest.mark.parametrize(
    ("losses", "names"),
    [
        ("{mlm: {}}", ["mlm"]),
        pytest.param(
            "{soft_target: {positions: masked}}",
            ["soft_target"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "{cosine: {}, soft_target: {weight: 0}}",
            ["soft_target", "cosine"],
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_a_run_learns_from_what_its_recipe_names(
    toy_recipe, tmp_path, capsys, quick_runs, losses, names
):
    folder = tmp_path / "run"
    changes = [f"distill.losses={losses}"]
    if "soft_target" in names:
        changes += [f"distill.schedules.soft_target.temperature={SCHEDULE}"]
    sets = [word for change in changes for word in ("--set", change)]
    command = ("run", toy_recipe, "--output", folder, *sets)
    status, _, err = keras_distil(capsys, *command)
    assert status == 0, err
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    values = json.loads(lines[-1])
    assert [
        name.removesuffix("_loss") for name in values if name.endswith("_loss")
    ] == names
    assert [name for name in values if name.endswith("_weight")] == [
        f"{name}_weight" for name in names
    ]
    card = (folder / "MODEL_CARD.md").read_text()
    assert ("temperature 2" in card) == ("soft_target" in names)
