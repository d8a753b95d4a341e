"""The benchmark of a step: same data, same losses, and that it runs."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_distil import losses
from keras_distil.models.architectures import FAMILIES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from contestants import process, report, shapes, turns  # noqa: E402

TOY = shapes.MODELS["toy"]


@pytest.mark.parametrize("padding", [0.0, 0.25, 0.4])
def test_padding_is_what_was_asked_for(padding):
    data = shapes.make_data(shapes.Shape(TOY, 6, 20, padding=padding))
    real = data.padding_mask.sum((1, 2))
    assert set(real) == {round((1 - padding) * 6 * 20)}
    # Real tokens come first in every row.
    assert (np.diff(data.padding_mask, axis=-1) <= 0).all()
    if padding:
        assert len(np.unique(data.padding_mask.sum(-1))) > 3


def test_masks():
    data = shapes.make_data(shapes.Shape(TOY, 6, 20, padding=0.4))
    assert (data.token_ids[data.masked] == shapes.MASK_ID).all()
    np.testing.assert_array_equal(
        data.token_ids[~data.masked], data.targets[~data.masked]
    )
    lengths = data.padding_mask.sum(-1)
    np.testing.assert_array_equal(
        data.masked.sum(-1), np.maximum(np.rint(0.15 * lengths), 1)
    )
    assert not data.masked[data.padding_mask == 0].any()
    # All real positions of long rows are masked in turn.
    assert data.masked[lengths > 12].any(0)[:12].all()


def test_useful_flops():
    shape = shapes.Shape(shapes.MODELS["bert_base"], 2, 128)
    flops = shapes.useful_flops(shape, shapes.make_data(shape)) / (2 * 128)
    # Layers: 30 of 2 * 12 * 768^2 + 4 * 128 * 768; heads: 4 of 2 * 768 *
    # (768 + 30522).
    assert flops == 30 * (14_155_776 + 393_216) + 4 * 48_061_440
    assert round(flops / 1e6) == 629


def test_useful_flops_leave_out_padding_and_logits_nobody_reads():
    def flops(**settings):
        shape = shapes.Shape(TOY, 4, 20, **settings)
        return shapes.useful_flops(shape, shapes.make_data(shape))

    # Attention costs fall by more than the share of the padding.
    assert flops(padding=0.4) < 0.6 * flops()
    head = 4 * 2 * 16 * (16 + 1200) * 4
    # 3 masked tokens per row of 20.
    assert flops() - flops(positions="masked") == head * (20 - 3)


def test_shape_round_trip():
    shape = shapes.Shape(TOY, 4, 20, "masked", 0.4, shapes.Variant(top_k=8))
    assert shapes.Shape.from_json(shape.to_json()) == shape


def test_turns(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("0.0\n0.05\n"))
    answers = io.StringIO()
    taken = turns.Turns(answers)
    with pytest.raises(SystemExit):
        for _ in range(100_000_000):
            taken.before_step()
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["steps"] == 1
    assert second["steps"] > 1
    assert second["seconds"] >= 0.05
    assert second["peak_memory_gb"] > 0.01


def test_a_contestant_that_fails_says_why():
    contestant = process.Contestant(
        "unknown", "float32", shapes.Shape(TOY, 4, 20)
    )
    with pytest.raises(process.ContestantFailed, match="unknown_step"):
        contestant.turn(0.0)
    contestant.close()


def test_report_names_what_failed():
    row = {
        "model": "toy",
        "batch": 4,
        "length": 20,
        "positions": "masked",
        "padding": 0.4,
        "precision": "float32",
    }
    text = report.markdown(
        [{**row, "name": "pytorch", "failed": "no memory"}], []
    )
    assert "toy 4 x 20, masked positions, 40% padding" in text
    assert "PyTorch, the authors' method | float32 | failed: no memory" in text
    assert "times as fast" not in text


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_the_plain_step_has_our_losses(positions):
    from contestants import keras_turns, plain_keras_step

    shape = shapes.Shape(TOY, 3, 20, positions, padding=0.25)
    data = shapes.make_data(shape)
    generator = np.random.default_rng(0)
    logits = {
        role: generator.normal(size=(3, 20, 50)).astype("float32")
        for role in ("teacher", "student")
    }
    states = {
        role: generator.normal(size=(3, 20, 8)).astype("float32")
        for role in ("teacher", "student")
    }
    real, masked = data.padding_mask[0], data.masked[0]
    targets = data.targets[0] % 50
    ours = losses.triple_loss(2.0, 5.0, 1.0, positions=positions)
    soft = masked if positions == "masked" else real
    expected = (
        2.0 * ours[0](targets, logits["student"], masked.astype("float32"))
        + 5.0
        * ours[1](logits["teacher"], logits["student"], soft.astype("float32"))
        + ours[2](states["teacher"], states["student"], real.astype("float32"))
    )

    inputs, labels = keras_turns.at_positions(shape, data)
    where = inputs["mask_positions"][0]
    labels = np.where(labels[0] < 0, -1, labels[0] % 50)
    soft = real if positions == "all" else labels >= 0
    outputs = [
        (np.take_along_axis(logits[role], where[..., None], 1), states[role])
        for role in ("teacher", "student")
    ]
    actual = plain_keras_step.triple_loss(
        *outputs, labels, soft.astype("float32"), real
    )
    assert float(actual) == pytest.approx(float(expected), rel=1e-5)


def test_the_distiller_of_keras_has_the_same_losses_without_padding():
    from contestants import keras_distiller_step, keras_turns
    from contestants.plain_keras_step import triple_loss

    shape = shapes.Shape(TOY, 3, 20)
    inputs, labels = keras_turns.at_positions(shape, shapes.make_data(shape))
    inputs = {name: value[0] for name, value in inputs.items()}
    labels, ones = labels[0], np.ones((3, 20), "float32")
    distiller = keras_distiller_step.make_distiller(shape, "float32")
    outputs = distiller.student(inputs)
    y = (labels, np.zeros(3, "float32"))
    actual = distiller.compute_loss(inputs, y, outputs)
    expected = triple_loss(
        distiller.teacher(inputs), outputs, labels, ones, ones
    )
    # Weights that sum to 1, and a similarity instead of a distance.
    assert 8.0 * float(actual) + 1.0 == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.peer
@pytest.mark.parametrize("positions", ["all", "masked"])
def test_the_pytorch_step_has_our_losses(positions):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import toy
    from contestants import keras_distil_step, pytorch_step

    shape = shapes.Shape(TOY, 3, 20, positions, padding=0.25)
    data = shapes.make_data(shape)
    distiller = keras_distil_step.make_distiller(
        *keras_distil_step.make_models(shape, "float32"), shape
    )
    ours = {"teacher": distiller.teacher, "student": distiller.student}
    theirs = dict(zip(ours, pytorch_step.make_models(shape), strict=True))
    for role, name in (("teacher", "bert"), ("student", "distilbert")):
        model = toy.randomize(ours[role], seed=len(role))
        values = {x.path: x.numpy() for x in model.weights}
        rules = FAMILIES[name].weights.rules(
            model.backbone.num_layers, pooler=False, masked_lm=True
        )
        found = theirs[role].load_state_dict(
            {
                rule.hugging_face: torch.tensor(
                    np.ascontiguousarray(
                        rule.layout.to_hugging_face(values[rule.keras])
                    )
                )
                for rule in rules
            },
            strict=False,
        )
        assert not found.unexpected_keys
        # Tied.
        assert all(
            "decoder" in x or "vocab_projector" in x for x in found.missing_keys
        )
    found = pytorch_step.train_step(
        theirs["teacher"],
        theirs["student"],
        pytorch_step.make_optimizer(theirs["student"]),
        pytorch_step.make_batch(data, 0),
        positions=positions,
    )
    x = {
        "token_ids": data.token_ids[0],
        "padding_mask": data.padding_mask[0],
    }
    masked = data.masked[0].astype("float32")
    logs = distiller.test_step((x, data.targets[0], masked))
    for name, value in found.items():
        expected = float(logs[f"{name}_loss"])
        # Two float32 networks.
        assert value.item() == pytest.approx(expected, rel=1e-4), name


@pytest.mark.slow
def test_train_step_runs(tmp_path):
    figures = tmp_path / "figures.json"
    done = run_script(
        *("train_step.py", "--models", "toy", "--batches", "4"),
        *("--lengths", "16", "--padding", "0.4", "--rounds", "2"),
        *("--turn-seconds", "0.05", "--peers", "plain_keras"),
        *("--precisions", "float32", "--json", str(figures)),
    )
    assert "times as fast" in done.stdout
    found = json.loads(figures.read_text())
    assert [x["name"] for x in found["contestants"]] == [
        "keras_distil",
        "plain_keras",
    ]
    for row in found["contestants"]:
        assert row["peak_memory_gb"] > 0.1
        rates = row["real_tokens_per_second"], row["tokens_per_second"]
        # Whole tokens: 38 of 64.
        assert rates[0] == pytest.approx(0.6 * rates[1], rel=0.02)
    (ratio,) = found["ratios"]
    assert ratio["peer"] == "plain_keras"
    assert len(ratio["speeds"]) == 2


@pytest.mark.slow
def test_a_peer_without_memory_is_reported(monkeypatch):
    # More than Python, less than TensorFlow's models need.
    monkeypatch.setattr(process, "available_memory", lambda: int(1.2e9))
    contestant = process.Contestant(
        "keras_distil",
        "float32",
        shapes.Shape(shapes.MODELS["bert_base"], 4, 128),
    )
    with pytest.raises(process.ContestantFailed, match="exit status"):
        contestant.turn(0.0)
    contestant.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batches", "1"], "--batches: must be at least 2"),
        (["--lengths", "513"], "the models have 512 positions"),
        (["--padding", "0.5"], "must be at least 0 and below 0.5"),
        (["--rounds", "0"], "--rounds: must be at least 1"),
        (["--peers", "jax"], "invalid choice"),
    ],
)
def test_wrong_options(words, message):
    done = run_script("train_step.py", *words, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def run_script(name, *words, check=True):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *words],
        check=check,
        capture_output=True,
        text=True,
    )
