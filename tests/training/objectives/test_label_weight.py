"""Examples that only the teacher labels, against losses in NumPy."""

import keras
import marks
import numpy as np
import pytest
import tensorflow as tf
import toy
from test_task_objective import (
    KINDS,
    WEIGHTS,
    expected_logs,
    logs_of,
    make_batch,
    make_models,
    task_losses,
)

import keras_distil
from keras_distil import losses
from keras_distil.training.objectives import TaskObjective, make_objective

# The third example has no weight at all.
LABEL_WEIGHT = np.array([1.0, 0.0, 1.0, 0.5], "float32")
OF_LABELS = ("label_loss", "accuracy", "mean_absolute_error")


@pytest.fixture(scope="module")
def masked_lm_teacher():
    return toy.make_teacher()


def make_mixed_batch(kind):
    x, y, weight = make_batch(kind)
    return {**x, "label_weight": LABEL_WEIGHT}, y, weight


def expected_mixed_logs(teacher, student, batch, kind):
    """Means of losses on labels over other weights than of all others."""
    x, y, weight = batch
    of_label = x["label_weight"]
    x = {name: x[name] for name in x if name != "label_weight"}
    if weight.ndim == 2:
        of_label = of_label[:, None]
    logs = expected_logs(teacher, student, (x, y, weight), kind)
    labelled = (x, y, weight * of_label)
    others = expected_logs(teacher, student, labelled, kind)
    return {**logs, **{k: others[k] for k in OF_LABELS if k in others}}


@pytest.mark.parametrize(
    "kind", marks.slow_except(KINDS, "multi_label", "token_classification")
)
def test_an_example_without_a_label_counts_by_its_teacher(
    masked_lm_teacher, kind
):
    teacher, student = make_models(masked_lm_teacher, kind)
    objective = make_objective(teacher, student, task_losses(kind))
    batch = make_mixed_batch(kind)
    expected = expected_mixed_logs(teacher, student, batch, kind)
    plain = expected_logs(teacher, student, make_batch(kind), kind)
    logs = logs_of(objective, batch)
    assert logs.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            logs[name], expected[name], rtol=1e-5, err_msg=name
        )
    assert logs["label_loss"] != pytest.approx(plain["label_loss"], rel=1e-3)


@pytest.mark.parametrize(
    "kind", marks.slow_except(KINDS, "classification", "regression")
)
def test_gradients_of_a_mixed_batch_are_those_of_finite_differences(
    masked_lm_teacher, kind
):
    teacher, student = make_models(masked_lm_teacher, kind)
    objective = make_objective(teacher, student, task_losses(kind))
    batch = make_mixed_batch(kind)
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    _, gradients = objective.compute_gradients(named, sizes, training=True)
    values = [variable.numpy() for variable in objective.variables]
    generator = np.random.default_rng(0)
    directions = [
        generator.normal(size=v.shape) / np.sqrt(v.size) for v in values
    ]
    ends = []
    for step in (0.003, -0.003):
        for variable, value, direction in zip(
            objective.variables, values, directions, strict=True
        ):
            variable.assign((value + step * direction).astype("float32"))
        logs = expected_mixed_logs(teacher, student, batch, kind)
        ends.append(sum(WEIGHTS[x] * logs[f"{x}_loss"] for x in WEIGHTS))
    slope = (ends[0] - ends[1]) / 0.006
    found = sum(
        float((gradient.numpy() * direction).sum())
        for gradient, direction in zip(gradients, directions, strict=True)
    )
    # A central difference: noise of float32 and a cut-off of 0.003**2.
    assert found == pytest.approx(slope, rel=5e-3, abs=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_label_of_an_unlabelled_example_is_not_read(
    masked_lm_teacher, kind
):
    teacher, student = make_models(masked_lm_teacher, kind)
    objective = make_objective(teacher, student, task_losses(kind))
    x, y, weight = make_mixed_batch(kind)
    logs = logs_of(objective, (x, y, weight))
    other = {"regression": np.nan, "span": 1}.get(kind, 0)

    def changed(values):
        return np.concatenate([values[:1], other + 0 * values[1:2], values[2:]])

    label = tf.nest.map_structure(changed, y)
    assert logs_of(objective, (x, label, weight)) == logs
    if kind == "classification":
        y = np.eye(3, dtype="float32")[y]
        y[1] = 0.0
        assert logs_of(objective, (x, y, weight)) == pytest.approx(logs)


@pytest.mark.parametrize("kind", marks.slow_except(KINDS, "span"))
def test_micro_batches_of_a_mixed_batch_give_the_update_of_the_whole(
    masked_lm_teacher, kind
):
    weights = []
    for micro_batches in (1, 3):
        teacher, student = make_models(masked_lm_teacher, kind)
        distiller = keras_distil.Distiller(teacher, student, task_losses(kind))
        distiller.compile(
            keras.optimizers.SGD(0.5),
            micro_batches=micro_batches,
            run_eagerly=True,
        )
        distiller.fit(
            tf.data.Dataset.from_tensors(make_mixed_batch(kind)), verbose=0
        )
        weights.append([v.numpy() for v in student.trainable_variables])
    for whole, parts in zip(*weights, strict=True):
        # Sums of float32 in another order.
        np.testing.assert_allclose(whole, parts, rtol=1e-5, atol=1e-6)


def test_a_batch_without_any_label_has_no_loss_on_labels(masked_lm_teacher):
    teacher, student = make_models(masked_lm_teacher, "classification")
    objective = make_objective(teacher, student, task_losses("classification"))
    x, y, weight = make_mixed_batch("classification")
    none = {**x, "label_weight": np.zeros(4, "float32")}
    named = objective.batch((none, y, weight))
    sums, _ = objective.compute_gradients(
        named, objective.denominators(named), training=False
    )
    assert float(sums["label_sum"]) == float(sums["correct"]) == 0.0
    every = logs_of(objective, (x, y, weight))
    sizes = objective.denominators(named)
    assert float(sizes["labelled"]) == 0.0
    found = float(sums["soft_target_sum"] / sizes["examples"])
    assert found == pytest.approx(every["soft_target_loss"])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_metrics_of_compile_see_labelled_examples_alone(
    masked_lm_teacher, kind
):
    teacher, student = make_models(masked_lm_teacher, kind)
    distiller = keras_distil.Distiller(teacher, student, task_losses(kind))
    metric = {
        "classification": keras.metrics.SparseCategoricalAccuracy,
        "regression": keras.metrics.MeanAbsoluteError,
    }[kind](name="of_keras")
    distiller.compile(
        keras.optimizers.SGD(0.5), weighted_metrics=[metric], run_eagerly=True
    )
    batch = tf.data.Dataset.from_tensors(make_mixed_batch(kind))
    logs = distiller.evaluate(batch, verbose=0, return_dict=True)
    name = "accuracy" if kind == "classification" else "mean_absolute_error"
    assert logs["of_keras"] == pytest.approx(logs[name], rel=1e-5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((4, 2)), r"`label_weight` must have shape \(batch,\)"),
        (np.ones(3), "`label_weight` must have the number of examples|shape"),
        (np.array([1.0, -1.0, 1.0, 1.0]), "`label_weight` must be finite and"),
    ],
)
def test_wrong_weights_of_labels_are_refused(masked_lm_teacher, value, message):
    _, student = make_models(masked_lm_teacher, "classification")
    objective = TaskObjective(None, student, [losses.LabelCrossentropy()])
    x, y, weight = make_batch("classification")
    refused = (ValueError, tf.errors.InvalidArgumentError)
    with pytest.raises(refused, match=message):
        objective.batch(({**x, "label_weight": value}, y, weight))
