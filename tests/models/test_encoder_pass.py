"""The fast forward pass against the layers' own."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import models
from keras_distil.models import encoder_pass, forward

LENGTHS = (12, 1, 5, 9)


def features(backbone, seed=0):
    generator = np.random.default_rng(seed)
    mask = np.arange(12) < np.array(LENGTHS)[:, None]
    made = {
        "token_ids": generator.integers(0, toy.VOCABULARY, mask.shape),
        "padding_mask": mask,
        "segment_ids": generator.integers(0, 2, mask.shape),
    }
    return {
        name: tf.constant(value.astype("int32"))
        for name, value in made.items()
        if name in backbone.input
    }


def make_backbone(kind, dropout=0.0, dtype=None):
    backbone = {
        "exact": models.ExactBertBackbone,
        "bert": keras_hub.models.BertBackbone,
        "distil_bert": keras_hub.models.DistilBertBackbone,
    }[kind](**toy.SIZES, dropout=dropout, dtype=dtype)
    return toy.randomize(backbone, seed=3)


def own_output(backbone, inputs):
    outputs = backbone(inputs, training=False)
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


def real_rows(inputs, states):
    rows = np.array(inputs["padding_mask"]) > 0
    return np.array(tf.cast(states, "float32"))[rows]


KINDS = ["exact", "bert", "distil_bert"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("graph", [False, True])
def test_it_computes_what_the_layers_compute(kind, graph):
    backbone = make_backbone(kind)
    inputs = features(backbone)

    def run(inputs):
        return encoder_pass.sequence_output(backbone, inputs, training=False)

    if graph:
        run = tf.function(run, autograph=False, reduce_retracing=True)
    found = run(inputs)
    np.testing.assert_allclose(
        real_rows(inputs, found),
        real_rows(inputs, own_output(backbone, inputs)),
        rtol=1e-5,
        atol=1e-5,
    )
    assert np.isfinite(np.array(found)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_its_gradients_are_those_of_the_layers(kind):
    backbone = make_backbone(kind)
    inputs = features(backbone)
    direction = np.random.default_rng(1).normal(size=(4, 12, 16))
    direction *= np.array(inputs["padding_mask"])[..., None]
    variables = [
        v for v in backbone.trainable_variables if "pooled" not in v.path
    ]
    gradients = []
    for run in (
        lambda: encoder_pass.sequence_output(backbone, inputs, training=True),
        lambda: own_output(backbone, inputs),
    ):
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(run() * direction.astype("float32"))
        found = tape.gradient(total, variables)
        gradients.append([tf.convert_to_tensor(x).numpy() for x in found])
    for variable, ours, theirs in zip(variables, *gradients, strict=True):
        # Gradients of key biases are 0 except for rounding.
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-4, atol=2e-4, err_msg=variable.path
        )
        if "key/bias" not in variable.path:
            assert np.abs(theirs).max() > 2e-3


def test_a_batch_of_padding_alone_is_finite():
    backbone = make_backbone("distil_bert")
    inputs = features(backbone)
    inputs["padding_mask"] = tf.zeros_like(inputs["padding_mask"])
    with tf.GradientTape() as tape:
        states = encoder_pass.sequence_output(backbone, inputs, training=True)
        total = tf.reduce_sum(states)
    assert np.isfinite(np.array(states)).all()
    for gradient in tape.gradient(total, backbone.trainable_variables):
        assert np.isfinite(np.array(tf.convert_to_tensor(gradient))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_stays_near_float32(kind):
    exact = make_backbone(kind)
    mixed = make_backbone(kind, dtype="mixed_bfloat16")
    inputs = features(exact)
    found = encoder_pass.sequence_output(mixed, inputs, training=False)
    assert found.dtype == tf.bfloat16
    reference = real_rows(inputs, own_output(exact, inputs))
    theirs = real_rows(inputs, own_output(mixed, inputs))
    error = np.abs(real_rows(inputs, found) - reference).mean()
    # Eight bits of mantissa, through two layers: the layers' own error.
    assert error < 1.5 * np.abs(theirs - reference).mean() < 0.05


def test_low_rank_changes_count():
    teacher = toy.make_teacher()
    inputs = features(teacher.backbone)
    before = forward.encode(teacher, inputs, training=False)
    for layer in teacher.backbone._flatten_layers():
        if isinstance(layer, keras.layers.EinsumDense | keras.layers.Dense):
            layer.enable_lora(2)
            noise = np.random.default_rng(0).normal(
                size=layer.lora_kernel_b.shape
            )
            layer.lora_kernel_b.assign(noise.astype("float32"))
    found = forward.encode(teacher, inputs, training=False)
    np.testing.assert_allclose(
        real_rows(inputs, found),
        real_rows(inputs, own_output(teacher.backbone, inputs)),
        rtol=1e-4,
        atol=1e-5,
    )
    assert np.abs(np.array(found) - np.array(before)).max() > 0.1


def test_dropout_is_active_in_training_alone():
    backbone = make_backbone("distil_bert", dropout=0.5)
    inputs = features(backbone)

    def run(training):
        return np.array(
            encoder_pass.sequence_output(backbone, inputs, training=training)
        )

    np.testing.assert_array_equal(run(False), run(False))
    assert np.abs(run(True) - run(True)).max() > 0.1
    # Every dropout layer has its part.
    rates = [
        layer
        for layer in backbone._flatten_layers()
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert len(rates) == 1 + 3 * 2
    for layer in rates:
        layer.rate = 0.0
    for layer in rates:
        layer.rate = 0.5
        assert np.abs(run(True) - run(False)).max() > 1e-3
        layer.rate = 0.0


def test_other_encoders_run_by_themselves():
    backbone = keras_hub.models.XLMRobertaBackbone(**toy.SIZES)
    assert not encoder_pass.is_supported(backbone)
    model = models.task_model(backbone, "span")
    inputs = features(backbone)
    np.testing.assert_allclose(
        forward.encode(model, inputs, training=False),
        model.backbone(inputs),
        rtol=1e-6,
    )
