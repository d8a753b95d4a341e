"""Several Keras models that teach any other, against NumPy."""

import any_models
import keras
import numpy as np
import pytest
from losses import mixture_reference
from training.objectives.test_any_model_objective import (
    arrays_of,
    central_differences,
    computed,
    mean,
    run_mlp,
)

from keras_distil import Distiller, losses
from keras_distil.training.objectives import AnyModelObjective

TEMPERATURE = 2.5
LAYERS = [("hidden", "hidden")]


def make_teachers(**options):
    """The second is wider."""
    wide = any_models.make_mlp(9, seed=4, **options)
    return [any_models.make_mlp(6, seed=1, **options), wide]


def expected_losses(teachers, student, batch, kind):
    """By name; the student's fifth and sixth array are the projection."""
    x, y, weight = (np.asarray(part, "float64") for part in batch)
    theirs = [run_mlp(arrays, x) for arrays in teachers]
    logits = np.stack([each[1] for each in theirs])
    states, ours = run_mlp(student, x)
    if kind == "regression":
        values, _ = mixture_reference.squared(None, logits, ours)
    else:
        values, _ = mixture_reference.softened(
            mixture_reference.forward, logits, ours, TEMPERATURE
        )
    projected = states @ student[4] + student[5]
    squares = ((theirs[1][0] - projected) ** 2).mean(axis=-1)
    return {
        "soft_target": mean(values, weight),
        "hidden_mse": mean(squares, weight),
    }


def make_losses(kind):
    soft = losses.SoftTargetKLDivergence(temperature=TEMPERATURE)
    label = losses.LabelCrossentropy(0.0)
    if kind == "regression":
        soft = losses.SoftTargetSquaredError()
        label = losses.LabelSquaredError(0.0)
    states = losses.HiddenStateMeanSquaredError(layers=LAYERS, teacher=1)
    return [label, soft, states]


@pytest.mark.parametrize("last", [None, "softmax"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_values_and_gradients(kind, last):
    if kind == "regression" and last:
        pytest.skip("a regression has no softmax")
    teachers = make_teachers(last=last)
    student = any_models.make_mlp(4, seed=2, last=last)
    targets = None
    if kind == "regression":
        generator = np.random.default_rng(5)
        targets = generator.normal(size=(6, 3)).astype("float32")
    batch = any_models.make_batch(targets=targets)
    objective = AnyModelObjective(teachers, student, make_losses(kind))
    means, gradients = computed(objective, batch)
    ours = arrays_of(student, *objective.layer_projections)
    theirs = [arrays_of(each) for each in teachers]
    expected = expected_losses(theirs, ours, batch, kind)
    for name, value in expected.items():
        assert means[f"{name}_loss"] == pytest.approx(value, rel=1e-5)
    differences = central_differences(
        lambda: sum(expected_losses(theirs, ours, batch, kind).values()), ours
    )
    for found, wanted in zip(gradients, differences, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    if kind == "classification":
        x, _, weight = batch
        logits = [run_mlp(arrays, x.astype("float64"))[1] for arrays in theirs]
        joint = mixture_reference.mean_probabilities(np.stack(logits), 1.0)
        guess = run_mlp(ours, x.astype("float64"))[1].argmax(axis=-1)
        agreeing = (guess == joint.argmax(axis=-1)) * weight
        assert means["teacher_agreement"] == pytest.approx(
            agreeing.sum() / weight.sum()
        )


def test_a_list_of_one_is_the_teacher_bit_for_bit():
    batch = any_models.make_batch()
    found = []
    for wrap in (lambda teacher: teacher, lambda teacher: [teacher]):
        keras.utils.set_random_seed(0)
        student = any_models.make_mlp(4, seed=2)
        distiller = Distiller(
            wrap(any_models.make_mlp(6, seed=1)),
            student,
            [
                losses.SoftTargetKLDivergence(),
                losses.HiddenStateCosineDistance(layers=LAYERS),
            ],
        )
        distiller.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
        logs = distiller.train_on_batch(*batch, return_dict=True)
        found.append((logs, [v.numpy() for v in student.weights]))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_images_in_a_graph(jit_compile):
    """Two nets teach a third; each has a layer of its own to learn from."""
    teachers = [any_models.make_convnet(n, seed=n) for n in (5, 3)]
    student = any_models.make_convnet(2, seed=9, norm=True)
    pairs = [("conv", "conv")]
    distiller = Distiller(
        teachers,
        student,
        [
            losses.SoftTargetKLDivergence(),
            losses.HiddenStateMeanSquaredError(layers=pairs),
            losses.HiddenStateMeanSquaredError(
                layers=pairs, teacher=1, name="other"
            ),
        ],
    )
    distiller.compile(keras.optimizers.SGD(0.05), jit_compile=jit_compile)
    x, y, weight = any_models.make_batch(shape=(4, 4, 2))
    history = distiller.fit(
        x, y, sample_weight=weight, epochs=4, verbose=0
    ).history
    for name in ("soft_target_loss", "hidden_mse_loss", "other_loss"):
        assert history[name][-1] < history[name][0]


def test_models_that_do_not_fit():
    student = any_models.make_mlp(4, seed=2)
    first, second = make_teachers()
    soft = losses.SoftTargetKLDivergence()
    other = any_models.make_mlp(6, seed=1, outputs=2)
    with pytest.raises(
        ValueError,
        match=r"outputs of the same shape. Received: \(None, 2\) of 'mlp_6'",
    ):
        Distiller([second, other], student, [soft])
    states = losses.HiddenStateCosineDistance(
        layers=[("conv", "hidden")], teacher=1
    )
    with pytest.raises(
        ValueError, match=r"`teacher\[1\]` 'mlp_9' has no layer 'conv'. Its"
    ):
        Distiller([first, second], student, [soft, states])
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(
        ValueError, match=r"^teacher\[1\]: `teacher` has no weights yet"
    ):
        Distiller([first, unbuilt], student, [soft])
