"""Models that the Distiller cannot train exactly are refused in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, evaluation, losses, models


@pytest.fixture(scope="module")
def teacher():
    return toy.make_teacher(num_layers=1)


def mlm():
    return [losses.MaskedLMCrossentropy()]


def first_dense(student):
    layer = student.backbone.transformer_layers[0]
    return layer._feedforward_intermediate_dense


def regularized_kernel(student):
    kernel = first_dense(student)._kernel
    kernel.regularizer = keras.regularizers.L2(100.0)


def regularized_activity(student):
    dense = first_dense(student)
    dense.activity_regularizer = keras.regularizers.L2(1.0)


def frozen(student):
    student.trainable = False


def overwriting(student):
    first_dense(student).bias.overwrite_with_gradient = True


def capped(student):
    student.backbone.token_embedding.logit_soft_cap = 5.0


REFUSED = [
    (regularized_kernel, "regulariser of '.*intermediate_dense/kernel'"),
    (regularized_activity, "activity regulariser of 'feedforward_interm"),
    (frozen, "no trainable weights that a loss reaches"),
    (overwriting, "`overwrite_with_gradient`.*intermediate_dense/bias'"),
    (capped, "no `logit_soft_cap`"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_refused_at_construction_and_before_an_update(teacher, change, message):
    student = toy.make_student(teacher)
    distiller = Distiller(teacher, student, losses.triple_loss())
    distiller.compile("sgd", run_eagerly=True)
    change(student)
    before = toy.weights_of(student)
    for attempt in (
        lambda: Distiller(teacher, student, losses.triple_loss()),
        lambda: distiller.compile("sgd"),
        lambda: distiller.fit(toy.dataset(toy.make_batch()), verbose=0),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert f"student={student.name!r}" in str(caught.value)
    for path, value in toy.weights_of(student).items():
        np.testing.assert_array_equal(value, before[path])


@pytest.mark.parametrize(("change", "message"), REFUSED[:3])
def test_refused_for_tasks_too(teacher, change, message):
    student = toy.task_model(teacher, "classification", 2)
    change(student)
    with pytest.raises(ValueError, match=message):
        Distiller(None, student, [losses.LabelCrossentropy()])


@pytest.mark.parametrize(
    "dtype", ["float16", "mixed_float16", "bfloat16", "float64"]
)
def test_precisions_that_are_refused(teacher, dtype):
    student = toy.make_student(teacher, dtype=dtype)
    message = f"`{dtype}` is not supported for a student: .*'mixed_bfloat16'"
    with pytest.raises(ValueError, match=message):
        Distiller(teacher, student, losses.triple_loss())


@pytest.mark.parametrize("floatx", ["float16", "float64"])
def test_keras_s_floatx_must_be_float32(teacher, floatx):
    student = toy.make_student(teacher)
    distiller = Distiller(None, student, mlm())
    keras.config.set_floatx(floatx)
    try:
        for attempt in (
            lambda: Distiller(None, student, mlm()),
            lambda: distiller.compile("sgd"),
        ):
            with pytest.raises(ValueError, match=f"Received: floatx='{floatx}"):
                attempt()
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_teacher_may_have_any_precision(teacher, dtype):
    student = toy.make_student(teacher)
    batch = toy.make_batch()
    logs = []
    for each in (teacher, models.with_dtype(teacher, dtype)):
        distiller = Distiller(each, student, losses.triple_loss())
        distiller.compile("sgd", run_eagerly=True)
        logs.append(
            distiller.evaluate(toy.dataset(batch), verbose=0, return_dict=True)
        )
    # Half precision: three digits and two, of losses between 0.5 and 7.
    tolerance = {"float64": 1e-5}.get(dtype, 2e-2)
    for name in ("loss", "mlm_loss", "soft_target_loss", "cosine_loss"):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=tolerance)


class AddsLoss(keras.layers.LayerNormalization):
    def call(self, inputs):
        self.add_loss(tf.reduce_sum(tf.square(inputs)))
        return super().call(inputs)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_loss_that_a_layer_adds_is_refused(run_eagerly):
    student = toy.make_student(toy.make_teacher(num_layers=1))
    student.backbone.embeddings_layer_norm.__class__ = AddsLoss
    distiller = Distiller(None, student, mlm())
    distiller.compile("sgd", run_eagerly=run_eagerly)
    before = toy.weights_of(student)
    with pytest.raises(ValueError, match="own losses .regularisers, `add_los"):
        distiller.fit(toy.dataset(toy.make_batch()), verbose=0)
    for path, value in toy.weights_of(student).items():
        np.testing.assert_array_equal(value, before[path])


def test_a_teacher_s_regularisers_do_not_matter():
    plain, regularized = (toy.make_teacher(num_layers=1) for _ in range(2))
    regularized_kernel(regularized)
    regularized_activity(regularized)
    student = toy.make_student(plain)
    logs = []
    for each in (plain, regularized):
        distiller = Distiller(each, student, losses.triple_loss())
        distiller.compile("sgd", run_eagerly=True)
        logs.append(
            distiller.evaluate(
                toy.dataset(toy.make_batch()), verbose=0, return_dict=True
            )
        )
    assert logs[0] == logs[1]


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_a_task_model_of_a_frozen_teacher_trains(kind):
    encoder = toy.make_teacher(num_layers=1)
    encoder.trainable = False
    model = toy.task_model(encoder, kind, 1 + (kind[0] == "c"))
    assert len(model.trainable_variables) == len(model.weights)
    assert not encoder.trainable_variables


def test_weights_in_common_are_refused(teacher):
    other = models.ExactBertMaskedLM(teacher.backbone)
    with pytest.raises(
        ValueError, match="must not share weights.*such as 'token_embed"
    ):
        Distiller(teacher, other, losses.triple_loss())


def test_a_frozen_model_may_be_scored(teacher):
    model = toy.make_teacher(num_layers=1)
    model.trainable = False
    x, y, masked = batch = toy.make_batch()
    best = np.array(toy.full_logits(model, x)).argmax(axis=-1)
    scores = evaluation.score_masked_lm(model, model, toy.dataset(batch))
    expected = ((best == y) * masked).sum() / masked.sum()
    assert scores.mlm_accuracy == pytest.approx(expected, rel=1e-6)


# === The scope of a distribution strategy ===


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0"])


@pytest.fixture(scope="module")
def mirrored(strategy):
    with strategy.scope():
        teacher = toy.make_teacher(num_layers=1)
        return teacher, toy.make_student(teacher)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_models_of_another_scope_are_named(teacher, strategy, mirrored, role):
    pair = dict(zip(("teacher", "student"), mirrored, strict=True))
    outside = toy.make_student(teacher) if role == "student" else teacher
    pair[role] = outside
    message = f"The {role} '{outside.name}' and the Distiller .*strategy.scope"
    with (
        strategy.scope(),
        pytest.raises(ValueError, match=message),
    ):
        Distiller(pair["teacher"], pair["student"], losses.triple_loss())


def test_a_distiller_outside_is_refused(mirrored):
    with pytest.raises(ValueError, match="The teacher .*with strategy.scope"):
        Distiller(*mirrored, losses.triple_loss())


def test_an_optimizer_outside_is_refused(strategy, mirrored):
    with strategy.scope():
        distiller = Distiller(None, mirrored[1], mlm())
    optimizer = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match="The optimizer and the Distiller mus"):
        distiller.compile(optimizer)
    # Its name alone is enough, wherever it is used.
    distiller.compile("sgd")
    with strategy.scope():
        distiller.compile(keras.optimizers.SGD(0.1))
