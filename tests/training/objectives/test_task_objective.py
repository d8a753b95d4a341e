"""The objective of tasks against losses written out in NumPy."""

import keras
import marks
import numpy as np
import pytest
import tensorflow as tf
import toy
from pool import pooled
from scipy.special import log_softmax

import keras_distil
from keras_distil import losses
from keras_distil.models import forward
from keras_distil.models.task_model import kind_of
from keras_distil.training.objectives import TaskObjective, make_objective

KINDS = {
    "classification": 3,
    "multi_label": 3,
    "regression": 1,
    "token_classification": 4,
    "span": 1,
}
WEIGHTS = {"label": 0.7, "soft_target": 1.3, "cosine": 0.5}
TEMPERATURE = 2.0


@pytest.fixture(scope="module")
def masked_lm_teacher():
    return toy.make_teacher()


@pooled
def make_models(masked_lm_teacher, kind, dropout=0.0):
    made = [
        toy.task_model(encoder, kind, KINDS[kind], dropout=dropout, seed=1)
        for encoder in (masked_lm_teacher, toy.make_student(masked_lm_teacher))
    ]
    for number, model in enumerate(made):
        # The outputs of fresh layers are too small to tell mistakes apart.
        generator = np.random.default_rng(number)
        for layer in (model.output_dense, getattr(model, "pooled_dense", None)):
            if layer is not None:
                kernel = generator.normal(0.0, 0.5, layer.kernel.shape)
                layer.kernel.assign(kernel.astype("float32"))
    return made


def make_batch(kind, seed=3):
    """A Keras triple; the third example has no weight."""
    (x, y, _) = toy.make_batch()
    generator = np.random.default_rng(seed)
    count, length = y.shape
    segments = (np.arange(length) > 2) * x["padding_mask"]
    x = {**x, "segment_ids": segments.astype("int32")}
    weight = np.array([1.0, 1.0, 0.0, 1.0], "float32")
    if kind == "classification":
        return x, generator.integers(0, 3, count), weight
    if kind == "multi_label":
        labels = generator.random((count, 3)) < 0.4
        return x, labels.astype("float32"), weight
    if kind == "regression":
        return x, generator.uniform(0, 5, count).astype("float32"), weight
    if kind == "token_classification":
        labels = generator.integers(0, 4, (count, length))
        chosen = generator.random((count, length)) < 0.7
        return x, labels, chosen.astype("float32")
    lengths = x["padding_mask"].sum(axis=1)
    y = {"start": np.zeros(count, "int32"), "end": lengths - 1}
    return x, y, weight


def expected_logs(teacher, student, batch, kind):
    """The means by NumPy in float64, from what Keras computes by itself."""
    x, y, weight = batch
    plain = {k: x[k] for k in ("token_ids", "padding_mask")}
    t, s = (
        np.array(model(inputs), "float64")
        for model, inputs in ((teacher, x), (student, plain))
    )
    hidden = [
        np.array(teacher.backbone(x)["sequence_output"], "float64"),
        np.array(student.backbone(plain), "float64"),
    ]
    real = x["padding_mask"].astype("float64")
    # Examples of weight 0 count nowhere; tokens count with their example.
    counted = real * (weight.max(1) if weight.ndim == 2 else weight)[:, None]
    if kind == "span":
        t, s = (
            np.concatenate(
                [
                    np.where(real[..., None] > 0, v, -np.inf)[..., i]
                    for i in (0, 1)
                ]
            )
            for v in (t, s)
        )
        targets = np.concatenate([y["start"], y["end"]])
        weight = np.concatenate([weight, weight])
    elif kind == "token_classification":
        t, s = (v.reshape(-1, v.shape[-1]) for v in (t, s))
        targets, weight = y.ravel(), (weight * real).ravel()
    else:
        targets = y

    def mean(values):
        return float((values * weight).sum() / weight.sum())

    dots = (hidden[0] * hidden[1]).sum(-1)
    norms = np.linalg.norm(hidden[0], axis=-1) * np.linalg.norm(
        hidden[1], axis=-1
    )
    logs = {
        "cosine_loss": float(
            ((1 - dots / norms) * counted).sum() / counted.sum()
        )
    }
    if kind == "regression":
        return logs | {
            "label_loss": mean((s[:, 0] - targets) ** 2),
            "soft_target_loss": mean((s[:, 0] - t[:, 0]) ** 2),
            "mean_absolute_error": mean(abs(s[:, 0] - targets)),
        }
    if kind == "multi_label":
        return logs | several_labels(t, s, targets, mean)
    p = np.exp(log_softmax(t / TEMPERATURE, axis=-1))
    with np.errstate(invalid="ignore"):
        ratio = np.where(
            p > 0,
            log_softmax(t / TEMPERATURE, axis=-1)
            - log_softmax(s / TEMPERATURE, axis=-1),
            0.0,
        )
    rows = np.arange(len(s))
    return logs | {
        "label_loss": mean(-log_softmax(s, axis=-1)[rows, targets]),
        "soft_target_loss": TEMPERATURE**2 * mean((p * ratio).sum(-1)),
        "accuracy": mean(s.argmax(-1) == targets),
        "teacher_agreement": mean(s.argmax(-1) == t.argmax(-1)),
    }


