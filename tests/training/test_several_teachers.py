"""A Distiller with several teachers: training, saving, going on."""

import os
from pathlib import Path

import keras
import marks
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy
from pool import pooled
from tensorflow.python.framework.config import disable_op_determinism
from training.test_resume import Stop, StopAt, final_state, stream

from keras_distil import Distiller, callbacks, losses
from keras_distil.models.labels import labels_of
from keras_distil.teachers import CachedTeacher

TESTS = Path(__file__).parents[1]
NAMES = ("no", "yes", "maybe")


@pooled
def make_teachers():
    """Two of different depth and width."""
    wide = toy.make_teacher(hidden_dim=24, num_heads=3)
    return [toy.make_teacher(num_layers=3), toy.randomize(wide, seed=7)]


def all_losses():
    return [
        losses.MaskedLMCrossentropy(),
        losses.SoftTargetKLDivergence(temperature=2.0),
        losses.SoftTargetReverseKLDivergence(0.5, positions="masked"),
        losses.HiddenStateCosineDistance(teacher=1),
        losses.AttentionRelationKLDivergence(relation_heads=4),
    ]


def make_distiller(teachers, *, dropout=0.0, rate=0.1, **compile_arguments):
    keras.utils.set_random_seed(1)
    teacher = teachers[0] if isinstance(teachers, list) else teachers
    student = toy.make_student(teacher, dropout=dropout, hidden_dim=8)
    made = all_losses()
    if teachers is teacher or len(teachers) == 1:
        made[3] = losses.HiddenStateCosineDistance()
    distiller = Distiller(teachers, student, made)
    distiller.compile(
        keras.optimizers.SGD(rate), clip_norm=1.0, **compile_arguments
    )
    return distiller


def fit(distiller, batches=None, **arguments):
    batches = toy.dataset(toy.make_batch(), toy.make_batch(seed=4))
    return distiller.fit(batches, verbose=0, **arguments).history


def weights_of(distiller):
    return [v.numpy() for v in distiller.trainable_variables]


def bytes_of(models):
    return [v.numpy().tobytes() for model in models for v in model.weights]


# === Training ===


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    ],
)
def test_a_list_of_one_is_the_teacher_bit_for_bit(options):
    found = []
    for wrap in (lambda teacher: teacher, lambda teacher: [teacher]):
        teacher = toy.make_teacher(num_layers=3)
        distiller = make_distiller(wrap(teacher), **options)
        assert distiller.teacher is teacher
        found.append((fit(distiller, epochs=2), weights_of(distiller)))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_teachers_are_not_changed_and_not_trained():
    teachers = make_teachers()
    before = bytes_of(teachers)
    distiller = make_distiller(teachers, run_eagerly=True)
    theirs = {id(v) for each in teachers for v in each.variables}
    assert not theirs & {id(v) for v in distiller.trainable_variables}
    assert theirs <= {id(v) for v in distiller.non_trainable_variables}
    assert list(distiller.teacher) == teachers
    student = weights_of(distiller)
    first = fit(distiller)
    last = fit(distiller, epochs=4)
    assert bytes_of(teachers) == before
    assert all(each.trainable for each in teachers)
    assert not any(map(np.array_equal, student, weights_of(distiller)))
    assert last["soft_target_loss"][-1] < first["soft_target_loss"][0]


@pytest.mark.slow
def test_teachers_run_without_dropout():
    logs = []
    for rate in (0.0, 0.5):
        teachers = [
            toy.make_teacher(num_layers=3, dropout=rate),
            toy.randomize(
                toy.make_teacher(rate, hidden_dim=24, num_heads=3), seed=7
            ),
        ]
        distiller = make_distiller(teachers, run_eagerly=True)
        logs.append(fit(distiller))
    assert logs[0] == logs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True, "micro_batches": 3},
        pytest.param(
            {"micro_batches": 3, "chunk_size": 4}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"jit_compile": True, "chunk_size": 4}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"jit_compile": "products", "chunk_size": 4},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parts_and_graphs_give_the_update_of_the_whole(options):
    found = []
    for given in ({"run_eagerly": True}, options):
        distiller = make_distiller(make_teachers(), **given)
        history = fit(distiller, epochs=2)
        found.append([*weights_of(distiller), *history.values()])
    for one, other in zip(*found, strict=True):
        # Sums in another order.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)


_REPLICAS = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
from training import test_several_teachers as made

found = []
for strategy in (
    tf.distribute.get_strategy(),
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
):
    with strategy.scope():
        distiller = made.make_distiller(made.make_teachers())
    history = made.fit(distiller)
    found.append(made.weights_of(distiller))
    found[-1] += [history[name][0] for name in sorted(history)]
