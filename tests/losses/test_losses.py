"""Each loss against literals, NumPy float64 and its own promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from losses import reference

from keras_distil import losses

SHAPE = 3, 5
VOCABULARY = 17
TEMPERATURES = [0.1, 1.0, 2.0, 4.0, 100.0]


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    normal = generator.normal
    return {
        "token_ids": generator.integers(0, VOCABULARY, SHAPE),
        "teacher": normal(0.0, 3.0, (*SHAPE, VOCABULARY)).astype("float32"),
        "student": normal(0.0, 3.0, (*SHAPE, VOCABULARY)).astype("float32"),
        # Two of three rows are padded, one of the weights is no integer.
        "weight": np.array(
            [[1, 1, 1, 1, 0.5], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], "float32"
        ),
    }


def cases(temperature=2.0):
    """Each loss with its reference; both take (arrays, student, weight)."""
    return {
        "mlm": (
            losses.MaskedLMCrossentropy(),
            lambda a: a["token_ids"],
            reference.crossentropy,
        ),
        "soft_target": (
            losses.SoftTargetKLDivergence(temperature=temperature),
            lambda a: a["teacher"],
            lambda teacher, student, weight: reference.kl_divergence(
                teacher, student, temperature, weight
            ),
        ),
        "cosine": (
            losses.HiddenStateCosineDistance(),
            lambda a: a["teacher"],
            reference.cosine_distance,
        ),
    }


NAMES = ["mlm", "soft_target", "cosine"]


def value_and_gradient(loss, target, student, weight):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(target, student, weight)
    return value, tape.gradient(value, student)


def close(actual, desired, rtol=1e-5, scale=None):
    """Relative to the largest entry: a gradient has entries near zero."""
    scale = np.abs(desired).max() if scale is None else scale
    np.testing.assert_allclose(actual, desired, rtol=rtol, atol=rtol * scale)


def test_crossentropy_by_hand():
    loss = losses.MaskedLMCrossentropy()
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    ids = np.array([[1, 2]])
    # -log(1/4) and -log(0.8)
    assert float(loss(ids, logits)) == pytest.approx(
        (1.3862944 + 0.2231436) / 2, rel=1e-6
    )
    weight = np.array([[0.0, 1.0]])
    assert float(loss(ids, logits, weight)) == pytest.approx(
        0.2231436, rel=1e-6
    )


def test_kl_divergence_by_hand():
    teacher = np.log(np.array([[[0.5, 0.5]]]))
    student = np.log(np.array([[[0.75, 0.25]]]))
    # At temperature 1: log 0.5 - (log 0.75 + log 0.25) / 2.
    loss = losses.SoftTargetKLDivergence(temperature=1.0)
    assert float(loss(teacher, student)) == pytest.approx(0.1438410, rel=1e-6)
    # At temperature 2 the student's odds are sqrt(3) to 1, its probabilities
    # 0.6339746 and 0.3660254: 4 * (0.7303995 - 0.6931472).
    loss = losses.SoftTargetKLDivergence(temperature=2.0)
    assert float(loss(teacher, student)) == pytest.approx(0.149009, rel=1e-5)


def test_cosine_distance_by_hand():
    loss = losses.HiddenStateCosineDistance()
    teacher = np.array([[[3.0, 4.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
    student = np.array([[[4.0, 3.0], [0.0, 2.0], [-2.0, -2.0], [1.0, 2.0]]])
    # 1 - 24/25, a right angle, the opposite direction, a zero vector.
    expected = [0.04, 1.0, 2.0, 1.0]
    for index, value in enumerate(expected):
        weight = np.eye(4)[index][None]
        assert float(loss(teacher, student, weight)) == pytest.approx(
            value, rel=1e-5
        )
    assert float(loss(teacher, student)) == pytest.approx(1.01, rel=1e-6)


def test_cosine_gradient_of_a_zero_vector_is_finite():
    _, gradient = value_and_gradient(
        losses.HiddenStateCosineDistance(),
        np.ones((1, 1, 2), "float32"),
        np.zeros((1, 1, 2), "float32"),
        None,
    )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_equals_numpy_float64(arrays, name, padded):
    loss, target, expected = cases()[name]
    weight = arrays["weight"] if padded else None
    value, gradient = value_and_gradient(
        loss, target(arrays), arrays["student"], weight
    )
    value_64, gradient_64 = expected(target(arrays), arrays["student"], weight)
    assert value.dtype == gradient.dtype == tf.float32
    close(value, value_64)
    close(gradient, gradient_64)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_kl_divergence_at_temperatures(arrays, temperature):
    loss, target, expected = cases(temperature)["soft_target"]
    # Rounding the logits over a temperature of 0.1, up to 100, moves the
    # logarithms by 100 * 2**-24. At 100, log p - log q is some 0.1 and
    # is known to the float32 rounding of log 17 = 2.8, 2e-6 of it.
    rtol = 1e-5
    for weight in (None, arrays["weight"]):
        actual = value_and_gradient(
            loss, target(arrays), arrays["student"], weight
        )
        desired = expected(target(arrays), arrays["student"], weight)
        for ours, theirs in zip(actual, desired, strict=True):
            close(ours, theirs, rtol=rtol)


def test_kl_divergence_at_a_high_temperature_and_a_real_vocabulary():
    # The plain form, sum(p * (log p - log q)), is 1e-3 off here: it takes
    # the small difference of two normalisers of 10.3.
    generator = np.random.default_rng(1)
    teacher, student = generator.normal(size=(2, 2, 30522)).astype("float32")
    loss = losses.SoftTargetKLDivergence(temperature=100.0)
    expected, _ = reference.kl_divergence(teacher, student, 100.0)
    close(loss(teacher, student), expected, rtol=3e-5)


@pytest.mark.parametrize("name", NAMES)
def test_zero_weights_give_zero(arrays, name):
    loss, target, _ = cases()[name]
    value, gradient = value_and_gradient(
        loss, target(arrays), arrays["student"], np.zeros(SHAPE, "float32")
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_zero_where_teacher_equals_student(arrays, temperature):
    loss = losses.SoftTargetKLDivergence(temperature=temperature)
    value, gradient = value_and_gradient(
        loss, arrays["teacher"], arrays["teacher"], None
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_cosine_is_zero_where_teacher_equals_student(arrays):
    loss = losses.HiddenStateCosineDistance()
    # A sum of 17 rounded float32 products is 1 to some 2**-22.
    for scale in (1.0, 7.0):
        value, gradient = value_and_gradient(
            loss, arrays["teacher"], scale * arrays["teacher"], None
        )
        np.testing.assert_allclose(value, 0.0, atol=5e-7)
        np.testing.assert_allclose(gradient, 0.0, atol=5e-7)


def test_crossentropy_is_zero_for_a_certain_student():
    logits = np.array([[[0.0, 200.0, 0.0]]])
    assert float(losses.MaskedLMCrossentropy()(np.array([[1]]), logits)) == 0


@pytest.mark.parametrize("filling", [1e9, float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_values_of_weight_zero_do_not_matter(arrays, name, filling):
    loss, target, _ = cases()[name]
    weight = arrays["weight"]
    before = value_and_gradient(loss, target(arrays), arrays["student"], weight)
    student = np.where(weight[..., None] > 0, arrays["student"], filling)
    changed = target(arrays)
    if changed.ndim == 3:
        changed = np.where(weight[..., None] > 0, changed, filling)
    after = value_and_gradient(loss, changed, student.astype("float32"), weight)
    np.testing.assert_array_equal(after[0], before[0])
    if np.isfinite(filling):
        np.testing.assert_allclose(after[1], before[1], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_graph_equals_eager(arrays, name):
    loss, target, _ = cases()[name]
    arguments = target(arrays), arrays["student"], arrays["weight"]
    eager = value_and_gradient(loss, *arguments)
    graph = tf.function(value_and_gradient, autograph=False)(loss, *arguments)
    for ours, theirs in zip(graph, eager, strict=True):
        close(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_inputs(arrays, name):
    loss, target, expected = cases()[name]
    rounded = {
        key: tf.cast(value, tf.bfloat16) if value.ndim == 3 else value
        for key, value in arrays.items()
    }
    value, gradient = value_and_gradient(
        loss, target(rounded), rounded["student"], arrays["weight"]
    )
    # The inputs are exact in float64 and the maths is float32 ...
    exact = {
        key: tf.cast(value, tf.float64) if value.dtype == tf.bfloat16 else value
        for key, value in rounded.items()
    }
    value_64, gradient_64 = expected(
        np.array(target(exact)), np.array(exact["student"]), arrays["weight"]
    )
    assert value.dtype == tf.float32
    assert np.isfinite(value)
    close(value, value_64)
    # ... only the gradient returns in 8 bits.
    close(tf.cast(gradient, tf.float32), gradient_64, rtol=2**-8)


def make_losses():
    return [
        losses.MaskedLMCrossentropy(weight=0.3, name="hard"),
        losses.SoftTargetKLDivergence(
            weight=5.0, temperature=3.5, positions="masked", name="soft"
        ),
        losses.HiddenStateCosineDistance(weight=0.0, name="direction"),
    ]


@pytest.mark.parametrize("index", range(3))
def test_config_round_trip(arrays, index):
    loss = make_losses()[index]
    loss.weight.assign(0.7)
    if index == 1:
        loss.temperature.assign(1.25)
        assert loss.get_config()["temperature"] == 1.25
    config = loss.get_config()
    assert config["weight"] == pytest.approx(0.7)
    copies = [
        type(loss).from_config(config),
        keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(loss)
        ),
    ]
    for copy in copies:
        assert type(copy) is type(loss)
        assert copy.get_config() == config
        arguments = cases()[NAMES[index]][1](arrays), arrays["student"]
        assert float(copy(*arguments)) == float(loss(*arguments))


def test_registered_under_the_package():
    for loss in make_losses():
        name = keras.saving.get_registered_name(type(loss))
        assert name == f"keras_distil>{type(loss).__name__}"


def test_temperature_is_read_at_every_call(arrays):
    loss = losses.SoftTargetKLDivergence(temperature=2.0)
    compiled = tf.function(loss)
    arguments = arrays["teacher"], arrays["student"]
    compiled(*arguments)
    loss.temperature.assign(4.0)
    expected, _ = reference.kl_divergence(*arguments, 4.0)
    close(compiled(*arguments), expected)


def test_triple_loss():
    triple = losses.triple_loss(
        mlm_weight=2.0,
        soft_target_weight=5.0,
        cosine_weight=0.5,
        temperature=3.0,
        positions="masked",
    )
    assert [loss.name for loss in triple] == NAMES
    assert [float(loss.weight.numpy()) for loss in triple] == [2.0, 5.0, 0.5]
    assert triple[1].get_config() == {
        "name": "soft_target",
        "weight": 5.0,
        "temperature": 3.0,
        "positions": "masked",
        "confidence_slope": 0.0,
    }
    for loss in triple:
        assert not loss.trainable_variables


@pytest.mark.parametrize("loss_class", [type(loss) for loss in make_losses()])
@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (-1.0, ValueError, r"`weight` must not be negative\. Received: wei"),
        ("1", TypeError, r"`weight` must be a number\. Received: weight='1'"),
        (True, TypeError, r"`weight` must be a number\. Received: weight=Tr"),
        (float("nan"), ValueError, r"`weight` must be finite\. Received: "),
        (float("inf"), ValueError, r"`weight` must be finite\. Received: "),
        (float("-inf"), ValueError, r"`weight` must be finite\. Received: "),
    ],
)
def test_wrong_weight(loss_class, weight, error, message):
    with pytest.raises(error, match=message):
        loss_class(weight=weight)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, r"`temperature` must be positive\."),
        (
            {"temperature": -1.0},
            ValueError,
            r"positive\. Received: temperature=-1\.0\.",
        ),
        ({"temperature": None}, TypeError, r"`temperature` must be a number"),
        (
            {"temperature": float("inf")},
            ValueError,
            r"`temperature` must be finite\. Received: temperature=inf",
        ),
        (
            {"positions": "some"},
            ValueError,
            r"`positions` must be one of \['all', 'masked'\]\. Received: pos",
        ),
    ],
)
def test_wrong_soft_target_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        losses.SoftTargetKLDivergence(**arguments)
    with pytest.raises(error, match=message):
        losses.triple_loss(**arguments)


@pytest.mark.parametrize("base", [losses.LogitsLoss, losses.HiddenStateLoss])
def test_a_family_is_no_loss(base):
    loss = base(weight=1.0, name="x")
    arguments = {
        losses.LogitsLoss: ("targets", "teacher_logits", "student_logits"),
        losses.HiddenStateLoss: (
            "teacher_hidden_states",
            "student_hidden_states",
        ),
    }[base]
    with pytest.raises(NotImplementedError):
        loss.token_values(**dict.fromkeys(arguments))
