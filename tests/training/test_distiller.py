"""One step of the Distiller: its values, its models, its parts."""

from pathlib import Path

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy
from reference_step import TEMPERATURE, WEIGHTS, reference_step
from toy_distiller import (
    assert_weights_equal,
    batches_of,
    fit,
    make_distiller,
)

from keras_distil import Distiller, losses, schedules
from keras_distil.models import forward

ROOT = Path(__file__).parents[2]

LOSS_LOGS = {
    "loss",
    "mlm_loss",
    "soft_target_loss",
    "cosine_loss",
    "mlm_accuracy",
    "teacher_agreement",
}
STEP_LOGS = {"temperature", "learning_rate", "gradient_norm"}


@pytest.mark.parametrize(
    ("clip_norm", "run_eagerly"), [(None, True), (0.5, True), (0.5, False)]
)
def test_a_step_equals_the_one_written_out(teacher, clip_norm, run_eagerly):
    distiller = make_distiller(
        teacher, clip_norm=clip_norm, run_eagerly=run_eagerly, chunk_size=5
    )
    before = toy.weights_of(distiller.student)
    batch = toy.make_batch()
    expected, gradients = reference_step(teacher, distiller.student, batch)
    logs = fit(distiller, batch)
    squares = [(g.astype("float64") ** 2).sum() for g in gradients.values()]
    norm = np.sqrt(sum(squares))
    factor = 1.0 if clip_norm is None else clip_norm / norm
    assert norm > 0.5
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-5), name
    assert logs["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    moved = 0.0
    for path, value in toy.weights_of(distiller.student).items():
        step = 0.1 * factor * gradients.get(path, 0.0)
        np.testing.assert_allclose(
            value, before[path] - step, rtol=1e-5, atol=1e-6, err_msg=path
        )
        moved += ((value - before[path]).astype("float64") ** 2).sum()
    if clip_norm is not None:
        assert np.sqrt(moved) == pytest.approx(0.1 * clip_norm, rel=1e-5)


def test_a_norm_below_the_bound_is_not_clipped(teacher):
    batch = toy.make_batch()
    free = make_distiller(teacher)
    bounded = make_distiller(teacher, clip_norm=1e4)
    fit(free, batch)
    fit(bounded, batch)
    assert_weights_equal(bounded.student, free.student, atol=1e-7)


def test_logs_of_fit_and_evaluate(teacher):
    distiller = make_distiller(teacher)
    batches = [toy.make_batch((7, 4)), toy.make_batch((2, 2, 3), seed=5)]
    # Means over an epoch count tokens, not batches.
    expected = {}
    references = [
        reference_step(teacher, distiller.student, batch)[0]
        for batch in batches
    ]
    for name, positions in (
        ("mlm_loss", 2),
        ("soft_target_loss", 0),
        ("cosine_loss", 0),
        ("mlm_accuracy", 2),
        ("teacher_agreement", 2),
    ):
        sizes = [
            (b[2] if positions else b[0]["padding_mask"]).sum() for b in batches
        ]
        values = [reference[name] for reference in references]
        expected[name] = np.average(values, weights=sizes)
    expected["loss"] = sum(
        weight * expected[f"{name}_loss"] for name, weight in WEIGHTS.items()
    )
    logs = distiller.evaluate(
        toy.dataset(*batches), return_dict=True, verbose=0
    )
    assert set(logs) == LOSS_LOGS
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-5), name

    logs = fit(distiller, *batches, validation_data=toy.dataset(*batches))
    validation = {f"val_{name}" for name in LOSS_LOGS}
    assert set(logs) == LOSS_LOGS | STEP_LOGS | validation
    assert logs["temperature"] == TEMPERATURE
    assert logs["learning_rate"] == pytest.approx(0.1)
    real = sum(batch[0]["padding_mask"].sum() for batch in batches)
    assert int(distiller.tokens_seen) == real


def test_values_of_the_latest_step(teacher):
    distiller = make_distiller(teacher)
    fit(distiller, toy.make_batch(seed=4))
    batch = toy.make_batch()
    expected, _ = reference_step(teacher, distiller.student, batch)
    fit(distiller, batch)
    assert set(distiller.step_values) == LOSS_LOGS | {"gradient_norm"}
    for name, value in expected.items():
        actual = float(distiller.step_values[name].numpy())
        assert actual == pytest.approx(value, rel=1e-5), name


