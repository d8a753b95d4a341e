"""Reverse KL, Jensen-Shannon and squared error of outputs, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from losses.reference import log_softmax, mean_factors
from teachers import conftest as caches

from keras_distil import losses
from keras_distil.losses import functional
from keras_distil.losses.settings import LossSettings
from keras_distil.training.objectives import make_objective

make_corpus = caches.make_corpus
tokenizer = caches.tokenizer
teacher = caches.teacher
cache = caches.cache


def reverse_kl(teacher, student, temperature, weight=None, share=None):
    """Value, and gradient for the student's logits, in float64."""
    log_p = log_softmax(np.asarray(teacher, "float64") / temperature)
    log_q = log_softmax(np.asarray(student, "float64") / temperature)
    q, ratio = np.exp(log_q), log_q - log_p
    values = (q * ratio).sum(axis=-1)
    gradient = q * (ratio - values[..., None])
    return _mean(values, gradient, temperature, weight)


def jensen_shannon(teacher, student, temperature, weight=None, share=0.5):
    log_p = log_softmax(np.asarray(teacher, "float64") / temperature)
    log_q = log_softmax(np.asarray(student, "float64") / temperature)
    p, q = np.exp(log_p), np.exp(log_q)
    log_m = np.log(share * p + (1 - share) * q)
    to_q = (q * (log_q - log_m)).sum(axis=-1)
    values = share * (p * (log_p - log_m)).sum(axis=-1) + (1 - share) * to_q
    gradient = (1 - share) * q * (log_q - log_m - to_q[..., None])
    return _mean(values, gradient, temperature, weight)


def _mean(values, gradient, temperature, weight):
    factors = mean_factors(weight, values.shape)
    return (
        temperature**2 * (values * factors).sum(),
        temperature * gradient * factors[..., None],
    )


def squared_error(teacher, student, temperature, weight=None, share=None):
    difference = np.asarray(student, "float64") - np.asarray(teacher, "float64")
    count = difference.shape[-1]
    values = (difference**2).sum(axis=-1) / count
    factors = mean_factors(weight, values.shape)
    return (
        (values * factors).sum(),
        2 * difference / count * factors[..., None],
    )


REVERSE = losses.SoftTargetReverseKLDivergence
MIXED = losses.SoftTargetJensenShannonDivergence
SQUARED = losses.SoftTargetSquaredError
OF_LOSS = {
    REVERSE: reverse_kl,
    MIXED: jensen_shannon,
    SQUARED: squared_error,
}
ALL = pytest.mark.parametrize("kind", OF_LOSS)
DIVERGENCES = pytest.mark.parametrize("kind", [REVERSE, MIXED])


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    teacher, student = generator.normal(0.0, 3.0, (2, 3, 5, 17))
    weight = generator.integers(0, 3, (3, 5)).astype("float32")
    weight[0, 0], weight[1, 1] = 0.0, 2.0
    return teacher.astype("float32"), student.astype("float32"), weight


def value_and_gradient(loss, teacher, student, weight=None):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student, weight)
    return value, tape.gradient(value, student)


def test_by_hand():
    """p = (1/2, 1/2), q = (1/4, 3/4), m = (3/8, 5/8)."""
    teacher = np.array([[0.0, 0.0]])
    student = np.log(np.array([[1.0, 3.0]]))
    found = REVERSE(temperature=1.0)(teacher, student)
    expected = np.log(0.5) / 4 + 3 * np.log(1.5) / 4
    assert float(found) == pytest.approx(expected, rel=1e-6)
    found = MIXED(temperature=1.0)(teacher, student)
    expected = (np.log(4 / 3) + np.log(4 / 5)) / 4 + (
        np.log(2 / 3) + 3 * np.log(6 / 5)
    ) / 8
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert float(SQUARED()(teacher, np.array([[1.0, 3.0]]))) == 5.0


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 100.0])
@pytest.mark.parametrize(
    "share", [0.5, pytest.param(0.1, id="little"), pytest.param(0.9, id="much")]
)
@DIVERGENCES
def test_divergences_equal_numpy(arrays, kind, share, temperature, graph):
    options = {"teacher_share": share} if kind is MIXED else {}
    loss = kind(temperature=temperature, **options)
    run = value_and_gradient
    if graph:
        run = tf.function(run, autograph=False)
    value, gradient = run(loss, *arrays)
    expected = OF_LOSS[kind](*arrays[:2], temperature, arrays[2], share)
    # At a temperature of 100, distributions differ by a hundredth.
    rel = 1e-5 if temperature < 100 else 1e-4
    assert float(value) == pytest.approx(expected[0], rel=rel)
    np.testing.assert_allclose(gradient, expected[1], rtol=rel, atol=1e-6)


