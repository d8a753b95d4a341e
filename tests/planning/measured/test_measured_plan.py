"""The plan of a recipe from a measured run, and the command."""

import dataclasses
import json

import pytest

from keras_distil.cli import app
from keras_distil.config import load_recipe
from keras_distil.planning import measured
from keras_distil.planning.measured import measured_plan, process
from keras_distil.planning.measured.process import Update

NO_DISTILLATION = [
    "distill=null",
    "student=null",
    "teacher.train={method: adapter, steps: 3, batch_size: 2, "
    "learning_rate: 1e-3}",
]


class FakeRun:
    """Updates with given times, instead of a process."""

    base_gb = 0.5

    def __init__(self, recipe):
        self.recipe = recipe
        self.updates = 0
        self.peak_gb = 0.75

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self):
        self.updates += 1
        self.peak_gb = 1.0
        # The first two are slow, one of the others as well.
        return Update(9.0 if self.updates in (1, 2, 4) else 2.0, 0.2)

    def rates(self):
        # Its own use of the processor does not count.
        self.peak_gb = 7.0
        return {"float32": 1e9, "mixed_bfloat16": 2e9, "bandwidth": 1e8}


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(measured_plan, "MeasuredRecipe", FakeRun)


def test_a_measured_plan(toy_recipe, fake):
    recipe = load_recipe(toy_recipe, ["precision=mixed_bfloat16"])
    calls = []
    measurement = measured.measure(
        recipe, progress=lambda *numbers: calls.append(numbers)
    )
    assert calls == [(done, 7) for done in range(1, 8)]
    assert measurement == measured.Measurement(
        step=measured.step_of(recipe),
        seconds=2.0,
        others=0.2,
        base_gb=0.5,
        peak_gb=1.0,
        matrix_flops=2e9,
        bandwidth=1e8,
        updates=measured_plan.TIMED_UPDATES,
    )


@pytest.mark.parametrize(
    ("batch_size", "micro_batches", "most", "measured"),
    [
        (12, 1, 2048, (12, 1)),
        (12, 3, 2048, (12, 3)),
        # A micro-batch has 48 tokens: two of them, one, a part of one.
        (12, 3, 100, (8, 2)),
        (12, 3, 48, (4, 1)),
        (12, 3, 40, (3, 1)),
        (12, 1, 5, (1, 1)),
    ],
)
def test_a_long_update_is_measured_on_less(
    toy_recipe, monkeypatch, batch_size, micro_batches, most, measured
):
    monkeypatch.setattr(measured_plan, "MOST_TOKENS", most)
    recipe = load_recipe(
        toy_recipe,
        [
            f"distill.batch_size={batch_size}",
            f"distill.micro_batches={micro_batches}",
            "teacher.cache.top_k=4",
        ],
    )
    settings = measured_plan.shorter(recipe).distill
    assert (settings.batch_size, settings.micro_batches) == measured
    assert measured_plan.shorter(recipe).teacher.cache is None


def test_plan_of_what_was_measured(toy_recipe, fake):
    recipe = load_recipe(toy_recipe)
    measurement = measured.measure(recipe)
    found = measured.durations(recipe, measurement)
    assert found["time"]["seconds_per_update"] == 2.0
    # Three updates.
    assert found["time"]["hours"] == round(6 / 3600, 2)
    assert found["memory_gb"]["total"] == 1.0
    assert found["device"]["fits"] == "yes"
    assert found["measured"]["sequences_per_update"] == 4
    assert found["measured"]["processor_used_by_others"] == "20%"
    assert "the machine was busy" in found["measured"]["warning"]
    assert "teacher" not in found["assumptions"]
    shares = found["where_the_time_goes"].values()
    total = sum(float(share.rstrip("%")) for share in shares)
    assert total == pytest.approx(100, abs=0.3)
    quiet = dataclasses.replace(measurement, others=0.01)
    assert "warning" not in measured.durations(recipe, quiet)["measured"]


def test_a_teacher_on_disk_and_too_little_memory(toy_recipe, fake, monkeypatch):
    recipe = load_recipe(toy_recipe, ["teacher.cache.top_k=4"])
    measurement = measured.measure(recipe)
    monkeypatch.setattr(process, "machine_memory", lambda: 0.9e9)
    found = measured.durations(recipe, measurement)
    assert found["time"]["seconds_per_update"] < 2.0
    assert "measured live" in found["assumptions"]["teacher"]
    assert found["device"]["fits"] == "no: raise `distill.micro_batches`"


def test_a_batch_that_never_fits(toy_recipe, fake):
    recipe = load_recipe(toy_recipe, ["distill.batch_size=100000000"])
    with pytest.raises(
        ValueError, match="of 100000000 sequences of 12 tokens needs about .* R"
    ):
        measured.measure(recipe)


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["keras-distil", "plan", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code


@pytest.mark.slow
def test_the_command_measures(toy_recipe, monkeypatch, capsys):
    monkeypatch.setattr(measured_plan, "TIMED_UPDATES", 1)
    assert not run(monkeypatch, str(toy_recipe), "--calibrate", "--json")
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["time"]["seconds_per_update"] > 0
    assert found["measured"]["updates"] == 1
    assert found["memory_gb"]["total"] == pytest.approx(
        found["measured"]["peak_memory_gb"], abs=0.01
    )
    assert "memory_gb_per_device" not in found
    assert "Measuring some updates" in captured.err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--device", "v100"], "--device"),
        (["--devices", "2"], "--devices"),
        (["--efficiency", "0.3"], "--efficiency"),
        (["--devices", "2", "--device", "t4"], "--device and --devices"),
    ],
)
def test_calibration_has_no_other_device(
    toy_recipe, monkeypatch, capsys, more, named
):
    assert run(monkeypatch, str(toy_recipe), "--calibrate", *more) == 1
    assert capsys.readouterr().err == (
        "keras-distil: `--calibrate` measures this machine alone, and goes "
        f"without {named}.\n"
    )


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (NO_DISTILLATION, "'toy' distils nothing, so there is no update to m"),
        (["distill.batch_size=100000000"], "Raise `distill.micro_batches`"),
        (["teacher.source=nowhere"], "`source` must be a local directory"),
    ],
)
def test_bad_recipes_end_in_a_line(
    toy_recipe, monkeypatch, capsys, changed, line
):
    more = [x for value in changed for x in ("--set", value)]
    status = run(monkeypatch, str(toy_recipe), "--calibrate", *more)
    assert status == 1
    captured = capsys.readouterr()
    assert not captured.out
    assert line in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
