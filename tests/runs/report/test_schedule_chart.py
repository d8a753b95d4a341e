"""The picture of a recipe's schedules, and the values that it shows."""

import re
import sys

import numpy as np
import pytest

from keras_distil import config
from keras_distil.cli import app
from keras_distil.runs.report import schedule_chart

SCHEDULED = [
    "distill.steps=1000",
    "distill.learning_rate=0.001",
    "distill.warmup_steps=100",
    "distill.decay=linear",
    "distill.losses.mlm.weight=2.0",
    "distill.schedules.soft_target.temperature={kind: linear, start: 4.0, "
    "end: 1.0, steps: 500}",
    "distill.schedules.cosine.weight={kind: piecewise, boundaries: [300], "
    "values: [1.0, 0.25]}",
]


def test_values(shared_toy_recipe):
    recipe = config.load_recipe(shared_toy_recipe, SCHEDULED)
    curves = schedule_chart.compute(recipe)
    steps = curves.steps
    assert (steps[0], steps[-1]) == (0, 999)
    (temperature,) = curves.settings["temperature"]
    np.testing.assert_allclose(
        temperature.values,
        4.0 - 3.0 * np.minimum(steps / 500, 1.0),
        rtol=1e-5,
    )
    weights = {line.name: line.values for line in curves.settings["weight"]}
    assert (weights["mlm_weight"] == 2.0).all()
    # The drop is drawn where it is: both of its sides are points.
    drop = weights["cosine_weight"]
    last = steps[drop == 1.0].max()
    assert steps[drop == 0.25].min() == last + 1
    assert 299 <= last <= 300
    rate = curves.learning_rate.values
    assert rate.max() == pytest.approx(0.001, rel=0.02)
    assert 98 <= steps[rate.argmax()] <= 101
    assert rate[-1] < 2e-6


def main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["keras-distil", *map(str, arguments)])
    status = 0
    try:
        app.main()
    except SystemExit as ended:
        status = ended.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command(shared_toy_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [x for each in SCHEDULED for x in ("--set", each)]
    status, out, err = main(
        monkeypatch, capsys, "plot", shared_toy_recipe, *arguments
    )
    assert (status, err) == (0, "")
    [name] = re.findall(r"Drawn: (\S+_schedules.png)\n", out)
    import matplotlib.image

    image = matplotlib.image.imread(tmp_path / name)
    assert image.shape[:2] == (700, 800)
    # Lines and words on white.
    assert 0.005 < np.mean(image[:, :, :3].min(axis=-1) < 0.9) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--set", "distill.steps=null", "--set", "distill.epochs=1"),
            "counts epochs, .* give their number with --steps.",
        ),
        (
            ("--output", "file/x.png"),
            "file/x.png could not be written: File exists",
        ),
    ],
)
def test_bad_input_is_one_line(
    shared_toy_recipe, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    status, out, err = main(
        monkeypatch, capsys, "plot", shared_toy_recipe, *arguments
    )
    assert (status, out) == (1, "")
    assert re.fullmatch(f"keras-distil: .*({message}).*\n", err)


def test_settings_that_no_loss_has_are_not_drawn(shared_toy_recipe):
    recipe = config.load_recipe(shared_toy_recipe, ["distill.losses={mlm: {}}"])
    curves = schedule_chart.compute(recipe)
    assert list(curves.settings) == ["weight"]
    assert len(schedule_chart.make_figure(curves, size=(4.0, 4.0)).axes) == 2


def test_epochs_with_a_number_of_steps(shared_toy_recipe):
    recipe = config.load_recipe(
        shared_toy_recipe, ["distill.steps=null", "distill.epochs=1"]
    )
    assert schedule_chart.compute(recipe, steps=7).steps.tolist() == list(
        range(7)
    )


def test_without_distillation(shared_toy_recipe):
    recipe = config.load_recipe(shared_toy_recipe)
    with pytest.raises(ValueError, match="distils nothing"):
        schedule_chart.compute(recipe.model_copy(update={"distill": None}))
