"""The estimates, against sums written out by hand for a toy teacher."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from keras_distil import benchmark, models
from keras_distil.cli import app
from keras_distil.config import load_recipe
from keras_distil.losses import chunked
from keras_distil.planning import estimate
from keras_distil.planning.devices import DEVICES, Device, find_device

RECIPES = Path(__file__).parents[2] / "recipes"

# `golden_bert` has 2 layers, width 16, 2 heads, 32 within the feed-forward
# part and 64 words.
RECIPE = """\
name: toy
teacher: {source: %s}
data:
  sources:
    - kind: documentation
  sequence_length: 10
distill:
  steps: 7
  batch_size: 12
  micro_batches: 2
  learning_rate: 1e-3
  strategy: mirrored
"""


@pytest.fixture
def toy(tmp_path, golden_bert):
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE % golden_bert, encoding="utf-8")

    def load(*overrides):
        return load_recipe(path, overrides)

    return load


@pytest.fixture
def exact(monkeypatch):
    """Exact bytes and FLOP, not rounded to billions."""
    monkeypatch.setattr(estimate, "_in_billions", lambda parts: parts)


def test_models_are_those_that_would_be_built(toy, golden_bert):
    summary = estimate.summarise(toy())
    teacher = models.load_teacher(golden_bert)
    student = models.initialize_student(teacher)
    counts = [benchmark.parameter_count(m) for m in (teacher, student)]
    assert summary["teacher"]["parameters"] == counts[0]
    assert summary["student"]["parameters"] == counts[1]
    assert summary["student"]["num_layers"] == 1
    assert summary["student"]["fewer_parameters_percent"] == pytest.approx(
        100 * (counts[0] - counts[1]) / counts[0], abs=0.05
    )
    assert summary["teacher"]["source"] == str(golden_bert)
    assert summary["teacher"]["shape_from"].endswith("config.json")


def test_student_of_the_recipe(toy):
    recipe = toy(
        "student.layers=[1, 0]", "student.hidden_dim=8", "student.num_heads=4"
    )
    student = estimate.summarise(recipe)["student"]
    assert (student["num_layers"], student["num_heads"]) == (2, 4)
    # In proportion to the width, as `initialize_student` has it.
    assert (student["hidden_dim"], student["intermediate_dim"]) == (8, 16)


def test_memory(toy, exact):
    # 12 sequences on 2 devices in 2 micro-batches: 3 of 10 tokens at once.
    summary = estimate.summarise(toy(), devices=2)
    weights = 4 * summary["student"]["parameters"]
    teacher = 4 * summary["teacher"]["parameters"]
    layer = 9 * 16 + 2 * 32 + 2.5 * 2 * 10
    assert summary["memory_gb_per_device"] == {
        "teacher_weights": teacher,
        "student_weights": weights,
        "student_gradients": 2 * weights,
        "adamw_moments": 2 * weights,
        # One layer of the student, and one of the teacher.
        "activations": 4 * 30 * 2 * layer,
        "vocabulary_chunk": 4 * 64 * (8 * 30 + 2 * 16),
    }


def test_memory_without_micro_batches_and_in_bfloat16(toy, exact):
    memory = [
        estimate.summarise(toy("distill.micro_batches=1", *more))[
            "memory_gb_per_device"
        ]
        for more in ((), ("precision=mixed_bfloat16",))
    ]
    assert memory[0]["student_gradients"] == memory[0]["student_weights"]
    assert memory[1].pop("activations") == memory[0].pop("activations") / 2
    assert memory[1] == memory[0]


def test_sequences_that_do_not_divide_evenly(toy, exact):
    def activations(devices, micro_batches):
        recipe = toy(f"distill.micro_batches={micro_batches}")
        memory = estimate.summarise(recipe, devices=devices)
        return memory["memory_gb_per_device"]["activations"]

    # 12 on 5 devices: 3 on the fullest, 2 in its larger micro-batch.
    assert activations(5, 2) == 2 * activations(12, 1)


def test_vocabulary_chunk_is_bounded(toy, exact, monkeypatch):
    assert estimate.DEFAULT_CHUNK_SIZE == chunked.DEFAULT_CHUNK_SIZE
    monkeypatch.setattr(estimate, "DEFAULT_CHUNK_SIZE", 11)
    memory = estimate.summarise(toy())["memory_gb_per_device"]
    assert memory["vocabulary_chunk"] == 4 * 64 * (8 * 11 + 2 * 16)


def test_operations(toy, exact):
    layer = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 4 * 10 * 16
    head = 2 * (16 * 16 + 16 * 64)
    assert estimate.summarise(toy())["gflop_per_token"] == {
        "teacher_forward": 2 * layer,
        "student_forward_and_backward": 3 * layer,
        "vocabulary_heads": 4 * head,
    }
    masked = toy(
        "distill.losses.soft_target.positions=masked", "data.masking.rate=0.25"
    )
    operations = estimate.summarise(masked)["gflop_per_token"]
    assert operations["vocabulary_heads"] == head


def test_totals_are_sums_in_billions():
    found = estimate._in_billions({"a": 1.5e9, "b": 2_345_678.0})
    assert found == {"a": 1.5, "b": 0.0023, "total": 1.5023}


def test_tokens_of_steps(toy):
    recipe = toy("distill.baseline=true")
    assert estimate.summarise(recipe)["tokens"] == {
        "distill_per_step": 120,
        "distill_total": 840,
        "baseline": "as many again, without the teacher",
    }


def test_tokens_of_epochs_need_the_corpus(toy):
    recipe = toy("distill.steps=null", "distill.epochs=1.5")
    assert estimate.summarise(recipe)["tokens"] == {
        "distill_per_step": 120,
        "distill_total": "1.5 times the corpus, known once it is prepared",
    }


def test_teacher_training(toy):
    train = (
        "teacher.train={method: adapter, steps: 3, batch_size: 2, "
        "learning_rate: 1e-3}"
    )
    both = estimate.summarise(toy(train))
    assert both["tokens"]["teacher_per_step"] == 20
    assert both["tokens"]["teacher_total"] == 60
    assert both["tokens"]["distill_total"] == 840
    alone = estimate.summarise(toy(train, "distill=null"))
    assert list(alone) == ["recipe", "teacher", "tokens"]
    assert alone["tokens"] == {"teacher_per_step": 20, "teacher_total": 60}


def test_the_papers_recipe_needs_no_network(monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *args: None
    )
    recipe = load_recipe(RECIPES / "distilbert_base_uncased.yaml")
    summary = estimate.summarise(recipe, devices=8)
    assert summary["recipe"]["devices"] == 8
    assert summary["student"]["parameters"] == 66_985_530
    assert summary["student"]["fewer_parameters_percent"] == 39.2
    assert summary["tokens"] == {
        "distill_per_step": 4000 * 512,
        "distill_total": 11_000 * 4000 * 512,
    }


def test_every_recipe_has_a_plan(monkeypatch, golden_bert):
    shape, _ = estimate.encoder_shape(golden_bert)
    long = dataclasses.replace(shape, max_sequence_length=512, num_layers=12)
    for name in ("teacher_shape", "encoder_shape"):
        monkeypatch.setattr(estimate, name, lambda given: (long, "toy"))
    paths = sorted(RECIPES.glob("*.yaml"))
    assert paths
    for path in paths:
        recipe = load_recipe(path, ["data.root=texts"])
        summary = estimate.summarise(recipe)
        assert all(isinstance(part, dict) for part in summary.values())


@pytest.mark.parametrize(
    ("overrides", "devices", "error", "message"),
    [
        ((), 0, ValueError, "`devices` must be at least 1. Received: .*=0"),
        ((), 1.0, TypeError, "`devices` must be an integer. Received: .*1.0"),
        ((), True, TypeError, "`devices` must be an integer. .*=True"),
        (
            ("distill.strategy=none",),
            2,
            ValueError,
            "`devices` above 1 needs `distill.strategy: mirrored`.* devices=2",
        ),
        (
            ("data.sequence_length=13",),
            1,
            ValueError,
            "`data.sequence_length` must be at most 12, .* Received: 13",
        ),
        (("student.num_layers=3",), 1, ValueError, "from 1 to the teacher's 2"),
        (("teacher.source=nowhere",), 1, ValueError, "`source` must be a loc"),
    ],
)
def test_what_can_not_be_run(toy, overrides, devices, error, message):
    with pytest.raises(error, match=message):
        estimate.summarise(toy(*overrides), devices=devices)


DEVICE = Device("toy", 2e-6, 4e-6, 1e-3, 1.0)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_time_by_hand(toy, precision):
    recipe = toy(f"precision={precision}", "distill.micro_batches=1")
    found = estimate.durations(recipe, device=DEVICE, devices=2, efficiency=0.5)
    summary = estimate.summarise(recipe, devices=2)
    a_token = 1e9 * summary["gflop_per_token"]["total"]
    rate = 2 * 0.5 * (2e6 if precision == "float32" else 4e6)
    # 12 sequences of 10 tokens.
    arithmetic = 120 * a_token / rate
    optimizer = 28 * summary["student"]["parameters"] / 1e6
    step = arithmetic + optimizer
    time = found["time"]
    assert time["seconds_per_update"] == pytest.approx(step, rel=1e-3)
    assert time["tokens_per_second"] == round(120 / time["seconds_per_update"])
    assert time["hours"] == pytest.approx(7 * step / 3600, abs=0.005)
    assert time["device_hours"] == pytest.approx(14 * step / 3600, abs=0.005)
    shares = found["where_the_time_goes"]
    assert shares["optimizer"] == f"{100 * optimizer / step:.1f}%"
    total = sum(float(share.rstrip("%")) for share in shares.values())
    assert total == pytest.approx(100, abs=0.3)
    assert found["device"]["fits"] == "yes"


def test_micro_batches_add_to_the_gradient(toy):
    once = estimate.durations(toy("distill.micro_batches=1"), device=DEVICE)
    often = estimate.durations(toy("distill.micro_batches=4"), device=DEVICE)
    parameters = estimate.summarise(toy())["student"]["parameters"]
    more = (
        often["time"]["seconds_per_update"] - once["time"]["seconds_per_update"]
    )
    assert more == pytest.approx(4 * 12 * parameters / 1e6, rel=1e-2)


def test_epochs_have_hours_by_the_token(toy):
    recipe = toy("distill.steps=null", "distill.epochs=2")
    time = estimate.durations(recipe, device=DEVICE)["time"]
    assert time["hours"] == "known once the corpus is prepared"
    updates = 1e9 / 120
    assert time["hours_per_billion_tokens"] == pytest.approx(
        updates * time["seconds_per_update"] / 3600, rel=1e-3
    )


def test_the_papers_order():
    recipe = load_recipe(RECIPES / "distilbert_base_uncased.yaml")
    found = estimate.durations(recipe, device=DEVICES["v100"], devices=8)
    assert "has no units for bfloat16" in found["assumptions"]["precision"]
    assert found["device"]["fits"] == "yes"
    # The authors took about 90 hours.
    assert 60 < found["time"]["hours"] < 130


@pytest.mark.parametrize("efficiency", [0.0, 1.5, float("nan")])
def test_bad_efficiency(toy, efficiency):
    with pytest.raises(ValueError, match="above 0 and at most 1. Received: ef"):
        estimate.durations(toy(), device=DEVICE, efficiency=efficiency)


def test_nothing_to_plan(toy):
    recipe = toy().model_copy(update={"distill": None})
    with pytest.raises(
        ValueError, match="distils nothing, so there is no time"
    ):
        estimate.durations(recipe, device=DEVICE)
    with pytest.raises(
        ValueError, match="distils nothing, so there is no time"
    ):
        estimate.time_of(recipe, 1.0)


def test_devices_by_name():
    assert find_device("A100").bfloat16_tflops == 312.0
    assert find_device("TPU-v4").name == "tpu_v4"
    with pytest.raises(
        ValueError, match="one of v100, .* Did you mean 'v100'. Received: 'v10'"
    ):
        find_device("v10")
    with pytest.raises(ValueError, match="tpu_v4. Received: 'abacus'"):
        find_device("abacus")


def test_the_command(toy, tmp_path, monkeypatch, capsys):
    path = tmp_path / "toy.yaml"
    monkeypatch.setattr(
        "sys.argv",
        ["keras-distil", "plan", str(path), "--device", "v100"],
    )
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert not ended.value.code
    said = capsys.readouterr().out
    for words in ("seconds_per_update", "where_the_time_goes", "0.4 of the pe"):
        assert words in said
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--json"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert all(title in said for title in found)
