"""The objective of any two Keras models against NumPy in float64.

Values are computed by NumPy from the models' weights, gradients as central
differences of these values.
"""

import any_models
import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

from keras_distil import losses
from keras_distil.training.micro_batches import accumulate
from keras_distil.training.objectives import (
    AnyModelObjective,
    make_objective,
)

WEIGHTS = {"label": 0.7, "soft_target": 1.3, "hidden_mse": 0.5, "cosine": 0.9}
TEMPERATURE = 2.5
LAYERS = [("hidden", "hidden")]


def classification(**options):
    return [
        losses.LabelCrossentropy(WEIGHTS["label"], **options),
        losses.SoftTargetKLDivergence(
            WEIGHTS["soft_target"], temperature=TEMPERATURE
        ),
    ]


def regression():
    return [
        losses.LabelSquaredError(WEIGHTS["label"]),
        losses.SoftTargetSquaredError(WEIGHTS["soft_target"]),
    ]


def on_layers(layers=LAYERS):
    return [
        losses.HiddenStateMeanSquaredError(
            WEIGHTS["hidden_mse"], layers=layers
        ),
        losses.HiddenStateCosineDistance(WEIGHTS["cosine"], layers=layers),
    ]


# === The same in NumPy ===


def run_mlp(arrays, x):
    """The states and the last layer's product of `any_models.make_mlp`."""
    kernel, bias, last_kernel, last_bias = arrays[:4]
    states = np.tanh(x @ kernel + bias)
    return states, states @ last_kernel + last_bias


def mean(values, weight):
    """Mean over the positions of an example, then over the examples."""
    values = values.reshape(len(values), -1).mean(axis=1)
    return float((values * weight).sum() / weight.sum())


def expected_losses(teacher, student, batch, *, kind):
    """The losses by name. A fifth and a sixth array are the projection."""
    x, y, weight = (np.asarray(part, "float64") for part in batch)
    t_states, t = run_mlp(teacher, x)
    s_states, s = run_mlp(student, x)
    found = {}
    if kind == "regression":
        found["label"] = mean(((s - y) ** 2).mean(axis=-1), weight)
        found["soft_target"] = mean(((s - t) ** 2).mean(axis=-1), weight)
    else:
        if y.ndim < s.ndim:
            y = np.eye(s.shape[-1])[y.astype(int)]
        crossentropy = -(y * log_softmax(s, axis=-1)).sum(axis=-1)
        found["label"] = mean(crossentropy, weight)
        p = log_softmax(t / TEMPERATURE, axis=-1)
        q = log_softmax(s / TEMPERATURE, axis=-1)
        divergence = TEMPERATURE**2 * (np.exp(p) * (p - q)).sum(axis=-1)
        found["soft_target"] = mean(divergence, weight)
    if len(student) > 4:
        s_states = s_states @ student[4] + student[5]
    if s_states.shape == t_states.shape:
        squares = ((t_states - s_states) ** 2).mean(axis=-1)
        found["hidden_mse"] = mean(squares, weight)
        dots = (t_states * s_states).sum(axis=-1)
        norms = np.linalg.norm(t_states, axis=-1) * np.linalg.norm(
            s_states, axis=-1
        )
        found["cosine"] = mean(1.0 - dots / norms, weight)
    return found


def total(*arguments, names, **options):
    found = expected_losses(*arguments, **options)
    return sum(WEIGHTS[name] * found[name] for name in names)


def arrays_of(*models):
    return [
        np.array(v.numpy(), "float64")
        for model in models
        if model is not None
        for v in model.trainable_variables
    ]


def central_differences(function, arrays, step=1e-5):
    """Gradients by central differences, whose error is about 1e-9."""
    gradients = []
    for array in arrays:
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = function()
            array[place] = kept - step
            gradient[place] = (above - function()) / (2 * step)
            array[place] = kept
        gradients.append(gradient)
    return gradients


def computed(objective, batch, training=True):
    batch = objective.batch(batch)
    denominators = objective.denominators(batch)
    sums, gradients = objective.compute_gradients(
        batch, denominators, training=training
    )
    means = {
        name: float(sums[key] / denominators[denominator])
        for name, (key, denominator) in objective.metric_terms.items()
    }
    return means, [np.array(gradient) for gradient in gradients]


