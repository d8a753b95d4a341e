"""The target of several teachers, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from losses import mixture_reference as reference
from losses.mixture_reference import mean_probabilities
from losses.reference import log_softmax, mean_factors

from keras_distil import losses
from keras_distil.losses import functional, mixtures
from keras_distil.losses.base import loss_values

FORWARD = losses.SoftTargetKLDivergence
REVERSE = losses.SoftTargetReverseKLDivergence
MIXED = losses.SoftTargetJensenShannonDivergence
SQUARED = losses.SoftTargetSquaredError
TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 2.0, 100.0])


@pytest.fixture(scope="module")
def arrays():
    """Three teachers' logits, the student's, and weights."""
    generator = np.random.default_rng(0)
    teachers = generator.normal(0.0, 3.0, (3, 14, 17)).astype("float32")
    student = generator.normal(0.0, 3.0, (14, 17)).astype("float32")
    weight = generator.integers(0, 3, 14).astype("float32")
    weight[0], weight[1] = 0.0, 2.0
    return teachers, student, weight


def test_by_hand():
    """(1/2, 1/2) and (1/4, 3/4) have the mean (3/8, 5/8)."""
    teachers = [np.array([[0.0, 0.0]]), np.log(np.array([[1.0, 3.0]]))]
    found = mixtures.mixture_logits(teachers, 1.0)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(
        tf.nn.softmax(found), [[3 / 8, 5 / 8]], rtol=1e-6
    )
    # At a temperature of 1/2, logits double: 1/2, 1/2 and 1/10, 9/10.
    found = mixtures.mixture_logits(teachers, 0.5)
    np.testing.assert_allclose(
        tf.nn.softmax(found / 0.5), [[0.3, 0.7]], rtol=1e-6
    )
    found = mixtures.mean_outputs([np.array([[1.0]]), np.array([[4.0]])])
    np.testing.assert_array_equal(found, [[2.5]])


@TEMPERATURES
def test_it_is_the_mean_of_the_softmaxes(arrays, temperature):
    teachers, _, _ = arrays
    found = mixtures.mixture_logits(list(teachers), temperature)
    expected = mean_probabilities(teachers, temperature)
    found = np.exp(log_softmax(np.array(found) / temperature))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # What tells classes apart is a hundredth at a temperature of 100.
    found, expected = found - 1 / 17, expected - 1 / 17
    np.testing.assert_allclose(
        found, expected, atol=2e-6 * np.abs(expected).max()
    )


def test_a_temperature_for_each_token(arrays):
    teachers, _, _ = arrays
    temperature = np.linspace(0.5, 4.0, 14, dtype="float32")
    found = mixtures.mixture_logits(list(teachers), temperature)
    found = np.exp(log_softmax(np.array(found) / temperature[:, None]))
    expected = mean_probabilities(teachers, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sure_teachers_do_not_outvote_others():
    """One is sure of each class; the third says 0.2 and 0.8."""
    teachers = [
        np.array([[300.0, 0.0]], "float32"),
        np.array([[0.0, 200.0]], "float32"),
        np.log(np.array([[1.0, 4.0]], "float32")),
    ]
    found = tf.nn.softmax(mixtures.mixture_logits(teachers, 1.0))
    np.testing.assert_allclose(found, [[0.4, 0.6]], rtol=1e-6)


def test_the_first_choice_is_that_of_the_probabilities():
    """The mean of the logits would choose the second class."""
    sure = np.array([[8.0, 0.0, 0.0]], "float32")
    other = np.array([[-20.0, 0.0, -1.0]], "float32")
    assert np.argmax(sure + other) == 1
    joint = mixtures.joint_logits(mixtures.one_or_several([other, sure]))
    assert np.argmax(joint) == 0
    assert mixtures.joint_logits(sure) is sure
    assert mixtures.one_or_several([sure]) is sure
    assert mixtures.one_or_several([]) is None


def test_choices_that_do_not_exist():
    """The padding of a span is never chosen, and counts in no mean."""
    never = functional.NEVER
    teachers = [
        np.array([[1.0, never, 2.0]], "float32"),
        np.array([[4.0, never, 0.0]], "float32"),
    ]
    found = mixtures.mixture_logits(teachers, 3.0)
    expected = mean_probabilities(np.array(teachers)[..., [0, 2]], 3.0)
    np.testing.assert_allclose(
        np.array(tf.nn.softmax(found / 3.0))[:, [0, 2]], expected, rtol=1e-6
    )
    student = tf.constant([[0.5, never, 1.0]])
    both = mixtures.SeveralLogits(tuple(teachers))
    for loss in (FORWARD(), REVERSE(), MIXED(), SQUARED()):
        value = values_of(loss, both, student)
        short = mixtures.SeveralLogits(
            tuple(each[:, [0, 2]] for each in teachers)
        )
        np.testing.assert_allclose(
            value,
            values_of(loss, short, tf.gather(student, [0, 2], axis=1)),
            rtol=1e-5,
        )


def values_of(loss, teachers, student):
    return loss_values(
        loss,
        tf.ones(student.shape[:1]),
        targets=None,
        teacher_logits=teachers,
        student_logits=student,
    )


# === Losses ===


@TEMPERATURES
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FORWARD, reference.forward),
        (REVERSE, reference.reverse),
        (MIXED, reference.mixed),
    ],
)
def test_divergences_equal_numpy(arrays, kind, expected, temperature):
    teachers, student, _ = arrays
    check_loss(
        kind(temperature=temperature),
        arrays,
        *reference.softened(expected, teachers, student, temperature),
        # At a temperature of 100, distributions differ by a hundredth.
        rel=1e-5 if temperature < 100 else 1e-4,
    )


def test_a_squared_error_has_the_mean_of_outputs(arrays):
    teachers, student, _ = arrays
    check_loss(SQUARED(), arrays, *reference.squared(None, teachers, student))


def check_loss(loss, arrays, values, slopes, rel=1e-5):
    teachers, student, weight = arrays
    student = tf.constant(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        found = values_of(
            loss, mixtures.SeveralLogits(tuple(teachers)), student
        )
        mean = functional.weighted_mean(found, weight)
    factors = mean_factors(weight, values.shape)
    assert float(mean) == pytest.approx((values * factors).sum(), rel=rel)
    expected = slopes * factors[:, None]
    np.testing.assert_allclose(
        tape.gradient(mean, student),
        expected,
        rtol=rel,
        # Relative to the largest entry: entries near zero carry rounding.
        atol=rel * np.abs(expected).max(),
    )


def test_the_confidence_s_temperature(arrays):
    """Each token's mean has the temperature that its divergence has."""
    teachers, student, _ = arrays
    loss = FORWARD(temperature=2.0, confidence_slope=0.5)
    loss.mean_inverse_confidence.assign(3.0)
    temperature = np.array(loss.token_temperature(student), "float64")
    assert np.ptp(temperature) > 0.1
    p = mean_probabilities(teachers, temperature)
    log_q = log_softmax(student.astype("float64") / temperature[:, None])
    expected = temperature**2 * (p * (np.log(p) - log_q)).sum(axis=-1)
    found = values_of(
        loss,
        mixtures.SeveralLogits(tuple(teachers)),
        tf.constant(student),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_mean_of_divergences_differs_by_a_constant(arrays):
    """So the student learns from the teachers on average."""
    teachers, student, _ = arrays
    loss = FORWARD(temperature=2.0)
    gaps = []
    for ours in (student, 0.3 * student[::-1]):
        ours = tf.constant(ours)
        together = values_of(
            loss, mixtures.SeveralLogits(tuple(teachers)), ours
        )
        single = [values_of(loss, each, ours) for each in teachers]
        gaps.append(np.mean(single, axis=0) - np.array(together))
    assert gaps[0].min() > 0.1
    # Differences of values near 10.
    np.testing.assert_allclose(*gaps, atol=1e-5)


def test_teachers_that_agree_are_one(arrays):
    teachers, student, _ = arrays
    student = tf.constant(student)
    for loss in (FORWARD(), REVERSE(), MIXED(), SQUARED()):
        both = mixtures.SeveralLogits((teachers[0], teachers[0]))
        np.testing.assert_allclose(
            values_of(loss, both, student),
            values_of(loss, teachers[0], student),
            rtol=1e-5,
        )