for one, other in zip(*found, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
outside = made.make_teachers()[1]
with strategy.scope():
    inside = made.make_teachers()[0]
    try:
        made.make_distiller([inside, outside])
    except ValueError as error:
        assert "must be made in the scope" in str(error), error
        print("equal")
"""


@pytest.mark.slow
def test_two_replicas_give_the_update_of_one():
    """Two sequences each, with unequal numbers of tokens."""
    found = processes.run(
        ["-c", _REPLICAS],
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
    )
    assert found.stdout.endswith("equal\n"), found.stderr


@pytest.mark.slow
def test_gradient_norms_are_measured():
    distiller = make_distiller(make_teachers(), run_eagerly=True)
    norms = distiller.gradient_norms(toy.make_batch()).measure()
    assert norms.keys() == {x.name for x in distiller.distillation_losses}
    assert all(norm > 0 for norm in norms.values())


# === Saving and going on ===


@pytest.mark.slow
@pytest.mark.parametrize("task", marks.slow_except([False, True], True))
def test_a_saved_distiller_goes_on(tmp_path, task):
    teachers = make_teachers()
    distiller = make_distiller(teachers, run_eagerly=True)
    batch = toy.make_batch()
    if task:
        teachers, distiller = task_distiller()
        batch = batch[0], np.array([0, 1, 2, 0])
    before = bytes_of(teachers)
    distiller.save(tmp_path / "made.keras")
    loaded = keras.saving.load_model(tmp_path / "made.keras")
    assert [type(x) for x in loaded.teacher] == [type(x) for x in teachers]
    assert bytes_of(loaded.teacher) == before
    kept = loaded.get_loss("cosine")
    assert (kept.teacher, loaded.get_loss("soft_target").temperature) == (1, 2)
    logs = [
        [each.train_on_batch(*batch, return_dict=True) for _ in range(2)]
        for each in (distiller, loaded)
    ]
    assert logs[0] == logs[1]
    for one, other in zip(*map(weights_of, (distiller, loaded)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_teacher_is_saved_as_ever():
    """Files of one teacher have no lists, and losses no number of it."""
    config = make_distiller(toy.make_teacher(), run_eagerly=True).get_config()
    assert config["teacher"]["class_name"] == "ExactBertMaskedLM"
    assert all("teacher" not in x["config"] for x in config["losses"])
    config = make_distiller(make_teachers(), run_eagerly=True).get_config()
    assert [x["class_name"] for x in config["teacher"]] == [
        "ExactBertMaskedLM"
    ] * 2
    assert [x["config"].get("teacher") for x in config["losses"]] == [
        *[None] * 3,
        1,
        None,
    ]


@pytest.fixture
def deterministic():
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()  # TensorFlow has no public name for it.


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path, deterministic):
    def train(folder, *more):
        distiller = make_distiller(
            make_teachers(), dropout=0.2, run_eagerly=True
        )
        distiller.fit(
            stream(),
            steps_per_epoch=3,
            epochs=2,
            verbose=0,
            callbacks=[
                *more,
                callbacks.TrainingState(folder, every_steps=2),
            ],
        )
        return distiller

    whole = train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "stopped", StopAt(4))
    assert final_state(train(tmp_path / "stopped")) == final_state(whole)
    # The teachers are not in a state.
    names = {id(v) for each in whole.teacher for v in each.variables}
    listed = callbacks.training_state._list_variables(whole).values()
    assert not names & {id(v) for v in listed}


# === Tasks ===


def task_distiller():
    teachers = make_teachers()
    encoders = [*teachers, toy.make_student(teachers[0], hidden_dim=8)]
    *teachers, student = [
        toy.task_model(each, "classification", 3, dropout=0.0, seed=number)
        for number, each in enumerate(encoders)
    ]
    made = losses.task_loss("classification")
    made[-1] = losses.HiddenStateCosineDistance(teacher=1)
    distiller = Distiller(teachers, student, made)
    distiller.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return teachers, distiller


@pytest.mark.slow
@pytest.mark.essential
@pytest.mark.parametrize(
    "kind",
    marks.slow_except(
        ["classification", "token_classification"], "token_classification"
    ),
)
def test_labels_are_those_of_all_teachers(kind):
    encoders = make_teachers()

    def model(encoder, labels):
        return toy.task_model(encoder, kind, 3, labels=labels)

    def distil(first, second, own=None):
        teachers = [
            model(encoder, labels)
            for encoder, labels in zip(encoders, (first, second), strict=True)
        ]
        student = model(toy.make_student(encoders[0]), own)
        Distiller(teachers, student, losses.task_loss(kind))
        return labels_of(student)

    assert distil(NAMES, NAMES) == NAMES
    assert distil(None, NAMES) == NAMES
    assert distil(None, None) is None
    with pytest.raises(
        ValueError,
        match="^Teachers must have the same labels in the same order. Received:"
        r" \['no', 'yes', 'maybe'\] of teacher\[0\] and \['maybe', 'yes', 'no'"
        r"\] of teacher\[1\]\.$",
    ):
        distil(NAMES, NAMES[::-1])
    with pytest.raises(
        ValueError, match="^Teacher and student must have the same labels in"
    ):
        distil(NAMES, NAMES, NAMES[::-1])


def test_a_cached_teacher_is_not_one_of_several():
    teacher = toy.make_teacher()
    cached = CachedTeacher.__new__(CachedTeacher)
    cached.folder = Path("caches/one")
    with pytest.raises(
        TypeError,
        match="^A cached teacher cannot be one of several: give the model "
        r"itself\. Received: teacher\[1\]=the cache in caches/one\.$",
    ):
        Distiller(
            [teacher, cached],
            toy.make_student(teacher),
            [losses.MaskedLMCrossentropy()],
        )
