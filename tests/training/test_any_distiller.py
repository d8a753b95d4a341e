"""A Distiller of any two Keras models: updates, Keras's protocol, resume."""

from pathlib import Path

import any_models
import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, callbacks, losses, schedules
from keras_distil.training.keras_methods import NonFiniteLossError

ROOT = Path(__file__).parents[2]
SHAPE = (4, 4, 2)
LAYERS = [("conv", "conv")]


def make_losses(layers=LAYERS):
    made = [losses.LabelCrossentropy(0.5), losses.SoftTargetKLDivergence()]
    if layers:
        made.append(losses.HiddenStateMeanSquaredError(0.3, layers=layers))
    return made


def make_distiller(made=None, *, norm=False, dropout=0.0, **options):
    teacher = any_models.make_convnet(6, seed=1, norm=norm)
    student = any_models.make_convnet(3, seed=2, norm=norm, dropout=dropout)
    distiller = Distiller(teacher, student, made or make_losses())
    distiller.compile(keras.optimizers.SGD(0.1), **options)
    return distiller


def batch(count=6, seed=3):
    return any_models.make_batch(count, SHAPE, seed)


def state_of(model):
    return [np.array(variable.numpy()) for variable in model.variables]


def assert_equal(found, expected, *, atol=0.0):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0.0, atol=atol)


# === Updates ===


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_without_a_teacher_it_is_keras_s_own_step(run_eagerly):
    """Batch normalisation, dropout, weights of examples: all as in Keras."""
    ours, theirs = (
        any_models.make_convnet(3, seed=2, norm=True, dropout=0.3)
        for _ in range(2)
    )
    x, y, _ = batch()
    weight = np.array([1.0, 0.5, 0.0, 2.0, 1.5, 1.0], "float32")
    distiller = Distiller(None, ours, [losses.LabelCrossentropy()])
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=run_eagerly)
    theirs.compile(
        keras.optimizers.SGD(0.1 * 6.0 / float(weight.sum())),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=run_eagerly,
        # Keras would compile it by XLA, which draws other random numbers.
        jit_compile=False,
    )
    for _ in range(3):
        distiller.train_on_batch(x, y, weight)
        theirs.train_on_batch(x, y, weight)
    moving = ours.get_layer("norm").moving_mean.numpy()
    assert np.abs(moving).max() > 1e-3
    # Keras divides by the number of examples, which the rate makes up for.
    assert_equal(state_of(ours), state_of(theirs), atol=1e-6)


@pytest.mark.parametrize("run_eagerly", [True, False])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_one_forward_of_each_model(monkeypatch, micro_batches, run_eagerly):
    calls = []
    call = keras.layers.Conv2D.call

    def counted(self, inputs):
        calls.append(self.filters)
        return call(self, inputs)

    distiller = make_distiller(
        micro_batches=micro_batches, run_eagerly=run_eagerly
    )
    monkeypatch.setattr(keras.layers.Conv2D, "call", counted)
    distiller.train_on_batch(*batch())
    # In a graph, the loop over micro-batches is traced once.
    times = micro_batches if run_eagerly else 1
    assert sorted(calls) == [3] * times + [6] * times


def test_the_teacher_is_not_changed():
    distiller = make_distiller(norm=True)
    teacher = distiller.teacher
    before = state_of(teacher)
    distiller.train_on_batch(*batch())
    assert_equal(state_of(teacher), before)
    assert teacher.trainable
    assert all(layer.trainable for layer in teacher.layers)
    # Nothing of it is left on the layers.
    for model in (teacher, distiller.student):
        assert not any("call" in vars(layer) for layer in model.layers)


def test_a_teacher_teaches_what_it_predicts():
    """Without dropout, and with its moving means."""
    teacher = any_models.make_convnet(3, seed=1, norm=True, dropout=0.5)
    student = any_models.make_convnet(3, seed=1, norm=True)
    distiller = Distiller(teacher, student, make_losses())
    distiller.compile(keras.optimizers.SGD(0.0))
    # In a batch of its own statistics the student differs from its teacher.
    logs = distiller.evaluate(*batch()[:2], verbose=0, return_dict=True)
    assert logs["soft_target_loss"] == pytest.approx(0.0, abs=1e-6)
    logits = teacher(batch()[0], training=False)
    found = distiller.train_on_batch(*batch(), return_dict=True)
    expected = losses.SoftTargetKLDivergence()(
        logits, _training_outputs(student, batch()[0]), batch()[2]
    )
    assert found["soft_target_loss"] == pytest.approx(float(expected), rel=1e-4)
    assert found["soft_target_loss"] > 1e-3