def test_call_and_predict(teacher):
    distiller = make_distiller(teacher)
    x, _, _ = toy.make_batch()
    expected = np.array(toy.full_logits(distiller.student, x))
    np.testing.assert_allclose(distiller(x), expected, rtol=1e-5, atol=1e-6)
    predicted = distiller.predict(x, verbose=0, batch_size=3)
    assert predicted.shape == (4, 7, toy.VOCABULARY)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    x["mask_positions"] = np.array([[1, 0, 6]] * 4, "int32")
    np.testing.assert_allclose(
        distiller(x), expected[:, [1, 0, 6]], rtol=1e-5, atol=1e-6
    )


def test_a_step_without_masked_tokens(teacher):
    x, y, sample_weight = toy.make_batch()
    distiller = make_distiller(teacher)
    logs = fit(distiller, (x, y, np.zeros_like(sample_weight)))
    assert logs["mlm_loss"] == logs["mlm_accuracy"] == 0.0
    assert logs["loss"] > 0.0
    assert int(distiller.optimizer.iterations) == 1


def test_fit_takes_arrays(teacher):
    distiller = make_distiller(teacher)
    x, y, sample_weight = toy.make_batch()
    distiller.fit(x, y, sample_weight=sample_weight, batch_size=2, verbose=0)
    assert int(distiller.optimizer.iterations) == 2


def test_losses_are_found_by_name(teacher):
    distiller = make_distiller(teacher)
    assert distiller.get_loss("cosine") is distiller.distillation_losses[2]
    with pytest.raises(
        ValueError,
        match=r"has no loss named 'kl'. Its losses: \['mlm', 'soft_target', 'c",
    ):
        distiller.get_loss("kl")


# === Teacher ===


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_one_forward_of_each_model(teacher, monkeypatch, micro_batches):
    calls = []
    hidden_states = forward.hidden_states

    def counted(model, inputs, layers=(), *, training):
        calls.append((model, training))
        return hidden_states(model, inputs, layers, training=training)

    monkeypatch.setattr(forward, "hidden_states", counted)
    distiller = make_distiller(
        teacher, micro_batches=micro_batches, run_eagerly=True
    )
    fit(distiller, *batches_of(2))
    once = [(teacher, False), (distiller.student, True)]
    assert calls == once * micro_batches * 2
    del calls[:]
    distiller.evaluate(toy.dataset(toy.make_batch()), verbose=0)
    assert calls == [(teacher, False), (distiller.student, False)]


def test_the_step_is_traced_once(teacher, monkeypatch):
    traces = []
    hidden_states = forward.hidden_states

    def counted(model, inputs, layers=(), *, training):
        traces.append(model)
        return hidden_states(model, inputs, layers, training=training)

    monkeypatch.setattr(forward, "hidden_states", counted)
    distiller = make_distiller(teacher, run_eagerly=False)
    schedule = schedules.Linear(4.0, 1.0, steps=3)
    distiller.schedule(distiller.get_loss("soft_target").temperature, schedule)
    batches = toy.make_batch(), toy.make_batch((3, 2))
    fit(distiller, *batches, epochs=2)
    assert len(traces) == 2
    fit(distiller, *batches)
    assert traces == [teacher, distiller.student]


def test_the_teacher_stays_as_it_is(teacher):
    before = toy.weights_of(teacher)
    distiller = make_distiller(teacher, keras.optimizers.Adam(0.1))
    watched = []
    gradient = tf.GradientTape.gradient

    class Tape(tf.GradientTape):
        def gradient(self, *args, **kwargs):
            watched.extend(self.watched_variables())
            return gradient(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "GradientTape", Tape)
        fit(distiller, *batches_of(2))
    after = toy.weights_of(teacher)
    assert before.keys() == after.keys()
    for path, value in before.items():
        assert value.tobytes() == after[path].tobytes(), path
    assert not {id(v) for v in teacher.variables} & {
        id(v) for v in distiller.trainable_variables
    }
    names = {id(v.value) for v in teacher.weights}
    assert watched
    assert not names & {id(v) for v in watched}


