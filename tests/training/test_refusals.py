"""What the Distiller and its `compile` refuse."""

import keras
import pytest
import toy
from toy_distiller import make_distiller, triple

from keras_distil import Distiller, losses


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"micro_batches": 0}, ValueError, "`micro_batches` must be at least"),
        ({"micro_batches": 2.0}, TypeError, "`micro_batches` must be an integ"),
        ({"micro_batches": True}, TypeError, "micro_batches=True"),
        ({"chunk_size": 0}, ValueError, "`chunk_size` must be at least 1. Re"),
        ({"chunk_size": "8"}, TypeError, "`chunk_size` must be an integer. R"),
        ({"clip_norm": 0.0}, ValueError, "`clip_norm` must be positive, or N"),
        ({"clip_norm": -1.0}, ValueError, "Received: clip_norm=-1.0"),
        ({"clip_norm": float("nan")}, ValueError, "`clip_norm` must be posit"),
    ],
)
def test_wrong_compile_options(teacher, options, error, message):
    with pytest.raises(error, match=message):
        make_distiller(teacher, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clipnorm": 1.0}, r"must not clip by itself \(`clipnorm`\)"),
        ({"clipvalue": 1.0}, r"must not clip by itself \(`clipvalue`\)"),
        ({"global_clipnorm": 1.0}, r"by itself \(`global_clipnorm`\). Use "),
        (
            {"gradient_accumulation_steps": 2},
            "must not accumulate gradients .* Use `compile.micro_batches=",
        ),
    ],
)
def test_wrong_optimizers(teacher, options, message):
    with pytest.raises(ValueError, match=message):
        make_distiller(teacher, keras.optimizers.SGD(0.1, **options))


def test_models_are_checked(teacher):
    other = toy.make_teacher(vocabulary_size=49)
    with pytest.raises(ValueError, match="must share a vocabulary"):
        Distiller(teacher, other, triple())
    with pytest.raises(ValueError, match="needs a teacher"):
        Distiller(None, toy.make_student(teacher), triple())


def test_a_batch_must_be_a_triple(teacher):
    distiller = make_distiller(teacher)
    x, y, _ = toy.make_batch()
    with pytest.raises(ValueError, match="Received: sample_weight=None"):
        distiller.fit(x, y, verbose=0)


def test_one_model_cannot_be_both():
    teacher = toy.make_teacher()
    with pytest.raises(ValueError, match="must be two models"):
        Distiller(teacher, teacher, losses.triple_loss())
