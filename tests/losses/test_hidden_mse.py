"""The squared error of hidden states: maths, layers and objectives."""

import keras
import marks
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, losses
from keras_distil.losses.settings import HiddenStateSettings
from keras_distil.models import forward


def reference(teacher, student, weight=None):
    """Value, and gradient for the student's states, in float64."""
    teacher = np.asarray(teacher, "float64")
    student = np.asarray(student, "float64")
    weight = np.ones(teacher.shape[:-1]) if weight is None else weight
    weight = np.asarray(weight, "float64")
    share = weight / weight.sum()
    width = teacher.shape[-1]
    values = ((student - teacher) ** 2).sum(axis=-1) / width
    gradient = 2.0 * (student - teacher) / width * share[..., None]
    return (values * share).sum(), gradient


def value_and_gradient(loss, teacher, student, weight=None):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student, weight)
    return value, tape.gradient(value, student)


@pytest.fixture(scope="module")
def arrays():
    generator = np.random.default_rng(0)
    teacher, student = generator.normal(size=(2, 3, 5, 7)).astype("float32")
    weight = generator.integers(0, 3, (3, 5)).astype("float32")
    weight[0, 0], weight[1, 1] = 0.0, 2.0
    return teacher, student, weight


def test_by_hand():
    teacher = np.array([[[1.0, 2.0], [0.0, 0.0]]])
    student = np.array([[[3.0, 2.0], [1.0, -3.0]]])
    # (4 + 0) / 2 and (1 + 9) / 2.
    loss = losses.HiddenStateMeanSquaredError()
    assert float(loss(teacher, student)) == 3.5
    weight = np.array([[3.0, 1.0]])
    assert float(loss(teacher, student, weight)) == (3 * 2 + 5) / 4
    assert float(loss(teacher, student, 0 * weight)) == 0.0
    np.testing.assert_array_equal(
        loss.token_values(
            teacher_hidden_states=teacher, student_hidden_states=student
        ),
        [[2.0, 5.0]],
    )


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_numpy_float64(arrays, weighted, graph):
    teacher, student, weight = arrays
    weight = weight if weighted else None
    run = value_and_gradient
    if graph:
        run = tf.function(run, autograph=False)
    value, gradient = run(
        losses.HiddenStateMeanSquaredError(), teacher, student, weight
    )
    expected = reference(teacher, student, weight)
    assert float(value) == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-9)


def test_bfloat16_inputs_are_computed_in_float32(arrays):
    rounded = [tf.cast(x, tf.bfloat16) for x in arrays[:2]]
    exact = [tf.cast(x, tf.float64).numpy() for x in rounded]
    loss = losses.HiddenStateMeanSquaredError()
    value = loss(*rounded, arrays[2])
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(
        reference(*exact, arrays[2])[0], rel=1e-5
    )


def test_zero_where_teacher_equals_student(arrays):
    value, gradient = value_and_gradient(
        losses.HiddenStateMeanSquaredError(), arrays[0], arrays[0]
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0 * arrays[0])


@pytest.mark.parametrize("filling", [1e9, float("nan")])
def test_tokens_of_weight_zero_do_not_matter(arrays, filling):
    teacher, student, weight = arrays
    loss = losses.HiddenStateMeanSquaredError()
    counts = weight[..., None] > 0
    found = loss(
        np.where(counts, teacher, filling),
        np.where(counts, student, filling),
        weight,
    )
    assert float(found) == float(loss(teacher, student, weight))


@pytest.mark.parametrize("layers", ["last", [(0, 0), ("embeddings", 1)]])
def test_config_round_trip(layers):
    loss = losses.HiddenStateMeanSquaredError(3.0, "own", layers=layers)
    config = keras.saving.serialize_keras_object(loss)
    assert config["registered_name"] == (
        "keras_distil>HiddenStateMeanSquaredError"
    )
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["weight"] == 3.0


def test_a_recipe_makes_it():
    settings = HiddenStateSettings(weight=2.0, layers=[[1, 0]])
    for kind in ("masked_lm", "span", "regression"):
        (loss,) = losses.make_losses({"hidden_mse": settings}, kind)
        assert type(loss) is losses.HiddenStateMeanSquaredError
        assert loss.layers == ((1, 0),)


PAIRS = [("embeddings", 0), (1, 0)]


def expected_loss(teacher, student, x, weight, project):
    """The mean over the pairs, from Keras's own states."""
    found = []
    for upper, lower in PAIRS:
        states = []
        for model, layer in ((teacher, upper), (student, lower)):
            name = "embeddings_dropout"
            if layer != "embeddings":
                name = model.backbone.transformer_layers[layer].name
            cut = keras.Model(
                model.backbone.input, model.backbone.get_layer(name).output
            )
            inputs = forward.encoder_inputs(model, x)
            states.append(np.array(cut(inputs), "float64"))
        states[1] = project(states[1], (upper, lower))
        found.append(reference(*states, weight)[0])
    return np.mean(found)


@pytest.mark.parametrize(
    "kind", marks.slow_except(["masked_lm", "classification"], "masked_lm")
)
@pytest.mark.parametrize("width", marks.slow_except([8, 16], 16))
def test_in_a_distiller(kind, width):
    teacher = toy.make_teacher(num_layers=3)
    student = toy.initialize_student(teacher, 2, hidden_dim=width, dropout=0.0)
    x, y, sample_weight = toy.make_batch()
    label = losses.MaskedLMCrossentropy()
    if kind != "masked_lm":
        teacher, student = (
            toy.task_model(model, kind, 3, dropout=0.0)
            for model in (teacher, student)
        )
        y, sample_weight = np.array([0, 1, 2, 0]), np.ones(4, "float32")
        label = losses.LabelCrossentropy()
    loss = losses.HiddenStateMeanSquaredError(layers=PAIRS)
    distiller = Distiller(teacher, student, [label, loss])
    distiller.compile(
        keras.optimizers.SGD(0.1),
        micro_batches=2,
        # One of them in a graph.
        run_eagerly=(kind, width) != ("masked_lm", 16),
    )
    assert len(distiller.layer_projections) == (2 if width == 8 else 0)
    projections = dict(zip(PAIRS, distiller.layer_projections, strict=False))

    def project(states, pair):
        if width == 16:
            return states
        layer = projections[pair]
        return states @ layer.kernel.numpy() + layer.bias.numpy()

    expected = expected_loss(teacher, student, x, x["padding_mask"], project)
    batches = tf.data.Dataset.from_tensors((x, y, sample_weight))
    logs = distiller.evaluate(batches, return_dict=True, verbose=0)
    assert logs["hidden_mse_loss"] == pytest.approx(expected, rel=1e-5)
    distiller.fit(batches, epochs=3, verbose=0)
    after = distiller.evaluate(batches, return_dict=True, verbose=0)
    assert after["hidden_mse_loss"] < logs["hidden_mse_loss"]