def check(teacher, student, batch, made, *, kind="classification", **options):
    """Compares values and gradients with NumPy; returns the means."""
    objective = AnyModelObjective(teacher, student, made, **options)
    means, gradients = computed(objective, batch)
    projections = [objective.projection, *objective.layer_projections]
    ours = arrays_of(student, *projections)
    theirs = arrays_of(teacher)
    names = [loss.name for loss in made]
    expected = expected_losses(theirs, ours, batch, kind=kind)
    for name in names:
        # Float32 sums of about ten terms.
        assert means[f"{name}_loss"] == pytest.approx(
            expected[name], rel=1e-5, abs=1e-7
        )
    differences = central_differences(
        lambda: total(theirs, ours, batch, kind=kind, names=names), ours
    )
    assert len(gradients) == len(ours)
    for found, wanted in zip(gradients, differences, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert sum(np.abs(wanted).sum() for wanted in differences) > 0.1
    return means


# === Values and gradients ===


@pytest.mark.parametrize("last", [None, "softmax"])
def test_classes_with_losses_on_layers(last):
    """A softmax is read before it; widths differ, so there is a projection."""
    teacher = any_models.make_mlp(6, seed=1, last=last)
    student = any_models.make_mlp(4, seed=2, last=last)
    batch = any_models.make_batch()
    made = [*classification(), *on_layers()]
    means = check(teacher, student, batch, made)
    x, y, weight = batch
    guess, theirs = (
        np.argmax(model.predict(x, verbose=0), axis=-1)
        for model in (student, teacher)
    )
    assert means["accuracy"] == pytest.approx(
        (weight * (guess == y)).sum() / weight.sum()
    )
    assert means["teacher_agreement"] == pytest.approx(
        (weight * (guess == theirs)).sum() / weight.sum()
    )


def test_equal_widths_need_no_projection():
    teacher, student = (any_models.make_mlp(4, seed=seed) for seed in (1, 2))
    made = [*classification(), *on_layers()]
    assert len(AnyModelObjective(teacher, student, made).variables) == 4
    check(teacher, student, any_models.make_batch(), made)


def test_a_softmax_layer_and_an_activation_are_read_before_them():
    batch = any_models.make_batch()
    models = [any_models.make_mlp(4, seed=seed) for seed in (1, 2)]
    expected = check(*models, batch, classification())
    for layer in (
        keras.layers.Softmax(),
        keras.layers.Activation("softmax"),
        keras.layers.Activation("linear"),
    ):
        wrapped = keras.Sequential([models[0], layer])
        assert check(wrapped, models[1], batch, classification()) == (
            pytest.approx(expected)
        )


def test_logits_keep_their_digits():
    """The log of a softmax in float32 would be infinite at 0."""
    teacher, student = (
        any_models.make_mlp(4, seed=seed, last="softmax") for seed in (1, 2)
    )
    for model in (teacher, student):
        kernel = model.get_layer("last").kernel
        kernel.assign(kernel.numpy() * 100.0)
    batch = any_models.make_batch()
    assert (teacher.predict(batch[0], verbose=0) == 0.0).any()
    check(teacher, student, batch, classification())


def test_labels_may_be_probabilities():
    generator = np.random.default_rng(4)
    y = generator.dirichlet(np.ones(3), 6).astype("float32")
    teacher = any_models.make_mlp(6, seed=1)
    student = any_models.make_mlp(4, seed=2)
    batch = any_models.make_batch(targets=y)
    check(teacher, student, batch, classification())


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_positions_of_an_example(kind):
    """Two more axes before the last: the mean over them is the example's."""
    shape = (2, 3, 5)
    generator = np.random.default_rng(5)
    if kind == "classification":
        y = generator.integers(0, 3, (6, 2, 3))
        made = [*classification(), *on_layers()]
    else:
        y = generator.normal(size=(6, 2, 3, 3)).astype("float32")
        made = [*regression(), *on_layers()]
    teacher = any_models.make_mlp(6, seed=1, shape=shape)
    student = any_models.make_mlp(4, seed=2, shape=shape)
    batch = any_models.make_batch(shape=shape, targets=y)
    means = check(teacher, student, batch, made, kind=kind)
    if kind == "classification":
        right = np.argmax(student.predict(batch[0], verbose=0), -1) == y
        assert means["accuracy"] == pytest.approx(mean(right, batch[2]))


@pytest.mark.parametrize("outputs", [1, 4])
def test_numbers(outputs):
    generator = np.random.default_rng(6)
    y = generator.normal(size=(6, outputs)).astype("float32")
    teacher = any_models.make_mlp(6, seed=1, outputs=outputs)
    student = any_models.make_mlp(4, seed=2, outputs=outputs)
    batch = any_models.make_batch(targets=y)
    means = check(teacher, student, batch, regression(), kind="regression")
    errors = np.abs(student.predict(batch[0], verbose=0) - y)
    assert means["mean_absolute_error"] == pytest.approx(
        mean(errors, batch[2]), rel=1e-5
    )
    if outputs == 1:
        flat = any_models.make_batch(targets=y[:, 0])
        objective = AnyModelObjective(teacher, student, regression())
        assert computed(objective, flat)[0] == pytest.approx(means)


def test_outputs_of_numbers_may_have_any_activation():
    teacher, student = (
        any_models.make_mlp(4, seed=seed, last="sigmoid") for seed in (1, 2)
    )
    x, _, weight = any_models.make_batch()
    y = np.full((6, 3), 0.25, "float32")
    objective = AnyModelObjective(teacher, student, regression())
    means, _ = computed(objective, (x, y, weight))
    errors = (student.predict(x, verbose=0).astype("float64") - y) ** 2
    assert means["label_loss"] == pytest.approx(mean(errors, weight), rel=1e-5)


def test_a_weight_of_0_counts_nowhere():
    teacher = any_models.make_mlp(6, seed=1)
    student = any_models.make_mlp(4, seed=2)
    made = [*classification(), *on_layers()]
    objective = AnyModelObjective(teacher, student, made)
    x, y, weight = any_models.make_batch()
    kept = [0, 1, 3, 4, 5]
    means, gradients = computed(objective, (x, y, weight))
    few, few_gradients = computed(objective, (x[kept], y[kept], weight[kept]))
    assert few == pytest.approx(means)
    for one, other in zip(gradients, few_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    # As if all had the weight 1.
    same, _ = computed(objective, (x, y))
    ones, _ = computed(objective, (x, y, np.ones(6)))
    assert same == ones != means


def test_zero_where_teacher_and_student_are_equal():
    teacher, student = (any_models.make_mlp(4, seed=1) for _ in range(2))
    made = [
        losses.LabelCrossentropy(0.0),
        losses.SoftTargetKLDivergence(),
        *on_layers(),
    ]
    means, gradients = computed(
        AnyModelObjective(teacher, student, made), any_models.make_batch()
    )
    for name in ("soft_target_loss", "hidden_mse_loss", "cosine_loss"):
        # The rounding of norms and sums.
        assert means[name] == pytest.approx(0.0, abs=1e-6)
    assert max(np.abs(gradient).max() for gradient in gradients) < 1e-6


def test_the_statistic_of_a_loss_is_its_mean():
    teacher = any_models.make_mlp(6, seed=1)
    student = any_models.make_mlp(4, seed=2)
    made = [losses.SoftTargetKLDivergence(confidence_slope=1.0)]
    x, y, weight = any_models.make_batch()
    means, _ = computed(
        AnyModelObjective(teacher, student, made), (x, y, weight)
    )
    logits = student.predict(x, verbose=0).astype("float64")
    surest = np.exp(log_softmax(logits, axis=-1)).max(axis=-1)
    assert means["soft_target_inverse_confidence"] == pytest.approx(
        mean(1.0 / (surest + 1e-3), weight), rel=1e-5
    )


# === Kinds of models ===


def copy_weights(source, target):
    layers = {layer.name: layer for layer in target.layers}
    for layer in source.layers:
        layers[layer.name].set_weights(layer.get_weights())


def make_functional(width, *, source):
    inputs = {"features": keras.Input((5,), name="features")}
    states = keras.layers.Dense(width, "tanh", name="hidden")(
        inputs["features"]
    )
    outputs = keras.layers.Dense(3, "softmax", name="last")(states)
    model = keras.Model(inputs, outputs)
    copy_weights(source, model)
    return model


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_subclassed_models(activation):
    """Logits or probabilities are said; layers are found by their names."""
    teacher = any_models.make_subclassed(6, seed=1, activation=activation)
    student = any_models.make_subclassed(4, seed=2, activation=activation)
    check(
        teacher,
        student,
        any_models.make_batch(),
        [*classification(), *on_layers()],
        from_logits=activation is None,
    )


def test_inputs_by_name_and_layers_within_models():
    plain = [any_models.make_mlp(4, seed=seed) for seed in (1, 2)]
    x, y, weight = any_models.make_batch()
    made = [*classification(), *on_layers()]
    expected = computed(AnyModelObjective(*plain, made), (x, y, weight))
    functional = [make_functional(4, source=model) for model in plain]
    outer = []
    for model in functional:
        inputs = {"features": keras.Input((5,), name="features")}
        outer.append(keras.Model(inputs, model(inputs)))
    for pair in (functional, outer):
        found = computed(
            AnyModelObjective(*pair, made), ({"features": x}, y, weight)
        )
        assert found[0] == pytest.approx(expected[0], rel=1e-6)
        for one, other in zip(found[1], expected[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_inputs_in_a_list():
    def make(width, seed):
        inputs = [keras.Input((5,)), keras.Input((5,))]
        both = keras.layers.Add()(inputs)
        states = keras.layers.Dense(width, "tanh", name="hidden")(both)
        return keras.Model(inputs, keras.layers.Dense(3, name="last")(states))

    plain = [any_models.make_mlp(6, seed=1), any_models.make_mlp(4, seed=2)]
    models = [make(6, 1), make(4, 2)]
    for source, target in zip(plain, models, strict=True):
        copy_weights(source, target)
    x, y, weight = any_models.make_batch()
    expected, _ = computed(
        AnyModelObjective(*plain, classification()), (x, y, weight)
    )
    for several in ([0.25 * x, 0.75 * x], (0.25 * x, 0.75 * x)):
        found, _ = computed(
            AnyModelObjective(*models, classification()), (several, y, weight)
        )
        assert found == pytest.approx(expected, rel=1e-5)


def test_a_quantised_teacher_teaches_what_it_predicts():
    teacher = any_models.make_mlp(6, seed=1, last="softmax")
    student = any_models.make_mlp(4, seed=2)
    for layer in teacher.layers:
        layer.quantize("int8")
    x, y, weight = any_models.make_batch()
    made = [*classification(), *on_layers()]
    means, _ = computed(
        AnyModelObjective(teacher, student, made), (x, y, weight)
    )
    p = teacher.predict(x, verbose=0).astype("float64") ** (1 / TEMPERATURE)
    p /= p.sum(axis=-1, keepdims=True)
    q = log_softmax(student.predict(x, verbose=0) / TEMPERATURE, axis=-1)
    divergence = TEMPERATURE**2 * (p * (np.log(p) - q)).sum(axis=-1)
    assert means["soft_target_loss"] == pytest.approx(
        mean(divergence, weight), rel=1e-4
    )


def test_a_kerashub_model_without_a_family_here_is_any_model():
    from keras_hub.models import ResNetBackbone, ResNetImageClassifier

    def make():
        return ResNetImageClassifier(
            ResNetBackbone(
                input_conv_filters=[64],
                input_conv_kernel_sizes=[3],
                stackwise_num_filters=[64],
                stackwise_num_blocks=[1],
                stackwise_num_strides=[1],
                block_type="basic_block",
                image_shape=(8, 8, 3),
            ),
            num_classes=3,
        )

    objective = make_objective(make(), make(), classification())
    assert isinstance(objective, AnyModelObjective)
    means, _ = computed(objective, any_models.make_batch(shape=(8, 8, 3)))
    assert means["label_loss"] > 0.0


# === Parts of a batch ===


@pytest.mark.parametrize("parts", [2, 4, 7])
def test_micro_batches_are_one_batch(parts):
    """Also where a part has no example of weight above 0, or none at all."""
    teacher = any_models.make_mlp(6, seed=1)
    student = any_models.make_mlp(4, seed=2)
    made = [*classification(), *on_layers()]
    objective = AnyModelObjective(teacher, student, made)
    batch = objective.batch(any_models.make_batch())
    denominators = objective.denominators(batch)
    whole, divided = (
        accumulate(objective, batch, denominators, parts=n, observe=None)
        for n in (1, parts)
    )
    for key, value in whole[0].items():
        assert float(divided[0][key]) == pytest.approx(float(value), rel=1e-5)
    for one, other in zip(whole[1], divided[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.essential
def test_graph_equals_eager():
    teacher = any_models.make_mlp(6, seed=1, last="softmax")
    student = any_models.make_mlp(4, seed=2)
    made = [*classification(), *on_layers()]
    objective = AnyModelObjective(teacher, student, made)
    x, y, weight = map(tf.constant, any_models.make_batch())
    means, gradients = computed(objective, (x, y, weight))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 5]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None]),
        ]
    )
    def run(x, y, weight):
        batch = objective.batch((x, y, weight))
        denominators = objective.denominators(batch)
        return objective.compute_gradients(batch, denominators, training=True)

    sums, found = run(x, y, weight)
    assert float(sums["label_sum"] / tf.reduce_sum(weight)) == pytest.approx(
        means["label_loss"], rel=1e-6
    )
    for one, other in zip(gradients, found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
