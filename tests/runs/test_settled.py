"""What a run settles on its machine, and keeps."""

import json

import pytest
from commands import run_command

from keras_distil import config
from keras_distil.runs import fit, run_folder, settled, stages
from keras_distil.utils.progress import Progress

RATES = {"float32": 100e9, "mixed_bfloat16": 250e9}


@pytest.fixture
def rates(monkeypatch):
    """The rates that a machine is found to have; a test may change them."""
    found = dict(RATES)
    monkeypatch.setattr(settled, "matrix_product_flops", lambda rows: found)
    return found


def open_run(recipe, folder):
    return run_folder.open_run(recipe, folder, Progress(quiet=True))


@pytest.fixture
def auto(toy_recipe):
    return config.load_recipe(toy_recipe, ["precision=auto"])


@pytest.mark.parametrize(
    ("half", "chosen"), [(250e9, "mixed_bfloat16"), (60e9, "float32")]
)
def test_the_faster_precision_is_taken(half, chosen, rates, auto, tmp_path):
    rates["mixed_bfloat16"] = half
    run = open_run(auto, tmp_path / "run")
    settled.settle_precision(run)
    assert run.recipe.precision == chosen
    assert json.loads((run.folder / "settled.json").read_text()) == {
        "precision": {
            "value": chosen,
            "gflops": {"float32": 100.0, "mixed_bfloat16": half / 1e9},
        },
        "jit_compile": None,
        "steps": None,
    }


def test_a_precision_that_fails_is_not_taken(rates, auto, tmp_path):
    del rates["mixed_bfloat16"]
    run = open_run(auto, tmp_path / "run")
    settled.settle_precision(run)
    assert run.recipe.precision == "float32"
    assert str(settled.read_settled(run.folder).precision) == (
        "float32 (matrix products, GFLOP/s: float32 100, mixed_bfloat16 fails)"
    )


def test_it_is_kept_on_a_machine_that_has_changed(rates, auto, tmp_path):
    settled.settle_precision(open_run(auto, tmp_path / "run"))
    rates["mixed_bfloat16"] = 1e9
    run = open_run(auto, tmp_path / "run")
    settled.settle_precision(run)
    assert run.recipe.precision == "mixed_bfloat16"


def test_float32_is_taken_as_it_is_given(rates, toy_recipe, tmp_path):
    rates.clear()
    run = open_run(config.load_recipe(toy_recipe), tmp_path / "run")
    settled.settle_precision(run)
    assert run.recipe.precision == "float32"
    assert not (run.folder / "settled.json").exists()


@pytest.fixture
def half(toy_recipe):
    return config.load_recipe(toy_recipe, ["precision=mixed_bfloat16"])


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (250e9, []),
        (
            60e9,
            [
                "Precision: mixed_bfloat16, as the recipe says, but float32 is "
                "faster here (matrix products, GFLOP/s: float32 100, "
                "mixed_bfloat16 60). `precision: auto` takes the faster one."
            ],
        ),
    ],
)
def test_bfloat16_stays_and_is_told_where_it_is_slower(
    rate, said, rates, half, tmp_path, capsys
):
    rates["mixed_bfloat16"] = rate
    run = run_folder.open_run(half, tmp_path / "run", Progress())
    settled.settle_precision(run)
    assert run.recipe.precision == "mixed_bfloat16"
    assert not (run.folder / "settled.json").exists()
    lines = "".join(capsys.readouterr()).splitlines()
    assert [x for x in lines if "Precision" in x] == said


def test_bfloat16_that_fails_is_refused(rates, half, tmp_path):
    del rates["mixed_bfloat16"]
    run = open_run(half, tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"mixed_bfloat16` fails on this machine.*`auto`"
    ):
        settled.settle_precision(run)


@pytest.mark.slow
def test_a_run_trains_in_it(rates, auto, tmp_path, quick_runs):
    run = open_run(auto, tmp_path / "run")
    stages.run_recipe(run)
    card = (run.folder / "MODEL_CARD.md").read_text()
    assert "Precision mixed_bfloat16" in card
    assert config.load_recipe(run.folder / "recipe.yaml") == auto


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"precision": {"value": "float64", "gflops": {}}}',
        '{"steps": {"value": 0, "student_s": 1, "left_s": 1}}',
        '{"steps": {"value": 5}}',
    ],
)
def test_a_damaged_file_is_one_line(text, auto, tmp_path):
    run = open_run(auto, tmp_path / "run")
    (run.folder / "settled.json").write_text(text)
    with pytest.raises(ValueError, match=r"settled.json is damaged.*--fresh"):
        settled.settle_precision(run)
    fresh = run_folder.open_run(
        auto, run.folder, Progress(quiet=True), fresh=True
    )
    settled.settle_precision(fresh)
    assert fresh.recipe.precision in ("float32", "mixed_bfloat16")


def test_a_rejected_recipe_leaves_a_folder_to_run_in(
    rates, auto, tmp_path, monkeypatch
):
    def reject(recipe):
        raise ValueError("no")

    monkeypatch.setattr(stages.preflight, "check_formats", reject)
    run = open_run(auto, tmp_path / "run")
    with pytest.raises(ValueError, match="^no$"):
        stages.run_recipe(run)
    open_run(
        auto.model_copy(update={"seed": 3}), tmp_path / "run"
    )  # not another recipe's run


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["plan"]])
def test_a_plan_says_what_it_would_choose(command, rates, toy_recipe, capsys):
    name, *options = command
    changes = ["--set", "precision=auto", "--json"]
    status = run_command(name, str(toy_recipe), *options, *changes)
    assert status == 0
    shown = json.loads(capsys.readouterr().out)["recipe"]["precision"]
    measured = (
        "auto: mixed_bfloat16 (matrix products, GFLOP/s: float32 100, "
        "mixed_bfloat16 250)"
    )
    device = "auto: mixed_bfloat16 on a a100"
    assert shown == (device if name == "plan" else measured)


class Trainer:
    """What a run settles of a Distiller."""

    student = None

    def __init__(self, jit_compiled):
        self.jit_compiled = jit_compiled

    def keep_jit_compile(self, jit_compile):
        self.jit_compiled = jit_compile


def test_all_trainings_of_a_run_compile_the_same(toy_recipe, tmp_path):
    run = open_run(config.load_recipe(toy_recipe), tmp_path / "run")
    trainers = [Trainer("products"), Trainer(True), Trainer(False)]
    for trainer in trainers:
        fit.settle_jit_compile(run, trainer)
        assert trainer.jit_compiled == "products"
    assert settled.read_settled(run.folder).jit_compile == "products"


def test_a_run_from_before_the_choice_goes_on_as_it_began(toy_recipe, tmp_path):
    """It compiled what is between the products."""
    run = open_run(config.load_recipe(toy_recipe), tmp_path / "run")
    (run.folder / "checkpoints" / "distill" / "step-1").mkdir(parents=True)
    trainer = Trainer("products")
    fit.settle_jit_compile(run, trainer)
    assert trainer.jit_compiled is True