def several_labels(t, s, targets, mean):
    """One sigmoid per label; means over the labels."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    p, q = sigmoid(t / TEMPERATURE), sigmoid(s / TEMPERATURE)
    chosen = sigmoid(s)
    label = targets * np.log(chosen) + (1 - targets) * np.log(1 - chosen)
    soft = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return {
        "label_loss": mean(-label.mean(-1)),
        "soft_target_loss": TEMPERATURE**2 * mean(soft.mean(-1)),
        "accuracy": mean(((s > 0) == (targets > 0.5)).mean(-1)),
        "teacher_agreement": mean(((s > 0) == (t > 0)).mean(-1)),
    }


def task_losses(kind):
    return losses.task_loss(
        kind,
        **{f"{name}_weight": weight for name, weight in WEIGHTS.items()},
        temperature=TEMPERATURE,
    )


def logs_of(objective, batch):
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    sums, gradients = objective.compute_gradients(named, sizes, training=False)
    assert gradients == []
    return {
        name: float(sums[key] / sizes[size])
        for name, (key, size) in objective.metric_terms.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_logs_are_those_of_numpy(masked_lm_teacher, kind):
    teacher, student = make_models(masked_lm_teacher, kind)
    assert kind_of(teacher) == kind_of(student) == kind
    objective = make_objective(teacher, student, task_losses(kind))
    batch = make_batch(kind)
    expected = expected_logs(teacher, student, batch, kind)
    logs = logs_of(objective, batch)
    assert logs.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            logs[name], expected[name], rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize(
    "kind", marks.slow_except(KINDS, "span", "multi_label")
)
def test_gradients_are_those_of_finite_differences(masked_lm_teacher, kind):
    teacher, student = make_models(masked_lm_teacher, kind)
    objective = make_objective(teacher, student, task_losses(kind))
    batch = make_batch(kind)
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    _, gradients = objective.compute_gradients(named, sizes, training=True)

    def total():
        logs = expected_logs(teacher, student, batch, kind)
        return sum(WEIGHTS[name] * logs[f"{name}_loss"] for name in WEIGHTS)

    values = [variable.numpy() for variable in objective.variables]
    generator = np.random.default_rng(0)
    for _ in range(3):
        # Through all variables at once: none can be left out.
        directions = [
            generator.normal(size=v.shape) / np.sqrt(v.size) for v in values
        ]
        ends = []
        for step in (0.003, -0.003):
            for variable, value, direction in zip(
                objective.variables, values, directions, strict=True
            ):
                variable.assign((value + step * direction).astype("float32"))
            ends.append(total())
        slope = (ends[0] - ends[1]) / 0.006
        found = sum(
            float((gradient.numpy() * direction).sum())
            for gradient, direction in zip(gradients, directions, strict=True)
        )
        # A central difference: noise of float32 and a cut-off of 0.003**2.
        assert found == pytest.approx(slope, rel=5e-3, abs=5e-4)


@pytest.mark.parametrize(
    "kind", marks.slow_except(KINDS, "token_classification")
)
def test_micro_batches_and_graph_give_the_update_of_the_whole(
    masked_lm_teacher, kind
):
    weights = []
    for micro_batches, eager in ((1, True), (3, False)):
        teacher, student = make_models(masked_lm_teacher, kind)
        distiller = keras_distil.Distiller(teacher, student, task_losses(kind))
        distiller.compile(
            keras.optimizers.SGD(0.5),
            micro_batches=micro_batches,
            run_eagerly=eager,
            clip_norm=1.0,
        )
        batches = tf.data.Dataset.from_tensors(make_batch(kind)).repeat()
        logs = distiller.fit(batches, steps_per_epoch=3, verbose=0).history
        assert "label_loss" in logs and "gradient_norm" in logs
        weights.append([v.numpy() for v in student.trainable_variables])
    for whole, parts in zip(*weights, strict=True):
        np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_the_teacher_reads_segments_and_padding_does_not_matter(
    masked_lm_teacher,
):
    teacher, student = make_models(masked_lm_teacher, "classification")
    objective = make_objective(teacher, student, task_losses("classification"))
    x, y, weight = make_batch("classification")
    logs = logs_of(objective, (x, y, weight))
    padding = x["padding_mask"] == 0
    other = {**x, "token_ids": np.where(padding, 7, x["token_ids"])}
    np.testing.assert_allclose(
        list(logs_of(objective, (other, y, weight)).values()),
        list(logs.values()),
        rtol=1e-5,
    )
    one_segment = {k: v for k, v in x.items() if k != "segment_ids"}
    changed = logs_of(objective, (one_segment, y, weight))
    assert changed["label_loss"] == pytest.approx(logs["label_loss"])
    assert changed["soft_target_loss"] != pytest.approx(
        logs["soft_target_loss"], rel=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_runs_without_dropout(masked_lm_teacher, kind):
    teacher, _ = make_models(masked_lm_teacher, kind, dropout=0.5)
    _, student = make_models(masked_lm_teacher, kind)
    objective = make_objective(teacher, student, task_losses(kind))
    batch = make_batch(kind)
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    sums, _ = objective.compute_gradients(named, sizes, training=True)
    expected = expected_logs(teacher, student, batch, kind)
    for name in ("soft_target_loss", "cosine_loss"):
        key, size = objective.metric_terms[name]
        assert float(sums[key] / sizes[size]) == pytest.approx(
            expected[name], rel=1e-5
        )


@pytest.mark.parametrize("part", ["encoder", "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_student_trains_with_dropout(masked_lm_teacher, kind, part):
    model, _ = make_models(masked_lm_teacher, kind, dropout=0.5)
    for layer in model._flatten_layers():
        is_head = layer is model.output_dropout
        other = is_head if part == "encoder" else not is_head
        if isinstance(layer, keras.layers.Dropout) and other:
            layer.rate = 0.0
    alone = losses.task_loss(kind, soft_target_weight=0, cosine_weight=0)
    objective = make_objective(None, model, alone)
    named = objective.batch(make_batch(kind))
    sizes = objective.denominators(named)
    still, again, dropped = (
        float(
            objective.compute_gradients(named, sizes, training=training)[0][
                "label_sum"
            ]
        )
        for training in (False, False, True)
    )
    assert still == again != pytest.approx(dropped, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_before_the_output_is_for_training_alone(
    masked_lm_teacher, kind
):
    model, _ = make_models(masked_lm_teacher, kind, dropout=0.5)
    generator = np.random.default_rng(0)
    states = generator.normal(size=(4, 7, 16)).astype("float32")
    still, again, dropped = (
        forward.task_outputs(model, states, training=training)
        for training in (False, False, True)
    )
    np.testing.assert_array_equal(still, again)
    assert not np.allclose(dropped, still)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_was_saved_computes_the_same(
    masked_lm_teacher, kind, tmp_path
):
    for number, model in enumerate(make_models(masked_lm_teacher, kind)):
        path = tmp_path / f"{number}.keras"
        model.save(path)
        x = make_batch(kind)[0]
        if number:
            x = {k: x[k] for k in ("token_ids", "padding_mask")}
        np.testing.assert_array_equal(
            keras.saving.load_model(path)(x), model(x)
        )


def test_the_encoder_that_was_given_is_not_changed(masked_lm_teacher):
    before = [v.numpy() for v in masked_lm_teacher.weights]
    model = toy.task_model(masked_lm_teacher, "span", dropout=0.3)
    for variable in model.weights:
        variable.assign(tf.zeros_like(variable))
    for old, new in zip(before, masked_lm_teacher.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    assert model.backbone.dropout == 0.3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (({"token_ids": 1}, 0), "A batch must be"),
        (([1], 0), "Received: x=list"),
        (({"token_ids": [[1]], "padding_mask": [[1]]}, None), "labels as `y`"),
        (
            ({"token_ids": [[1]], "padding_mask": [[1]]}, {"start": 1}),
            "one array",
        ),
    ],
)
def test_wrong_batches_are_refused(masked_lm_teacher, batch, message):
    _, student = make_models(masked_lm_teacher, "classification")
    objective = TaskObjective(None, student, [losses.LabelCrossentropy()])
    with pytest.raises(ValueError, match=message):
        objective.batch(batch)


def test_wrong_labels_of_a_span_are_refused(masked_lm_teacher):
    _, student = make_models(masked_lm_teacher, "span")
    objective = TaskObjective(None, student, [losses.LabelCrossentropy()])
    x, _, _ = make_batch("span")
    with pytest.raises(ValueError, match=r"\{'start', 'end'\}.*y=int"):
        objective.batch((x, 3))
    with pytest.raises(ValueError, match=r"Received: y=\['start'\]"):
        objective.batch((x, {"start": 3}))


def test_models_of_different_tasks_are_refused(masked_lm_teacher):
    teacher, student = make_models(masked_lm_teacher, "classification")
    other = toy.task_model(masked_lm_teacher, "classification", 2)
    with pytest.raises(ValueError, match="same classes. Received: 2 and 3"):
        TaskObjective(other, student, task_losses("classification"))
    with pytest.raises(TypeError, match="same kind of task"):
        TaskObjective(masked_lm_teacher, student, task_losses("classification"))
    with pytest.raises(TypeError, match="must be a model of"):
        TaskObjective(teacher, masked_lm_teacher, task_losses("span"))


def test_losses_of_another_kind_are_refused(masked_lm_teacher):
    teacher, student = make_models(masked_lm_teacher, "classification")
    with pytest.raises(TypeError, match="LabelSquaredError is not for a class"):
        TaskObjective(teacher, student, task_losses("regression"))
    with pytest.raises(TypeError, match="counts masked positions"):
        TaskObjective(teacher, student, losses.triple_loss(positions="masked"))


def test_a_variable_that_no_loss_reaches_is_refused(masked_lm_teacher):
    teacher, student = make_models(masked_lm_teacher, "classification")
    objective = TaskObjective(
        teacher, student, [losses.LabelCrossentropy(weight=1.0)]
    )
    stray = student.backbone.add_weight(shape=(), name="stray")
    assert any(v is stray for v in objective.variables)
    named = objective.batch(make_batch("classification"))
    with pytest.raises(ValueError, match="No loss reaches.*stray"):
        objective.compute_gradients(
            named, objective.denominators(named), training=True
        )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "classfication"}, ValueError, "`kind` must be one of"),
        (
            {"kind": "regression", "num_outputs": 2},
            ValueError,
            "1 for a regression",
        ),
        ({"kind": "span", "encoder": "x"}, TypeError, "Received: str"),
    ],
)
def test_task_model_refuses(masked_lm_teacher, arguments, error, message):
    arguments = {"encoder": masked_lm_teacher, **arguments}
    with pytest.raises(error, match=message):
        toy.task_model(**arguments)


def test_task_model_refuses_other_architectures():
    import keras_hub

    backbone = keras_hub.models.ElectraBackbone(
        vocab_size=20,
        num_layers=1,
        num_heads=2,
        hidden_dim=4,
        embedding_dim=4,
        intermediate_dim=8,
        max_sequence_length=12,
    )
    with pytest.raises(TypeError, match="Received: ElectraBackbone"):
        toy.task_model(backbone, "classification", 2)
    model = toy.task_model(backbone, "span")
    names = ("token_ids", "padding_mask", "segment_ids")
    x = {name: np.ones((1, 3), "int32") for name in names}
    assert model(x).shape == (1, 3, 2)


def test_task_loss_refuses():
    with pytest.raises(ValueError, match="`kind` must be one of"):
        losses.task_loss("spans")
    with pytest.raises(ValueError, match="must be positive"):
        losses.task_loss("span", 0, 0, 0)