def test_the_teacher_runs_in_inference_mode(teacher):
    noisy = toy.make_teacher(dropout=0.5)
    batch = toy.make_batch()
    # Weights of the student come from the teacher, which has the same seed.
    logs = [fit(make_distiller(x), batch) for x in (teacher, noisy)]
    for name in LOSS_LOGS:
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-6), name


def test_the_student_trains_with_dropout(teacher):
    student = toy.make_student(teacher, dropout=0.5)
    distiller = make_distiller(teacher, student=student)
    batch = toy.make_batch()
    expected, _ = reference_step(teacher, student, batch)
    logs = distiller.evaluate(toy.dataset(batch), return_dict=True, verbose=0)
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert fit(distiller, batch)["loss"] != pytest.approx(
        expected["loss"], rel=1e-3
    )


def test_masked_lm_without_a_teacher(teacher):
    student = toy.make_student(teacher)
    distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    batch = toy.make_batch()
    expected, _ = reference_step(teacher, student, batch)
    logs = fit(distiller, batch)
    assert set(logs) == {
        "loss",
        "mlm_loss",
        "mlm_accuracy",
        "learning_rate",
        "gradient_norm",
    }
    assert logs["loss"] == pytest.approx(expected["mlm_loss"], rel=1e-5)


# === Parts of a batch ===


@pytest.mark.parametrize(("parts", "run_eagerly"), [(2, True), (3, False)])
def test_micro_batches_equal_the_whole_batch(teacher, parts, run_eagerly):
    # One part has most of the tokens, another hardly any.
    batches = [
        toy.make_batch((9, 8, 9, 1, 2, 1), seed=seed) for seed in range(5)
    ]
    whole = make_distiller(teacher, clip_norm=1.0)
    split = make_distiller(
        teacher, clip_norm=1.0, micro_batches=parts, run_eagerly=run_eagerly
    )
    logs = [fit(distiller, *batches) for distiller in (whole, split)]
    # Five steps of float32 sums in another order.
    assert_weights_equal(split.student, whole.student, atol=1e-6)
    for name, value in logs[0].items():
        assert logs[1][name] == pytest.approx(value, rel=1e-5), name


def test_more_micro_batches_than_rows(teacher):
    batch = toy.make_batch((3, 2))
    whole = make_distiller(teacher)
    split = make_distiller(teacher, micro_batches=4)
    fit(whole, batch)
    fit(split, batch)
    assert_weights_equal(split.student, whole.student, atol=1e-6)


_TWO_REPLICAS = """
import sys
sys.path.insert(0, "tests")
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import toy
from keras_distil import Distiller, losses

# The first replica's half has 26 tokens, the second's has 4.
batches = [toy.make_batch((9, 8, 9, 1, 2, 1), seed=s) for s in range(3)]

def refuse_unfit_batches(distiller):
    x, y, weight = batches[0]
    # In the half of the first replica, of the second one, and in both.
    for place in ((0, 0), (5, 0), slice(None)):
        wrong = y.copy()
        wrong[place] = -7
        data = tf.data.Dataset.from_tensors((x, wrong, weight))
        data = data.unbatch().batch(6)
        for call in (distiller.fit, distiller.evaluate):
            try:
                call(data, verbose=0)
            except ValueError as error:
                assert str(error).startswith("`y` must be from 0"), error
                assert str(error).count(chr(10)) == 0, error
            else:
                raise SystemExit("A target below 0 was accepted.")
    try:
        distiller.fit(
            tf.data.Dataset.from_tensor_slices((x, y[:, 2:], weight)).batch(6),
            verbose=0,
        )
    except ValueError as error:
        assert str(error).startswith("`y` must have the shape of"), error
        assert str(error).count(chr(10)) == 0, error
    else:
        raise SystemExit("Targets of another length were accepted.")

def train(**options):
    teacher = toy.make_teacher()
    student = toy.make_student(teacher)
    distiller = Distiller(teacher, student, losses.triple_loss(2.0, 5.0, 1.0))
    distiller.compile(
        keras.optimizers.SGD(0.1),
        clip_norm=1.0,
        # Of masked positions, which the replicas have in unequal numbers.
        metrics=["sparse_top_k_categorical_accuracy"],
        weighted_metrics=["sparse_categorical_crossentropy"],
        **options,
    )
    data = tf.data.Dataset.from_tensor_slices(
        tf.nest.map_structure(lambda *x: np.concatenate(x), *batches)
    ).batch(6)
    logs = distiller.fit(data, verbose=0).history
    logs.update(distiller.evaluate(data, verbose=0, return_dict=True))
    third = distiller.update_record.read([3])[0]
    logs.update({f"third_{name}": value for name, value in third.items()})
    weights = toy.weights_of(student)
    refuse_unfit_batches(distiller)
    assert int(distiller.tokens_seen.numpy()) == 90
    for path, value in toy.weights_of(student).items():
        np.testing.assert_array_equal(value, weights[path], err_msg=path)
    kernel = student.masked_lm_head._intermediate_dense.kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    try:
        distiller.fit(data, verbose=0)
    except RuntimeError as error:
        assert "stopped at step 4: not finite: mlm_loss" in str(error), error
        return weights, logs
    raise SystemExit("The loss is not finite, and training went on.")

weights, logs = train(run_eagerly=True)
# Or clipping would not show.
assert logs["gradient_norm"][0] > 2.0
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    mirrored_weights, mirrored_logs = train(steps_per_execution=2)
for path, value in weights.items():
    # Three steps of float32 sums in another order.
    np.testing.assert_allclose(
        mirrored_weights[path], value, rtol=0, atol=1e-6, err_msg=path
    )
for name, value in logs.items():
    np.testing.assert_allclose(
        mirrored_logs[name], value, rtol=1e-5, err_msg=name
    )
"""