@pytest.mark.parametrize("graph", [False, True])
def test_the_squared_error_equals_numpy(arrays, graph):
    run = value_and_gradient
    if graph:
        run = tf.function(run, autograph=False)
    value, gradient = run(SQUARED(), *arrays)
    expected = squared_error(*arrays[:2], None, arrays[2])
    assert float(value) == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-8)


@DIVERGENCES
def test_opposite_certainties_stay_finite(kind):
    teacher = np.array([[200.0, 0.0, -200.0]], "float32")
    value, gradient = value_and_gradient(
        kind(temperature=1.0), teacher, teacher[:, ::-1].copy()
    )
    expected = 400.0 if kind is REVERSE else np.log(2)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(gradient).all()


@ALL
def test_zero_where_teacher_equals_student(arrays, kind):
    value, gradient = value_and_gradient(kind(), arrays[0], arrays[0])
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0 * arrays[0])


@ALL
@pytest.mark.parametrize("filling", [1e30, float("nan")])
def test_tokens_of_weight_zero_do_not_matter(arrays, kind, filling):
    teacher, student, weight = arrays
    counts = weight[..., None] > 0
    filled = [
        np.where(counts, x, np.float32(filling)) for x in (teacher, student)
    ]
    assert float(kind()(*filled, weight)) == float(kind()(*arrays))


def test_outputs_that_do_not_exist(arrays):
    teacher, student, _ = arrays
    never = np.full((3, 5, 4), functional.NEVER, "float32")
    wide = [np.concatenate([x, never], axis=-1) for x in (teacher, student)]
    for kind in OF_LOSS:
        value, gradient = value_and_gradient(kind(), *wide)
        expected = value_and_gradient(kind(), teacher, student)
        assert float(value) == pytest.approx(float(expected[0]), rel=1e-6)
        np.testing.assert_allclose(
            gradient[..., :17], expected[1], rtol=1e-5, atol=1e-8
        )
        np.testing.assert_array_equal(gradient[..., 17:], 0.0)


