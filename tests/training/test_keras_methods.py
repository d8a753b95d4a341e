"""Keras's promises about `fit`, `evaluate`, `predict` and `compile`."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, callbacks, data, losses

SPECIAL = data.SpecialTokens(
    pad_id=0, unknown_id=1, cls_id=2, sep_id=3, mask_id=4
)


@pytest.fixture(scope="module")
def masked_lm():
    """A Distiller of masked language modelling, without a teacher."""
    student = toy.make_student(toy.make_teacher())
    made = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    made.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    return made


@pytest.fixture(scope="module")
def encoder():
    return toy.make_teacher()


def classifier(encoder, **options):
    student = toy.task_model(encoder, "classification", 3, dropout=0.0)
    made = Distiller(None, student, [losses.LabelCrossentropy()])
    made.compile(keras.optimizers.SGD(0.1), run_eagerly=True, **options)
    return made


def texts():
    x, _, _ = toy.make_batch()
    x = {**x, "segment_ids": np.zeros_like(x["token_ids"])}
    return x, np.array([0, 2, 1, 1]), np.array([1.0, 2.0, 0.0, 1.0], "float32")


def endless():
    sequences = np.random.default_rng(0).integers(5, 50, (9, 8))
    return data.masked_lm_dataset(
        sequences.astype("uint16"),
        special=SPECIAL,
        vocabulary_size=toy.VOCABULARY,
        batch_size=4,
        seed=1,
    )


def updates(distiller):
    return int(distiller.optimizer.iterations.numpy())


# === Values in the order of their names ===


def test_values_come_in_the_order_of_their_names(masked_lm):
    x, y, weight = toy.make_batch()
    names = masked_lm.metrics_names
    assert names == ["loss", "mlm_loss", "mlm_accuracy"]
    arguments = {"sample_weight": weight, "verbose": 0}
    values = masked_lm.evaluate(x, y, **arguments)
    by_name = masked_lm.evaluate(x, y, return_dict=True, **arguments)
    assert list(by_name) == names
    assert values == list(by_name.values())
    # One loss of weight 1.
    assert by_name["loss"] == by_name["mlm_loss"] > 1.0 > values[2]
    assert masked_lm.test_on_batch(x, y, weight) == pytest.approx(values)
    by_name = masked_lm.test_on_batch(x, y, weight, return_dict=True)
    assert list(by_name) == names


def test_an_update_of_one_batch_has_the_values_too(masked_lm):
    x, y, weight = toy.make_batch()
    expected = masked_lm.test_on_batch(x, y, weight)
    assert masked_lm.train_on_batch(x, y, weight) == pytest.approx(expected)
    by_name = masked_lm.train_on_batch(x, y, weight, return_dict=True)
    assert list(by_name)[:3] == masked_lm.metrics_names
    assert set(list(by_name)[3:]) == {"learning_rate", "gradient_norm"}


def test_means_start_from_scratch(masked_lm):
    x, y, weight = toy.make_batch()
    masked_lm.train_on_batch(x, y, weight)
    masked_lm.reset_metrics()
    for metric in masked_lm.running_metrics:
        assert [float(v.numpy()) for v in metric.variables] == [0.0, 0.0]


# === Arguments ===


@pytest.mark.parametrize(
    "method",
    ["fit", "evaluate", "predict", "train_on_batch", "test_on_batch"],
)
def test_arguments_are_keras_s_in_its_order(method):
    keras_s, ours = (
        inspect.signature(getattr(kind, method)).parameters.values()
        for kind in (keras.Model, Distiller)
    )
    assert [(p.name, p.default, p.kind) for p in ours] == [
        (p.name, p.default, p.kind) for p in keras_s
    ]


def test_compile_has_keras_s_arguments_in_its_order():
    keras_s, ours = (
        list(inspect.signature(kind.compile).parameters)
        for kind in (keras.Model, Distiller)
    )
    assert ours[: len(keras_s)] == keras_s


@pytest.mark.parametrize("as_list", [True, False])
def test_positional_arguments(masked_lm, tmp_path, as_list):
    x, y, weight = toy.make_batch()
    masked_lm.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    seen = keras.callbacks.History()
    history = masked_lm.fit(
        *(x, y, 3, 2, 0, [seen] if as_list else seen, 0.0, None, False),
        *(None, weight, 1, 2),
    )
    assert history is seen
    assert (history.epoch, updates(masked_lm)) == ([1], 2)
    found = masked_lm.evaluate(x, y, 2, 0, weight, 1, None, True)
    first = {name: value[:2] for name, value in x.items()}
    expected = masked_lm.test_on_batch(first, y[:2], weight[:2])
    assert list(found.values()) == pytest.approx(expected)
    assert masked_lm.predict(x, 3, 0, 1).shape == (3, 7, toy.VOCABULARY)


@pytest.mark.parametrize("form", ["list", "nested", "container", "alone"])
def test_a_training_state_in_every_form_of_callbacks(masked_lm, tmp_path, form):
    masked_lm.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    state = callbacks.TrainingState(tmp_path)
    more = keras.callbacks.TerminateOnNaN()
    given = {
        "list": [more, state],
        "nested": [[more], [state]],
        "container": keras.callbacks.CallbackList(
            [more, state], add_history=True
        ),
        "alone": state,
    }[form]
    history = masked_lm.fit(
        endless(), None, None, 2, 0, given, steps_per_epoch=2
    )
    assert history.epoch == [0, 1]
    assert state.saved_step == updates(masked_lm) == 4


def test_labels_beside_a_dataset_are_not_passed_over(masked_lm, tmp_path):
    state = callbacks.TrainingState(tmp_path)
    for given in ([], [state]):
        with pytest.raises(ValueError, match="`y` should not be passed"):
            masked_lm.fit(
                *(endless(), np.zeros(4), None, 1, 0, given),
                steps_per_epoch=1,
            )


@pytest.mark.parametrize(
    ("method", "argument", "options"),
    [
        ("fit", "steps_per_epoch", {}),
        ("evaluate", "steps", {}),
        ("predict", "steps", {}),
        (
            "fit",
            "validation_steps",
            {"steps_per_epoch": 1, "validation_data": True},
        ),
    ],
)
def test_an_endless_dataset_needs_steps(masked_lm, method, argument, options):
    if "validation_data" in options:
        options = {**options, "validation_data": endless()}
    before = updates(masked_lm)
    with pytest.raises(
        ValueError, match=rf"^`{argument}` is needed with an endless dataset"
    ):
        getattr(masked_lm, method)(endless(), verbose=0, **options)
    assert updates(masked_lm) == before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "mse"}, TypeError, r"takes no `loss`: .*Distiller\(teacher"),
        ({"loss_weights": [1]}, TypeError, r"no `loss_weights`: .*ved: loss_w"),
        ({"jit_compile": "on"}, TypeError, "`jit_compile` must be True, Fal"),
        ({"steps_per_execution": 0}, ValueError, "must be at least 1. Rec"),
        ({"optimiser": "sgd"}, TypeError, "unexpected keyword .*optimiser"),
    ],
)
def test_what_compile_refuses(masked_lm, options, error, message):
    before = masked_lm.optimizer
    with pytest.raises(error, match=message):
        masked_lm.compile(keras.optimizers.SGD(0.5), **options)
    assert masked_lm.optimizer is before


@pytest.mark.parametrize("option", ["auto", False])
def test_defaults_of_keras_may_be_passed(masked_lm, option):
    masked_lm.compile(
        keras.optimizers.SGD(0.01),
        *(None, None, None, None, True, 1, option, option == "auto"),
    )
    assert masked_lm.get_compile_config()["jit_compile"] is False
    assert masked_lm.run_eagerly


def test_fit_before_compile(encoder):
    made = Distiller(
        None, toy.make_student(encoder), [losses.MaskedLMCrossentropy()]
    )
    with pytest.raises(ValueError, match="must call `compile"):
        made.fit(endless())


# === Weights of classes ===


def test_class_weights_are_sample_weights(encoder):
    x, y, _ = texts()
    weights = {0: 3.0, 2: 0.5}
    expected = np.array([3.0, 0.5, 1.0, 1.0], "float32")
    made = [classifier(encoder) for _ in range(4)]
    made[0].fit(x, y, verbose=0, class_weight=weights)
    made[1].fit(x, y, verbose=0, sample_weight=expected)
    batches = tf.data.Dataset.from_tensors((x, y))
    made[2].fit(batches, verbose=0, class_weight=weights)
    made[3].train_on_batch(x, y, class_weight=weights)
    first, *others = (toy.weights_of(m.student) for m in made)
    for other in others:
        for path, value in first.items():
            # Weights are near 1; float32.
            np.testing.assert_allclose(other[path], value, rtol=0, atol=1e-6)
    unweighted = classifier(encoder)
    unweighted.fit(x, y, verbose=0)
    differ = toy.weights_of(unweighted.student)
    assert max(abs(differ[path] - first[path]).max() for path in first) > 1e-3


def test_class_weights_are_refused_where_they_say_nothing(
    masked_lm, encoder, tmp_path
):
    x, y, weight = toy.make_batch()
    for call in (masked_lm.fit, masked_lm.train_on_batch):
        with pytest.raises(ValueError, match="of a classification. Received"):
            call(x, y, sample_weight=weight, class_weight={0: 1.0})
    x, y, _ = texts()
    batches = tf.data.Dataset.from_tensors((x, y)).repeat()
    with pytest.raises(ValueError, match="cannot be used with a `TrainingSta"):
        classifier(encoder).fit(
            batches,
            steps_per_epoch=1,
            class_weight={0: 2.0},
            callbacks=callbacks.TrainingState(tmp_path),
        )


# === Validation, generators ===


def test_every_form_of_validation_data(encoder):
    x, y, weight = texts()
    made = classifier(encoder)
    found = []
    for validation in (
        (x, y, weight),
        (x, y),
        tf.data.Dataset.from_tensors((x, y, weight)),
    ):
        history = made.fit(
            x,
            y,
            batch_size=4,
            epochs=2,
            verbose=0,
            validation_data=validation,
            validation_freq=2,
        ).history
        scores = (
            made.evaluate(*validation[:2], 4, 0, *validation[2:])
            if (isinstance(validation, tuple))
            else made.evaluate(validation, verbose=0)
        )
        found.append(history)
        for name, value in zip(made.metrics_names, scores, strict=True):
            assert history[f"val_{name}"] == [pytest.approx(value)], name
            assert len(history[name]) == 2
    history = made.fit(x, y, verbose=0, validation_split=0.5).history
    assert len(history["val_loss"]) == 1


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("val_label_loss", "min"),
        ("accuracy", "max"),
        ("val_loss", "auto"),
        ("val_other", "auto"),
    ],
)
def test_keras_s_callbacks_know_which_way_is_better(encoder, monitor, mode):
    """They find it in metrics of `compile` only, and fail after an epoch."""
    made = classifier(encoder)
    stop = keras.callbacks.EarlyStopping(monitor)
    given = [[stop], keras.callbacks.TerminateOnNaN()]
    made.fit(*texts()[:2], None, 0, 0, given)
    assert stop.mode == mode


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return texts()


def test_generators_and_py_datasets(encoder):
    made = classifier(encoder)
    made.fit(Batches(), verbose=0, epochs=2)
    assert updates(made) == 4
    made.fit((texts() for _ in range(3)), verbose=0, steps_per_epoch=3)
    assert updates(made) == 7


def test_training_can_be_stopped(encoder):
    made = classifier(encoder)
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: setattr(
            made, "stop_training", True
        )
    )
    made.fit(Batches(), verbose=0, epochs=3, callbacks=stop)
    assert updates(made) == 1


def test_predictions_of_a_dataset(encoder):
    x, y, weight = texts()
    made = classifier(encoder, steps_per_execution=2)
    batches = tf.data.Dataset.from_tensors((x, y, weight)).repeat()
    found = made.predict(batches, steps=3, verbose=0)
    assert found.shape == (12, 3)
    np.testing.assert_allclose(found[8:], made(x), rtol=1e-5, atol=1e-6)