def _training_outputs(student, x):
    with keras.StatelessScope():
        return student(x, training=True)


@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_are_one_batch(parts):
    whole, divided = make_distiller(), make_distiller(micro_batches=parts)
    for distiller in (whole, divided):
        distiller.train_on_batch(*batch(5))
    found, expected = (
        [*state_of(each.student), *state_of(each.layer_projections[0])]
        for each in (divided, whole)
    )
    assert_equal(found, expected, atol=1e-6)


def batch_of_probabilities():
    x, y, weight = any_models.make_batch()
    return x, np.eye(3, dtype="float32")[y], weight


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["norm", "parts", "said", "positions"])
def test_a_step_compiled_by_xla_is_the_same(kind):
    """With what a pass updates, in parts, with checks of its own."""

    def make(jit_compile):
        if kind in ("norm", "parts"):
            return make_distiller(
                norm=kind == "norm",
                micro_batches=1 if kind == "norm" else 2,
                jit_compile=jit_compile,
            )
        if kind == "said":
            models = [
                any_models.make_subclassed(4, seed=x, activation="softmax")
                for x in (1, 2)
            ]
            options = {"from_logits": False}
        else:
            models = [
                any_models.make_mlp(4, seed=x, shape=(None, 5)) for x in (1, 2)
            ]
            options = {}
        made = make_losses([("hidden", "hidden")])
        distiller = Distiller(*models, made, **options)
        distiller.compile(keras.optimizers.SGD(0.1), jit_compile=jit_compile)
        return distiller

    data = {
        "said": batch_of_probabilities(),
        "positions": any_models.make_batch(
            shape=(2, 5), targets=np.ones((6, 2), "int32")
        ),
    }.get(kind, batch())
    compiled, plain = make(True), make(False)
    for _ in range(2):
        logs = [
            each.train_on_batch(*data, return_dict=True)
            for each in (compiled, plain)
        ]
    # Sums of float32 in another order, over two updates.
    assert_equal(state_of(compiled.student), state_of(plain.student), atol=1e-5)
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_dropout_of_micro_batches_goes_on():
    distiller = make_distiller(dropout=0.5, micro_batches=2)
    seeds = [
        v for v in distiller.student.variables if "seed_generator" in v.path
    ]
    before = [v.numpy().copy() for v in seeds]
    distiller.train_on_batch(*batch())
    for variable, earlier in zip(seeds, before, strict=True):
        assert not np.array_equal(variable.numpy(), earlier)


def test_statistics_of_batches_and_micro_batches():
    with pytest.raises(ValueError, match="`micro_batches` must be 1 .*norm"):
        make_distiller(norm=True, micro_batches=2)
    distiller = make_distiller(norm=True)
    distiller.student.get_layer("norm").trainable = False
    distiller.compile("sgd", micro_batches=2)
    before = distiller.student.get_layer("norm").moving_mean.numpy().copy()
    distiller.train_on_batch(*batch())
    after = distiller.student.get_layer("norm").moving_mean.numpy()
    np.testing.assert_array_equal(after, before)
    # A layer may become trainable after `compile`.
    distiller.student.get_layer("norm").trainable = True
    distiller.make_train_function(force=True)
    with pytest.raises(ValueError, match="micro_batches|other variables"):
        distiller.train_on_batch(*batch())


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_a_loss_that_is_not_finite_changes_nothing(run_eagerly):
    """Neither weights nor moving means nor the states of dropout."""
    distiller = make_distiller(norm=True, dropout=0.3, run_eagerly=run_eagerly)
    x, y, weight = batch()
    before = state_of(distiller.student)
    with pytest.raises(NonFiniteLossError, match="step 1: not finite: label"):
        distiller.train_on_batch(x * np.nan, y, weight)
    assert_equal(state_of(distiller.student), before)
    distiller.train_on_batch(x, y, weight)
    assert not np.array_equal(state_of(distiller.student)[0], before[0])


