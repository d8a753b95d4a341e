"""The costs of an update, against sums written out by hand."""

import dataclasses

import pytest

from keras_distil.config import load_recipe
from keras_distil.losses import chunked
from keras_distil.planning import estimate
from keras_distil.planning.measured import costs

TEACHER = costs.EncoderShape("bert", 1000, 3, 2, 16, 32, 12, 2)
STUDENT = dataclasses.replace(TEACHER, num_layers=2, num_segments=0)
STEP = costs.Step(
    teacher=TEACHER,
    student=STUDENT,
    sequences=30,
    micro_batches=2,
    length=10,
    masking_rate=0.2,
    everywhere=True,
    live_teacher=True,
    precision="float32",
    compiled=True,
)


def step(**changed):
    return dataclasses.replace(STEP, **changed)


def test_step_of_a_recipe(toy_recipe):
    found = costs.step_of(
        load_recipe(
            toy_recipe,
            [
                "distill.batch_size=12",
                "distill.micro_batches=3",
                "precision=mixed_bfloat16",
                "distill.losses.soft_target.positions=masked",
            ],
        )
    )
    assert (found.sequences, found.micro_batches, found.length) == (4, 3, 12)
    assert found.teacher.num_layers == 2
    assert found.student.num_layers == 1
    assert found.compute_bytes == 2
    assert found.live_teacher
    assert not found.compiled
    assert not found.everywhere
    # 15% of 12 tokens.
    assert found.masked_rows == 4 * 2


def test_nothing_to_measure(toy_recipe):
    recipe = load_recipe(toy_recipe).model_copy(update={"distill": None})
    with pytest.raises(ValueError, match="'toy' distils nothing, so there is"):
        costs.step_of(recipe)


def test_rows_of_logits(monkeypatch):
    assert costs.DEFAULT_CHUNK_SIZE == chunked.DEFAULT_CHUNK_SIZE == 256
    assert step().logit_rows == 300
    assert step(everywhere=False).logit_rows == 60
    # 300 tokens fill a chunk and a part, 60 of them masked a part.
    assert step().filled_rows == (512, 256)
    assert step(compiled=False).filled_rows == (300, 150)
    assert step(everywhere=False).filled_rows == (256, 256)
    assert step(everywhere=False, compiled=False).filled_rows == (60, 60)


def test_arithmetic():
    layer = 2 * (4 * 16 * 16 + 2 * 16 * 32) + 4 * 10 * 16
    head = 2 * (16 * 16 + 16 * 1000)
    assert costs.arithmetic(STEP) == {
        "teacher_forward": 2 * 300 * 3 * layer,
        "student_forward_and_backward": 2 * 300 * 3 * 2 * layer,
        "vocabulary_heads": 2 * 300 * 4 * head,
        "optimizer": 0,
    }


def test_traffic():
    layer = 50 * 16 + 13 * 32 + 5 * 2 * 10
    assert costs.traffic(STEP) == {
        "teacher_forward": 2 * 4 * 300 * 3 * layer,
        "student_forward_and_backward": 2 * 4 * 300 * 3 * 2 * layer,
        # Two chunks of 256, the masked rows in one of them.
        "vocabulary_heads": 2 * 4 * 1000 * (10 * 512 + 8 * 256),
        # The second micro-batch adds to the gradient.
        "optimizer": (32 + 12) * STUDENT.parameters,
    }
    half = costs.traffic(step(precision="mixed_bfloat16"))
    assert half["teacher_forward"] == 4 * 300 * 3 * layer
    assert half["vocabulary_heads"] == costs.traffic(STEP)["vocabulary_heads"]


def test_a_teacher_on_disk_costs_nothing():
    there, gone = (
        costs.arithmetic(step()),
        costs.arithmetic(step(live_teacher=False)),
    )
    assert gone["teacher_forward"] == 0
    assert gone["vocabulary_heads"] == there["vocabulary_heads"] * 3 / 4
    assert costs.traffic(step(live_teacher=False))["teacher_forward"] == 0
    assert costs.memory(step(live_teacher=False))["teacher_weights"] == 0


def test_memory():
    weights = 4 * STUDENT.parameters
    layer = 13 * 16 + 2 * 32 + 2 * 10
    assert costs.memory(STEP) == {
        "teacher_weights": 4 * TEACHER.parameters,
        "student_weights": weights,
        "student_gradients": 2 * weights,
        "adamw_moments": 2 * weights,
        "activations": 4 * 300 * 3 * layer,
        "vocabulary_chunk": 4 * 1000 * (8 * 256 + 2 * 16),
    }
    assert estimate._CHUNK_TABLES == costs._CHUNK_TABLES


def test_memory_in_bfloat16_and_of_one_micro_batch():
    whole = costs.memory(step())
    half = costs.memory(step(precision="mixed_bfloat16", micro_batches=1))
    assert half["teacher_weights"] == whole["teacher_weights"] / 2
    assert half["activations"] == whole["activations"] / 2
    assert half["student_gradients"] == whole["student_gradients"] / 2
    assert half["adamw_moments"] == whole["adamw_moments"]
