"""The metrics of `compile`, compared with those of Keras's trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from scipy.special import log_softmax

from keras_distil import Distiller, callbacks, losses

CLASSES = {"classification": 3, "regression": 1, "token_classification": 4}


@pytest.fixture(scope="module")
def encoder():
    return toy.make_teacher()


def make(encoder, kind, **options):
    student = toy.task_model(encoder, kind, CLASSES.get(kind, 1), dropout=0.0)
    generator = np.random.default_rng(0)
    kernel = student.output_dense.kernel
    kernel.assign(generator.normal(0.0, 0.5, kernel.shape).astype("float32"))
    loss = (
        losses.LabelSquaredError()
        if kind == "regression"
        else losses.LabelCrossentropy()
    )
    made = Distiller(None, student, [loss])
    options.setdefault("run_eagerly", True)
    made.compile(keras.optimizers.SGD(0.1), **options)
    return made


def batch(kind, lengths=(7, 7, 7, 7, 7)):
    x, _, _ = toy.make_batch(lengths)
    x = {**x, "segment_ids": np.zeros_like(x["token_ids"])}
    shape = x["token_ids"].shape
    generator = np.random.default_rng(1)
    weight = np.array([1.0, 2.0, 0.0, 0.5, 1.0], "float32")
    if kind == "regression":
        return x, generator.uniform(0, 5, shape[0]).astype("float32"), weight
    if kind == "classification":
        return x, generator.integers(0, 3, shape[0]), weight
    if kind == "span":
        y = {"start": np.arange(5) % 3, "end": np.arange(5) % 3 + 2}
        return x, y, weight
    weight = generator.random(shape).astype("float32")
    return x, generator.integers(0, 4, shape), weight


# By kind, metrics that the Distiller has none of, and one it has.
METRICS = {
    "classification": (
        ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy],
        ["sparse_categorical_accuracy"],
        "sparse_categorical_crossentropy",
    ),
    "regression": (
        ["mean_absolute_error", keras.metrics.RootMeanSquaredError],
        ["mse"],
        "mse",
    ),
    "token_classification": (
        ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy],
        ["sparse_categorical_accuracy"],
        "sparse_categorical_crossentropy",
    ),
}


def given(kind):
    metrics, weighted, _ = METRICS[kind]
    options = {"k": 2, "name": "top"} if kind != "regression" else {}
    first, second = metrics
    return {"metrics": [first, second(**options)], "weighted_metrics": weighted}


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("kind", METRICS)
def test_values_are_those_of_keras(encoder, kind, weighted, micro_batches):
    made = make(encoder, kind, micro_batches=micro_batches, **given(kind))
    x, y, weight = batch(kind)
    if not weighted:
        weight = None
    labels = y[:, None] if kind == "regression" else y
    made.student.compile(loss=METRICS[kind][2], **given(kind))
    expected = made.student.evaluate(
        x, labels, 2, verbose=0, sample_weight=weight, return_dict=True
    )
    del expected["loss"]
    found = made.evaluate(
        x, y, 2, verbose=0, sample_weight=weight, return_dict=True
    )
    assert list(found) == made.metrics_names
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name
    assert made.evaluate(x, y, 2, 0, weight) == list(found.values())


def test_one_hot_labels_and_metrics_of_vectors(encoder, tmp_path):
    f1 = keras.metrics.F1Score(name="f1")
    made = make(encoder, "classification", metrics=["accuracy", f1])
    assert made.metrics_names[-1] == "f1"
    made._compile_metrics.update_state(
        tf.one_hot([0, 1, 1], 3), tf.one_hot([0, 1, 2], 3)
    )
    found = made._compiled_results()
    assert float(found["accuracy"]) == pytest.approx(2 / 3)
    # Precision and recall by hand: 1, 1; 1, 1/2; 0, none.
    np.testing.assert_allclose(found["f1"], [1.0, 2 / 3, 0.0], rtol=1e-5)


def test_tokens_in_the_padding_are_left_out(encoder):
    made = make(
        encoder, "token_classification", **given("token_classification")
    )
    x, y, weight = batch("token_classification", (7, 4, 1, 6, 3))
    logits = np.array(made.student(x))
    real = x["padding_mask"] > 0
    found = made.evaluate(x, y, 5, 0, weight, return_dict=True)
    correct = (logits.argmax(-1) == y)[real]
    assert found["accuracy"] == pytest.approx(correct.mean())
    weights = weight[real].astype("float64")
    assert found["sparse_categorical_accuracy"] == pytest.approx(
        (correct * weights).sum() / weights.sum(), rel=1e-5
    )


def test_ignored_labels_are_not_labels(encoder):
    """-100 has no weight, and does not mean class 0."""
    for kind in ("token_classification", "classification"):
        made = make(encoder, kind, **given(kind))
        x, y, _ = batch(kind)
        y[0] = -100
        logits = np.array(made.student(x))
        found = made.evaluate(x, y, 5, 0, return_dict=True)
        correct = (logits.argmax(-1) == y)[1:].mean()
        assert found["accuracy"] == pytest.approx(correct)
        assert found["sparse_categorical_accuracy"] == pytest.approx(correct)


def test_a_span_has_two_outputs(encoder):
    made = make(
        encoder,
        "span",
        metrics={"start": ["accuracy"], "end": "sparse_categorical_accuracy"},
        weighted_metrics={"end": ["accuracy"]},
    )
    assert made.metrics_names[-3:] == [
        "start_accuracy",
        "end_sparse_categorical_accuracy",
        "end_accuracy",
    ]
    x, y, weight = batch("span", (7, 6, 5, 7, 7))
    logits = np.where(
        x["padding_mask"][..., None] > 0, made.student(x), -np.inf
    )
    correct = [
        logits[..., i].argmax(1) == y[name]
        for i, name in enumerate(("start", "end"))
    ]
    batches = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(2)
    found = made.evaluate(batches, verbose=0, return_dict=True)
    assert found["start_accuracy"] == pytest.approx(correct[0].mean())
    end = "end_sparse_categorical_accuracy"
    assert found[end] == pytest.approx(correct[1].mean())
    assert found["end_accuracy"] == pytest.approx(
        np.average(correct[1], weights=weight)
    )


def test_masked_rows_alone_in_masked_lm(encoder, monkeypatch):
    shapes = []

    def crossentropy(y_true, y_pred):
        shapes.append((tuple(y_true.shape), tuple(y_pred.shape)))
        return keras.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )

    made = Distiller(
        encoder, toy.make_student(encoder), losses.triple_loss(1.0, 1.0, 1.0)
    )
    made.compile(
        keras.optimizers.SGD(0.1),
        metrics=[crossentropy],
        weighted_metrics=["accuracy"],
        run_eagerly=True,
    )
    x, y, weight = toy.make_batch((7, 4, 2, 6))
    shapes.clear()
    found = made.evaluate(x, y, 4, 0, weight, return_dict=True)
    masked = int(weight.sum())
    assert shapes == [((masked,), (masked, toy.VOCABULARY))]
    logits = np.array(toy.full_logits(made.student, x), "float64")
    rows = log_softmax(logits, -1)[weight > 0]
    expected = -rows[np.arange(masked), y[weight > 0]].mean()
    assert found["crossentropy"] == pytest.approx(expected, rel=1e-5)
    assert found["accuracy"] == pytest.approx(found["mlm_accuracy"])
    # A look at the gradients of losses is not a batch of the epoch.
    before = made._compiled_results()
    made.gradient_norms((x, y, weight)).measure()
    assert made._compiled_results() == before


def test_metrics_in_training(encoder):
    x, y, weight = batch("classification")
    made = make(
        encoder, "classification", metrics=["accuracy"], run_eagerly=False
    )
    # Before the first update, so the weights are those that are scored.
    before = made.evaluate(x, y, 5, 0, return_dict=True)["accuracy"]
    history = made.fit(
        x,
        y,
        5,
        2,
        0,
        validation_data=(x, y),
        callbacks=keras.callbacks.EarlyStopping("val_accuracy"),
    ).history
    assert history["accuracy"][0] == pytest.approx(before)
    assert len(history["val_accuracy"]) == 2


def test_a_saved_distiller_has_its_metrics(encoder, tmp_path):
    made = make(encoder, "classification", **given("classification"))
    made.save(tmp_path / "made.keras")
    loaded = keras.saving.load_model(tmp_path / "made.keras")
    assert loaded.metrics_names == made.metrics_names
    x, y, weight = batch("classification")
    assert loaded.evaluate(x, y, 2, 0, weight) == pytest.approx(
        made.evaluate(x, y, 2, 0, weight)
    )
    made.compile("sgd")
    assert made.metrics_names == ["loss", "label_loss", "accuracy"]


def test_the_means_of_an_epoch_continue(encoder, tmp_path):
    """An epoch that was interrupted has the values of all its batches."""
    batches = tf.data.Dataset.from_tensor_slices(batch("classification"))
    batches = batches.repeat().batch(2)

    def fit(folder, *more):
        made = make(encoder, "classification", **given("classification"))
        state = callbacks.TrainingState(folder, every_steps=1)
        return made.fit(
            *(batches, None, None, 1, 0, [*more, state]), steps_per_epoch=4
        ).history

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise InterruptedError

    whole = fit(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        fit(tmp_path / "parts", Stop())
    assert fit(tmp_path / "parts") == whole
    assert 0.0 < whole["top"][0] <= 1.0


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (
            "classification",
            {"metrics": [keras.metrics.Mean(name="label_loss")]},
            ValueError,
            "cannot be computed from",
        ),
        (
            "classification",
            {
                "metrics": [
                    keras.metrics.SparseCategoricalAccuracy(name="label_loss")
                ]
            },
            ValueError,
            r"'label_loss' of `compile` has the name .* `name='my_label_loss'`",
        ),
        (
            "classification",
            {"metrics": "accuracy"},
            TypeError,
            "must be a list",
        ),
        (
            "classification",
            {"weighted_metrics": {"start": ["accuracy"]}},
            ValueError,
            "the model has one output",
        ),
        (
            "span",
            {"metrics": ["accuracy"]},
            ValueError,
            r"keys of \['start', 'e",
        ),
        (
            "span",
            {"metrics": {"middle": "mse"}},
            ValueError,
            "must be a dict by",
        ),
        ("regression", {"metrics": ["acuracy"]}, ValueError, "acuracy"),
    ],
)
def test_what_is_refused(encoder, kind, options, error, message):
    made = make(encoder, kind)
    before = made.optimizer
    with pytest.raises(error, match=message) as raised:
        made.compile("sgd", **options)
    assert made.optimizer is before
    assert "\n" not in str(raised.value)