_TWO_REPLICAS = """
import sys
sys.path.insert(0, "tests")
sys.path.insert(0, "tests/training")
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import any_models
from test_any_distiller import make_distiller, batch, state_of

x, y, weight = batch(10)
# The halves of a batch of 5 are uneven, and so are their weights.
data = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(5)

def train(**options):
    distiller = make_distiller(
        metrics=["accuracy"], weighted_metrics=["accuracy"], **options
    )
    logs = distiller.fit(data, verbose=0).history
    logs |= distiller.evaluate(data, verbose=0, return_dict=True)
    assert int(distiller.tokens_seen.numpy()) == 10
    return state_of(distiller.student), logs

weights, logs = train(run_eagerly=True)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    mirrored, mirrored_logs = train()
for one, other in zip(mirrored, weights, strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
for name, value in logs.items():
    np.testing.assert_allclose(
        mirrored_logs[name], value, rtol=1e-5, err_msg=name
    )
# With statistics of batches: those of each replica, averaged, as in Keras.
with strategy.scope():
    distiller = make_distiller(norm=True, dropout=0.3)
    norm = distiller.student.get_layer("norm")
    before = norm.moving_mean.numpy().copy()
    distiller.fit(data, verbose=0)
    assert np.abs(norm.moving_mean.numpy() - before).max() > 1e-3
    theirs = any_models.make_convnet(3, seed=2, norm=True)
    theirs.compile("sgd", "mse")
    norm = keras.layers.BatchNormalization(synchronized=True, name="norm")
    teacher, student = (
        keras.Sequential([
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 3, padding="same", name="conv"),
            keras.layers.BatchNormalization(synchronized=True, name="norm"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, "softmax", name="last"),
        ]) for _ in range(2)
    )
    from keras_distil import Distiller, losses
    distiller = Distiller(teacher, student, [
        losses.LabelCrossentropy(),
        losses.HiddenStateMeanSquaredError(layers=[("conv", "norm")]),
    ])
    distiller.compile("sgd")
    distiller.fit(data, verbose=0)
"""


@pytest.mark.slow
def test_two_replicas_are_one_batch():
    # The devices must be set before TensorFlow starts.
    result = processes.run(["-c", _TWO_REPLICAS], cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]


def test_mixed_bfloat16():
    teacher = any_models.make_mlp(6, seed=1)
    student = any_models.make_mlp(4, seed=2, dtype="mixed_bfloat16")
    made = make_losses([("hidden", "hidden")])
    distiller = Distiller(teacher, student, made)
    assert distiller.layer_projections[0].compute_dtype == "bfloat16"
    distiller.compile("sgd")
    before = student.get_layer("last").kernel.numpy().copy()
    distiller.train_on_batch(*any_models.make_batch())
    after = student.get_layer("last").kernel
    assert after.dtype == "float32"
    assert not np.array_equal(after.numpy(), before)


# === Keras's protocol ===


def test_fit_evaluate_and_predict():
    """Logs are means over the examples, metrics those of the outputs."""
    teacher = any_models.make_mlp(6, seed=1, last="softmax")
    student = any_models.make_mlp(4, seed=2, last="softmax")
    distiller = Distiller(teacher, student, make_losses(None))
    distiller.compile(
        keras.optimizers.SGD(0.0),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
        weighted_metrics=[
            # Of probabilities, as the student returns them.
            keras.metrics.SparseCategoricalCrossentropy(name="nats"),
        ],
    )
    x, y, weight = any_models.make_batch(7)
    history = distiller.fit(
        x, y, sample_weight=weight, batch_size=3, epochs=2, verbose=0
    ).history
    scores = distiller.evaluate(
        x, y, sample_weight=weight, verbose=0, return_dict=True
    )
    assert list(scores)[:4] == [
        "loss",
        "label_loss",
        "soft_target_loss",
        "accuracy",
    ]
    for name, value in scores.items():
        assert history[name][0] == pytest.approx(value, rel=1e-5), name
    p = student.predict(x, verbose=0).astype("float64")
    nats = -np.log(p[np.arange(7), y])
    expected = (nats * weight).sum() / weight.sum()
    assert scores["label_loss"] == pytest.approx(expected, rel=1e-5)
    assert scores["nats"] == pytest.approx(expected, rel=1e-5)
    # The metric of `compile` replaces the Distiller's, and has no weights.
    assert scores["accuracy"] == pytest.approx((p.argmax(-1) == y).mean())
    for found in (distiller.predict(x, verbose=0), distiller(x).numpy()):
        # Keras compiles `predict` by XLA.
        np.testing.assert_allclose(found, p, rtol=1e-6)