@pytest.mark.slow
def test_two_replicas_equal_one():
    # The devices must be set before TensorFlow starts.
    result = processes.run(["-c", _TWO_REPLICAS], cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]


# === Precision, compiled steps ===


def test_mixed_bfloat16():
    results = {}
    batch = toy.make_batch()
    for dtype in ("float32", "mixed_bfloat16"):
        teacher = toy.make_teacher(dtype=dtype)
        distiller = make_distiller(
            teacher,
            student=toy.make_student(teacher, dtype=dtype),
            run_eagerly=dtype == "float32",
            clip_norm=1.0,
        )
        results[dtype] = fit(distiller, batch)
        assert {v.dtype for v in distiller.student.trainable_variables} == {
            "float32"
        }
    for name in ("loss", "mlm_loss", "cosine_loss", "gradient_norm"):
        # 8 bits, through one layer and a head of sums of 16 products.
        assert results["mixed_bfloat16"][name] == pytest.approx(
            results["float32"][name], rel=0.03
        ), name


@pytest.mark.slow
def test_compiled_losses_give_the_same_update():
    updates = []
    for jit_compile in (False, True, "products"):
        teacher = toy.make_teacher()
        student = toy.make_student(teacher)
        distiller = Distiller(teacher, student, losses.triple_loss(2, 5, 1))
        distiller.compile(
            keras.optimizers.SGD(0.1), jit_compile=jit_compile, chunk_size=5
        )
        distiller.fit(
            toy.dataset(toy.make_batch(), toy.make_batch(seed=4)), verbose=0
        )
        updates.append(toy.weights_of(student))
    plain, *others = updates
    for other in others:
        for path, expected in plain.items():
            # XLA may order a sum otherwise.
            np.testing.assert_allclose(
                other[path], expected, rtol=1e-5, atol=1e-6, err_msg=path
            )


@pytest.mark.slow
def test_an_update_compiled_by_xla_is_the_same():
    weights = []
    for jit_compile in (False, True):
        student = toy.make_student(toy.make_teacher())
        distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
        distiller.compile(
            # With this epsilon, Adam does not make noise of zero gradients.
            keras.optimizers.AdamW(0.01, weight_decay=0.1, epsilon=1e-3),
            clip_norm=0.5,
            jit_compile=jit_compile,
        )
        distiller.fit(toy.dataset(*[toy.make_batch()] * 3), verbose=0)
        assert int(distiller.optimizer.iterations.numpy()) == 3
        weights.append(toy.weights_of(student))
    for path, value in weights[0].items():
        np.testing.assert_allclose(
            weights[1][path], value, rtol=1e-5, atol=1e-6, err_msg=path
        )
