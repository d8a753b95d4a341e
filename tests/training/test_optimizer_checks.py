"""Optimizers are applied exactly as in Keras, or refused in one line."""

import keras
import numpy as np
import pytest
import toy
from reference_step import reference_step

from keras_distil import Distiller, losses


class HalfSteps(keras.optimizers.SGD):
    """A custom optimizer, written as Keras requires."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, 0.5 * learning_rate)


def decayed_but_biases():
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=0.5, epsilon=1e-3)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta"])
    return optimizer


def scheduled():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0, 1], [0.5, 0.1, 0.01]
    )
    return keras.optimizers.SGD(schedule, momentum=0.9)


def constrained(student):
    layer = student.backbone.transformer_layers[0]
    layer._feedforward_output_dense._kernel.constraint = (
        keras.constraints.MaxNorm(0.3)
    )


def partly_frozen(student):
    student.backbone.get_layer("transformer_layer_0").trainable = False


def without_embeddings(student):
    student.backbone.token_embedding.trainable = False


def only_the_head(student):
    student.backbone.trainable = False


def low_rank(student):
    student.backbone.enable_lora(2)
    factors = [v for v in student.trainable_variables if "lora" in v.path]
    assert len(factors) == 4
    generator = np.random.default_rng(4)
    for variable in factors:
        variable.assign(generator.normal(0.0, 0.3, variable.shape))


def low_rank_embeddings(student):
    student.backbone.trainable = False
    table = student.backbone.token_embedding
    table.trainable = True
    table.enable_lora(2)
    generator = np.random.default_rng(4)
    for variable in (table.lora_embeddings_a, table.lora_embeddings_b):
        variable.assign(generator.normal(0.0, 0.3, variable.shape))


def nothing(student):
    pass


def sgd():
    return keras.optimizers.SGD(0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make_optimizer", "change"),
    [
        (decayed_but_biases, nothing),
        (scheduled, nothing),
        (lambda: HalfSteps(0.1), nothing),
        (lambda: keras.optimizers.Nadam(0.01, epsilon=1e-3), nothing),
        (sgd, constrained),
        (sgd, partly_frozen),
        (sgd, without_embeddings),
        (sgd, only_the_head),
        (sgd, low_rank),
        (sgd, low_rank_embeddings),
    ],
)
def test_updates_are_those_of_keras(teacher, make_optimizer, change):
    """Runs two steps with only KerasHub's forward pass and Keras."""
    students = [toy.make_student(teacher) for _ in range(2)]
    for student in students:
        change(student)
    ours, plain = students
    before = toy.weights_of(ours)
    distiller = Distiller(teacher, ours, losses.triple_loss(2.0, 5.0, 1.0))
    distiller.compile(make_optimizer(), run_eagerly=True)
    optimizer = make_optimizer()
    optimizer.build(plain.trainable_variables)
    for seed in (3, 4):
        batch = toy.make_batch(seed=seed)
        distiller.fit(toy.dataset(batch), verbose=0)
        _, gradients = reference_step(teacher, plain, batch)
        assert set(gradients) == {v.path for v in plain.trainable_variables}
        optimizer.apply(
            [gradients[v.path] for v in plain.trainable_variables],
            plain.trainable_variables,
        )
    moved = set()
    for path, value in toy.weights_of(plain).items():
        # Float32 sums in another order, through two updates.
        np.testing.assert_allclose(
            toy.weights_of(ours)[path], value, atol=2e-5, err_msg=path
        )
        if np.abs(value - before[path]).max() > 1e-4:
            moved.add(path)
    trained = {v.path for v in ours.trainable_variables}
    # A key's bias changes no softmax.
    assert trained - moved <= {p for p in trained if "key/bias" in p}


# === Refused ===


class ClippingApply(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        super().apply([0.1 * g for g in grads], trainable_variables)


class ClippingApplyGradients(keras.optimizers.SGD):
    def apply_gradients(self, grads_and_vars):
        return super().apply_gradients(
            [(0.1 * g, v) for g, v in grads_and_vars]
        )


class OwnClipping(keras.optimizers.SGD):
    def _clip_gradients(self, grads):
        return [0.1 * g for g in grads]


def patched():
    optimizer = sgd()
    optimizer.apply = lambda grads, variables=None: None
    return optimizer


def scaled(**options):
    inner = keras.optimizers.SGD(0.1, **options)
    return keras.optimizers.LossScaleOptimizer(inner)


def several():
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(sgd(), {".*bias": sgd()})
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (scaled, ValueError, r"`LossScaleOptimizer`\).* Use the SGD inside"),
        (lambda: scaled(clipnorm=1.0), ValueError, "`LossScaleOptimizer`"),
        (
            lambda: scaled(gradient_accumulation_steps=2),
            ValueError,
            "`LossScaleOptimizer`",
        ),
        (
            lambda: keras.optimizers.SGD(0.1, loss_scale_factor=32768.0),
            ValueError,
            "Received: loss_scale_factor=32768.0",
        ),
        (
            lambda: keras.optimizers.SGD(0.1, use_ema=True),
            ValueError,
            r"average the weights \(`use_ema=True`\)",
        ),
        (lambda: ClippingApply(0.1), TypeError, "ClippingApply with.*`apply`"),
        (
            lambda: ClippingApplyGradients(0.1),
            TypeError,
            "with its own `apply_gradients`",
        ),
        (
            lambda: OwnClipping(0.1),
            TypeError,
            "OwnClipping with its own `_clip_gradients`",
        ),
        (patched, TypeError, "SGD with its own `apply`"),
        (several, TypeError, "MultiOptimizer with its own `apply`"),
        (lambda: None, TypeError, "must be a Keras optimizer.*Received: None"),
        (object, ValueError, "Could not interpret optimizer"),
    ],
)
def test_refused_in_one_line(distiller, make, error, message):
    with pytest.raises(error, match=message) as caught:
        distiller.compile(make())
    assert "\n" not in str(caught.value)
    assert not distiller.compiled


@pytest.fixture(scope="module")
def distiller(teacher):
    return Distiller(teacher, toy.make_student(teacher), losses.triple_loss())


def test_an_optimizer_of_another_model(teacher, distiller):
    optimizer = sgd()
    optimizer.build(toy.make_student(teacher).trainable_variables)
    with pytest.raises(ValueError, match="was built for other variables.*with"):
        distiller.compile(optimizer)


def test_layers_that_became_trainable_after_compile(teacher):
    student = toy.make_student(teacher)
    partly_frozen(student)
    distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
    distiller.compile(sgd(), run_eagerly=True)
    student.backbone.get_layer("transformer_layer_0").trainable = True
    before = toy.weights_of(student)
    with pytest.raises(ValueError, match="more layers became trainable. Comp"):
        distiller.fit(toy.dataset(toy.make_batch()), verbose=0)
    for path, value in toy.weights_of(student).items():
        np.testing.assert_array_equal(value, before[path])
    distiller.compile(sgd(), run_eagerly=True)
    distiller.fit(toy.dataset(toy.make_batch()), verbose=0)


def test_keras_s_policy_does_not_wrap_the_optimizer(teacher):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student = toy.make_student(teacher, dtype="float32")
        distiller = Distiller(None, student, [losses.MaskedLMCrossentropy()])
        distiller.compile(sgd(), run_eagerly=True)
        assert type(distiller.optimizer) is keras.optimizers.SGD
        with pytest.raises(ValueError, match="`mixed_float16` is not support"):
            Distiller(
                None,
                toy.make_student(teacher),
                [losses.MaskedLMCrossentropy()],
            )
    finally:
        keras.config.set_dtype_policy(policy)