def test_class_weight_and_validation():
    distiller = make_distiller()
    x, y, _ = batch()
    history = distiller.fit(
        x,
        y,
        class_weight={0: 2.0, 1: 1.0, 2: 0.5},
        validation_data=(x, y),
        verbose=0,
    ).history
    assert history["val_label_loss"] != history["label_loss"]
    with pytest.raises(ValueError, match="weighs the examples of a class"):
        teacher, student = (any_models.make_mlp(4, seed=s) for s in (1, 2))
        numbers = Distiller(teacher, student, [losses.LabelSquaredError()])
        numbers.compile("sgd")
        numbers.fit(x[:, 0, :, 0], y, class_weight={0: 1.0})


def test_a_temperature_follows_its_schedule():
    distiller = make_distiller(steps_per_execution=2)
    schedule = schedules.Linear(4.0, 1.0, steps=3)
    x, y, weight = batch()
    data = tf.data.Dataset.from_tensors((x, y, weight)).repeat(4)
    distiller.fit(
        data, callbacks=[callbacks.TemperatureScheduler(schedule)], verbose=0
    )
    last = distiller.update_record.read([3, 4])
    assert [each["temperature"] for each in last] == [2.0, 1.0]


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
def test_save_and_load(kind, tmp_path):
    if kind == "sequential":
        distiller, data = make_distiller(norm=True), batch()
    else:
        teacher, student = (
            any_models.make_subclassed(width, seed=width, activation="softmax")
            for width in (6, 4)
        )
        made = make_losses([("hidden", "hidden")])
        distiller = Distiller(teacher, student, made, from_logits=False)
        distiller.compile(keras.optimizers.SGD(0.1))
        data = any_models.make_batch()
    distiller.train_on_batch(*data)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    for each in (distiller, loaded):
        each.train_on_batch(*data)
    assert_equal(state_of(loaded), state_of(distiller))
    assert loaded.from_logits == distiller.from_logits


# === Callbacks ===


def test_the_student_is_kept(tmp_path):
    distiller = make_distiller(norm=True)
    x, y, weight = batch()
    distiller.fit(
        x,
        y,
        sample_weight=weight,
        verbose=0,
        callbacks=[
            callbacks.StudentCheckpoint(tmp_path / "student.keras"),
            callbacks.TensorBoard(tmp_path / "board"),
            callbacks.MetricsLog(tmp_path / "metrics.jsonl", stage="x"),
        ],
    )
    kept = keras.models.load_model(tmp_path / "student.keras")
    assert_equal(state_of(kept), state_of(distiller.student))
    assert list((tmp_path / "board" / "train").iterdir())


def test_gradients_of_losses_are_balanced():
    distiller = make_distiller(norm=True, dropout=0.2)
    before = state_of(distiller.student)
    norms = distiller.gradient_norms(batch()).measure()
    assert set(norms) == {"label", "soft_target", "hidden_mse"}
    assert min(norms.values()) > 0.0
    # Measuring leaves no trace, not even in moving means.
    assert_equal(state_of(distiller.student), before)


def test_examples_of_text_are_refused(tmp_path):
    import tokenizers

    board = callbacks.TensorBoard(
        tmp_path,
        examples=toy.make_batch(),
        tokenizer=tokenizers.Tokenizer(tokenizers.models.WordLevel()),
    )
    x, y, _ = batch()
    with pytest.raises(TypeError, match="are for masked language modelling"):
        make_distiller().fit(x, y, callbacks=[board], verbose=0)


def endless(seed=5):
    data = tf.data.Dataset.from_tensor_slices(batch(12))
    return data.repeat().shuffle(12, seed=seed).batch(4)


class Stop(keras.callbacks.Callback):
    """Ends the process, as it were, after some updates."""

    has_training_state = False

    def on_train_batch_end(self, step, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == 5:
            raise KeyboardInterrupt


def train_with_state(folder, *more):
    keras.utils.set_random_seed(0)
    distiller = make_distiller(norm=True, dropout=0.3)
    state = callbacks.TrainingState(folder, every_steps=2)
    distiller.fit(
        endless(),
        epochs=3,
        steps_per_epoch=3,
        verbose=0,
        callbacks=[state, *more],
    )
    return [*state_of(distiller), *state_of(distiller.optimizer)]


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tmp_path):
    """Weights, moving means, states of dropout, projection, optimizer."""
    whole = train_with_state(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_with_state(tmp_path / "parts", Stop())
    resumed = train_with_state(tmp_path / "parts")
    assert [x.tobytes() for x in resumed] == [x.tobytes() for x in whole]