@ALL
def test_config_round_trip(kind):
    options = {} if kind is SQUARED else {"temperature": 3.0}
    if kind is MIXED:
        options["teacher_share"] = 0.25
    loss = kind(weight=2.0, name="own", positions="masked", **options)
    config = keras.saving.serialize_keras_object(loss)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert {**options, "positions": "masked"}.items() <= config[
        "config"
    ].items()
    assert again.counts == "masked"


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (REVERSE, {"temperature": 0.0}, "`temperature` must be positive. Rec"),
        (MIXED, {"positions": "some"}, "`positions` must be one of .*'some'"),
        (SQUARED, {"positions": "some"}, "`positions` must be one of .*'some'"),
        (
            MIXED,
            {"teacher_share": 1.0},
            "`teacher_share` must be above 0 and below 1. Received: "
            "teacher_share=1.0. At the ends",
        ),
    ],
)
def test_arguments_out_of_range(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


# === In objectives ===


def logs_of(objective, batch, *, graph=False, training=True):
    def run():
        named = objective.batch(batch)
        sizes = objective.denominators(named)
        return sizes, objective.compute_gradients(
            named, sizes, training=training
        )

    sizes, (sums, gradients) = (
        tf.function(run, autograph=False)() if graph else run()
    )
    logs = {
        name: float(sums[key]) / float(sizes[size])
        for name, (key, size) in objective.metric_terms.items()
    }
    return logs, gradients


@ALL
@pytest.mark.parametrize(
    ("positions", "graph"), [("all", False), ("masked", True)]
)
def test_masked_lm_in_chunks(kind, positions, graph):
    """Value, and the gradient through the head, of all logits at once."""
    teacher = toy.make_teacher()
    student = toy.make_student(teacher)
    batch = toy.make_batch()
    loss = kind(positions=positions, name="own")
    objective = make_objective(teacher, student, [loss])
    objective.chunk_size = 5
    weight = batch[2] if positions == "masked" else batch[0]["padding_mask"]
    variables = [v.value for v in objective.variables]
    with tf.GradientTape() as tape:
        ours = toy.full_logits(student, batch[0])
    theirs = toy.full_logits(teacher, batch[0])
    value, slopes = OF_LOSS[kind](np.array(theirs), np.array(ours), 2.0, weight)
    logs, gradients = logs_of(objective, batch, graph=graph)
    assert logs["own_loss"] == pytest.approx(value, rel=1e-5)
    expected = tape.gradient(
        ours, variables, output_gradients=tf.constant(slopes, tf.float32)
    )
    for one, other, v in zip(
        gradients, expected, objective.variables, strict=True
    ):
        other = tf.convert_to_tensor(other)
        # Sums of float32 in another order.
        np.testing.assert_allclose(
            one,
            other,
            rtol=1e-4,
            atol=1e-5 * np.abs(other).max() + 1e-7,
            err_msg=v.path,
        )


@ALL
@pytest.mark.parametrize("task", ["classification", "token_classification"])
def test_tasks_of_classes(kind, task):
    teacher = toy.make_teacher()
    pair = [
        toy.task_model(x, task, 3, dropout=0.0)
        for x in (teacher, toy.make_student(teacher))
    ]
    x, _, _ = toy.make_batch()
    y = np.array([0, 1, 2, 0])
    weight = np.array([1.0, 0.0, 2.0, 1.0], "float32")
    counted = weight
    if task == "token_classification":
        y = x["padding_mask"]
        weight = np.repeat(weight[:, None], 7, axis=1)
        counted = weight * y
    logs, gradients = logs_of(
        make_objective(*pair, [kind(name="own")]), (x, y, weight)
    )
    theirs, ours = (
        np.array(model(_inputs(model, x), training=False)) for model in pair
    )
    value, _ = OF_LOSS[kind](theirs, ours, 2.0, counted)
    assert logs["own_loss"] == pytest.approx(value, rel=1e-5)
    assert max(np.abs(np.array(g)).max() for g in gradients) > 1e-4


def _inputs(model, x):
    if "segment_ids" in model.backbone.input:
        return {**x, "segment_ids": np.zeros_like(x["token_ids"])}
    return x


@ALL
def test_more_padding_does_not_change_a_span(kind):
    teacher = toy.make_teacher()
    pair = [
        toy.task_model(x, "span", dropout=0.0)
        for x in (teacher, toy.make_student(teacher))
    ]
    x, _, _ = toy.make_batch()
    y = {"start": np.zeros(4, "int32"), "end": np.ones(4, "int32")}
    objective = make_objective(*pair, [kind(name="own")])
    padded = {k: np.pad(v, [[0, 0], [0, 4]]) for k, v in x.items()}
    found, expected = (logs_of(objective, (each, y)) for each in (padded, x))
    assert found[0]["own_loss"] == pytest.approx(
        expected[0]["own_loss"], rel=1e-5
    )
    for one, other in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(one),
            tf.convert_to_tensor(other),
            rtol=1e-4,
            atol=1e-5,
        )


@DIVERGENCES
def test_a_regression_has_no_divergence(kind):
    teacher = toy.make_teacher()
    pair = [
        toy.task_model(x, "regression", dropout=0.0)
        for x in (teacher, toy.make_student(teacher))
    ]
    with pytest.raises(TypeError, match=f"{kind.__name__} is not for a regres"):
        make_objective(*pair, [kind()])
    name = "reverse_kl" if kind is REVERSE else "jensen_shannon"
    with pytest.raises(ValueError, match=f"{name!r} is not for regression"):
        losses.make_losses({name: None}, "regression")


def test_a_recipe_names_two_losses_of_one_class():
    made = losses.make_losses(
        {name: LossSettings() for name in ("soft_target", "output_mse")},
        "regression",
    )
    assert [(x.name, type(x)) for x in made] == [
        ("soft_target", SQUARED),
        ("output_mse", SQUARED),
    ]


def test_the_squared_error_beside_labels_of_any_model():
    pair = [
        keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
        for _ in range(2)
    ]
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    batch = (x, np.array([0, 1, 1, 0]))
    objective = make_objective(
        *pair, [losses.LabelCrossentropy(), SQUARED(name="own")]
    )
    logs, _ = logs_of(objective, batch)
    value, _ = squared_error(np.array(pair[0](x)), np.array(pair[1](x)), None)
    assert logs["own_loss"] == pytest.approx(value, rel=1e-5)
    assert "accuracy" in logs


@ALL
def test_a_cached_teacher_has_too_few_logits(cache, kind):
    student = toy.make_student(toy.make_teacher(vocabulary_size=64))
    with pytest.raises(
        ValueError,
        match="'own' needs all of the teacher's logits; a cached teacher has "
        "the largest only",
    ):
        make_objective(cache(), student, [kind(name="own")])
