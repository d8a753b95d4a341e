"""Losses on vectors of texts against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil import losses

TEMPERATURE = 0.2


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def reference(name, teacher, student, weight):
    """The mean over the texts of a weight, pair by pair."""
    teacher, student = (np.asarray(x, "float64") for x in (teacher, student))
    counted = np.flatnonzero(weight > 0)
    total = 0.0
    for i in counted:
        t, s = teacher[i], student[i]
        if name == "vector_cosine":
            value = 1 - t @ s / np.linalg.norm(t) / np.linalg.norm(s)
        elif name == "vector_mse":
            value = ((t - s) ** 2).mean()
        else:
            others = [j for j in counted if j != i]
            c, d = cosines(teacher)[i, others], cosines(student)[i, others]
            if name == "similarity_mse":
                value = ((c - d) ** 2).mean()
            else:
                p, q = (
                    np.exp(x / TEMPERATURE) / np.exp(x / TEMPERATURE).sum()
                    for x in (c, d)
                )
                value = (p * np.log(p / q)).sum()
        total += weight[i] * value
    return total / weight.sum()


MADE = {
    "vector_cosine": losses.VectorCosineDistance,
    "vector_mse": losses.VectorMeanSquaredError,
    "similarity_kl": lambda: losses.SimilarityKLDivergence(
        temperature=TEMPERATURE
    ),
    "similarity_mse": losses.SimilarityMeanSquaredError,
}


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    teacher, student = generator.normal(size=(2, 6, 5)).astype("float32")
    return teacher, student, np.array([1, 2, 0, 1, 0.5, 1], "float32")


def value_and_gradient(loss, teacher, student, weight):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student, weight)
    return value, tape.gradient(value, student)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", MADE)
def test_equals_numpy_float64(arrays, name, graph):
    teacher, student, weight = arrays
    run = value_and_gradient
    if graph:
        run = tf.function(run, autograph=False)
    value, gradient = run(MADE[name](), teacher, student, weight)
    expected = reference(name, teacher, student, weight)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    # Every entry of the gradient, by central differences in float64.
    step = 1e-6
    for place in np.ndindex(student.shape):
        ends = []
        for sign in (1, -1):
            moved = student.astype("float64")
            moved[place] += sign * step
            ends.append(reference(name, teacher, moved, weight))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(gradient[place]) == pytest.approx(
            slope, rel=1e-4, abs=1e-6
        )


def test_by_hand():
    east, north = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    teacher = np.stack([east, north, -east])
    student = np.stack([east, east, east])
    assert float(losses.VectorCosineDistance()(teacher, student)) == 1.0
    # 0, 2 and 4, over two coordinates.
    assert float(losses.VectorMeanSquaredError()(teacher, student)) == 1.0
    # The teacher's cosines are 0, -1 and 0, the student's 1.
    found = losses.SimilarityMeanSquaredError()(teacher, student)
    assert float(found) == pytest.approx((2.5 + 1 + 2.5) / 3)
    # The student's distribution is even: log 2 less the teacher's entropy.
    entropies = []
    for pair in ([0.0, -1.0], [0.0, 0.0], [-1.0, 0.0]):
        p = np.exp(pair) / np.exp(pair).sum()
        entropies.append(-(p * np.log(p)).sum())
    found = losses.SimilarityKLDivergence(temperature=1.0)(teacher, student)
    assert float(found) == pytest.approx(np.log(2) - np.mean(entropies))


@pytest.mark.parametrize("name", MADE)
def test_zero_where_teacher_equals_student(arrays, name):
    teacher, _, weight = arrays
    value, gradient = value_and_gradient(MADE[name](), teacher, teacher, weight)
    # Cosines in float32 are 1 to within its rounding.
    assert float(value) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


@pytest.mark.parametrize("filling", [1e9, float("nan")])
@pytest.mark.parametrize("name", MADE)
def test_texts_of_weight_zero_are_in_no_pair(arrays, name, filling):
    teacher, student, weight = arrays
    counts = weight[:, None] > 0
    found = MADE[name]()(
        np.where(counts, teacher, filling),
        np.where(counts, student, filling),
        weight,
    )
    assert float(found) == float(MADE[name]()(teacher, student, weight))


@pytest.mark.parametrize("name", ["similarity_kl", "similarity_mse"])
def test_similarities_of_unequal_sizes_and_of_a_text_alone(arrays, name):
    teacher, student, weight = arrays
    found = MADE[name]()(teacher, student[:, :3], weight)
    expected = reference(name, teacher, student[:, :3], weight)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(MADE[name]()(teacher[:1], student[:1])) == 0.0


def test_low_temperatures_are_finite(arrays):
    loss = losses.SimilarityKLDivergence(temperature=1e-4)
    value, gradient = value_and_gradient(loss, *arrays)
    assert np.isfinite(float(value)) and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", MADE)
def test_bfloat16_inputs_are_computed_in_float32(arrays, name):
    rounded = [tf.cast(x, tf.bfloat16) for x in arrays[:2]]
    exact = [tf.cast(x, tf.float64).numpy() for x in rounded]
    value = MADE[name]()(*rounded, arrays[2])
    assert value.dtype == tf.float32
    expected = reference(name, *exact, arrays[2])
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        losses.VectorCosineDistance(3.0, "own", projection="learned"),
        losses.VectorMeanSquaredError(3.0, "own", projection="learned"),
        losses.SimilarityKLDivergence(3.0, 0.5, "own"),
        losses.SimilarityMeanSquaredError(3.0, "own"),
        losses.Matryoshka([4, 2], 3.0, "own"),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_config_round_trip(loss):
    config = keras.saving.serialize_keras_object(loss)
    assert config["registered_name"] == f"keras_distil>{type(loss).__name__}"
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["weight"] == 3.0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: losses.VectorCosineDistance(projection="pca"),
            ValueError,
            "`projection` must be None or one of",
        ),
        (
            lambda: losses.SimilarityKLDivergence(temperature=0.0),
            ValueError,
            "`temperature` must be positive. Received: temperature=0.0",
        ),
        (
            lambda: losses.Matryoshka([]),
            ValueError,
            r"must name at least one, and each once. Received: dimensions=\[\]",
        ),
        (lambda: losses.Matryoshka([4, 4]), ValueError, "and each once"),
        (lambda: losses.Matryoshka([0]), ValueError, "at least 1"),
        (lambda: losses.Matryoshka([2.5]), TypeError, "must be an integer"),
        (
            lambda: losses.Matryoshka([2])(np.ones((2, 3)), np.ones((2, 3))),
            TypeError,
            "A Matryoshka loss repeats the other losses",
        ),
        (
            lambda: losses.VectorMeanSquaredError()(
                np.ones((2, 3)), np.ones((2, 1))
            ),
            ValueError,
            "The shapes of the teacher's vectors and the student's must be",
        ),
    ],
)
def test_what_cannot_be(make, error, message):
    with pytest.raises(error, match=message):
        make()
