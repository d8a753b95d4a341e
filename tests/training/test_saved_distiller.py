"""A Distiller, or its student alone, saved and loaded."""

import keras
import numpy as np
import pytest
import toy
from toy_distiller import (
    assert_weights_equal,
    batches_of,
    fit,
    make_distiller,
    triple,
)

from keras_distil import Distiller, losses, models, schedules
from keras_distil.evaluation import score_masked_lm


def test_save_and_load(teacher, tmp_path):
    student = toy.make_student(teacher, hidden_dim=8)
    distiller = make_distiller(
        teacher,
        keras.optimizers.AdamW(1e-2),
        student=student,
        clip_norm=1.0,
        micro_batches=2,
        chunk_size=6,
    )
    soft = distiller.get_loss("soft_target")
    distiller.schedule(soft.temperature, schedules.Linear(4.0, 1.0, steps=9))
    fit(distiller, *batches_of(2))
    soft.weight.assign(3.0)
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, Distiller)
    assert loaded.get_compile_config() == distiller.get_compile_config()
    assert int(loaded.tokens_seen) == int(distiller.tokens_seen) > 0
    assert int(loaded.optimizer.iterations) == 2
    pairs = zip(
        distiller.optimizer.variables, loaded.optimizer.variables, strict=True
    )
    for old, new in pairs:
        np.testing.assert_array_equal(new, old, old.path)
    for name in ("teacher", "student", "projection"):
        assert_weights_equal(getattr(loaded, name), getattr(distiller, name))
    for old, new in zip(
        distiller.distillation_losses, loaded.distillation_losses, strict=True
    ):
        assert new.get_config() == old.get_config()
    temperature = loaded.get_loss("soft_target").temperature
    assert float(temperature.numpy()) == pytest.approx(4.0 - 3.0 / 9)
    # Both continue alike; the schedule is set again, as by a callback.
    loaded.schedule(temperature, schedules.Linear(4.0, 1.0, steps=9))
    more = [toy.make_batch(seed=seed) for seed in (7, 8)]
    logs = [fit(model, *more) for model in (distiller, loaded)]
    assert logs[0] == logs[1]
    assert_weights_equal(loaded.student, distiller.student)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["names", "variables"])
def test_what_does_not_decay_is_saved(teacher, tmp_path, by):
    student = toy.make_student(teacher)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    if by == "names":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma"])
    else:
        optimizer.exclude_from_weight_decay(
            var_list=student.trainable_variables[:5]
        )
    distiller = make_distiller(teacher, optimizer, student=student)
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    loaded = keras.saving.load_model(path)
    variables = loaded._objective.variables
    exempt = loaded.get_compile_config()["without_weight_decay"]
    if by == "names":
        assert exempt == [
            place
            for place, variable in enumerate(variables)
            if "bias" in variable.name or "gamma" in variable.name
        ]
    else:
        assert len(exempt) == 5
    assert 0 < len(exempt) < len(variables)
    logs = [fit(model, toy.make_batch(seed=7)) for model in (distiller, loaded)]
    assert logs[0] == logs[1]
    assert_weights_equal(loaded.student, distiller.student)


def test_the_teacher_s_trainable_is_left_alone():
    teacher = toy.make_teacher()
    before = [v.path for v in teacher.trainable_variables]
    assert len(before) > 30
    distiller = make_distiller(teacher)
    fit(distiller, toy.make_batch())
    score_masked_lm(distiller.student, teacher, toy.dataset(toy.make_batch()))
    assert [v.path for v in teacher.trainable_variables] == before
    # Keras's own count of the Distiller is that of the student.
    expected = [id(v) for v in distiller.student.trainable_variables]
    for found in (distiller.trainable_variables, distiller.trainable_weights):
        assert [id(v) for v in found] == expected
    for part, whole in (
        (distiller.non_trainable_variables, distiller.variables),
        (distiller.non_trainable_weights, distiller.weights),
    ):
        assert len(part) + len(expected) == len(whole)
        assert {id(v) for v in teacher.weights} <= {id(v) for v in part}
    teacher.trainable = False
    make_distiller(teacher)
    assert not teacher.trainable


@pytest.mark.slow
def test_load_without_compiling_and_after_compiling_twice(teacher, tmp_path):
    distiller = make_distiller(teacher)
    distiller.compile(keras.optimizers.SGD(0.2), run_eagerly=True)
    fit(distiller, toy.make_batch())
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    for compiled in (False, True):
        loaded = keras.saving.load_model(path, compile=compiled)
        assert loaded.compiled == compiled
        assert_weights_equal(loaded, distiller)
    uncompiled = Distiller(teacher, toy.make_student(teacher), triple())
    assert uncompiled.get_compile_config() == {}
    uncompiled.save(path)
    assert not keras.saving.load_model(path).compiled


def test_save_without_a_teacher(teacher, tmp_path):
    student = toy.make_student(teacher)
    distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    path = tmp_path / "distiller.keras"
    distiller.save(path)
    loaded = keras.saving.load_model(path)
    assert loaded.teacher is None
    assert_weights_equal(loaded.student, student)


def test_the_student_alone_is_saved(teacher, tmp_path):
    student = toy.make_student(teacher, hidden_dim=8)
    distiller = make_distiller(teacher, student=student)
    before = np.array(distiller.projection.kernel)
    fit(distiller, toy.make_batch())
    # The projection is trained, but is not part of the student.
    assert not np.array_equal(before, distiller.projection.kernel)
    path = tmp_path / "student.keras"
    distiller.student.save(path)
    loaded = keras.saving.load_model(path)
    assert isinstance(loaded, models.ExactDistilBertMaskedLM)
    assert_weights_equal(loaded, student)
    expected = models.initialize_student(teacher, 1, hidden_dim=8)
    assert loaded.count_params() == expected.count_params()
    assert not any("projection" in v.path for v in loaded.weights)
