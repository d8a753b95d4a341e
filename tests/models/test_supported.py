"""Whatever our forward pass does not support, the encoder computes itself."""

import re

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import toy

from keras_distil import Distiller, losses, models
from keras_distil.models import encoder_pass, forward, supported

SIZES = toy.SIZES


def make_backbone(kind=keras_hub.models.DistilBertBackbone, dtype=None):
    return toy.randomize(kind(**SIZES, dropout=0.0, dtype=dtype), seed=3)


def features(backbone):
    generator = np.random.default_rng(0)
    mask = np.arange(7) < np.array([7, 3])[:, None]
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


def own_states(backbone, inputs):
    outputs = backbone(inputs, training=False)
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


class DoubledBackbone(keras_hub.models.DistilBertBackbone):
    def call(self, *args, **kwargs):
        return 2.0 * super().call(*args, **kwargs)


class DoubledNorm(keras.layers.LayerNormalization):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


def doubled(method):
    return lambda *args, **kwargs: 2.0 * method(*args, **kwargs)


def first(backbone):
    return backbone.transformer_layers[0]


def patch_call(backbone):
    inner = first(backbone)._feedforward_intermediate_dense
    inner.call = doubled(inner.call)


def patch_attention(backbone):
    attention = first(backbone)._self_attention_layer
    compute = attention._compute_attention

    def halved(*args, **kwargs):
        context, scores = compute(*args, **kwargs)
        return context / 2, scores

    attention._compute_attention = halved


def patch_backbone(backbone):
    backbone.call = doubled(backbone.call)


def setter(path, value):
    """Sets an attribute of the first layer, by its dotted path."""

    def change(backbone):
        target = first(backbone)
        *parents, name = path.split(".")
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, value)

    return change


def replace_norm(backbone):
    first(backbone)._feedforward_layer_norm.__class__ = DoubledNorm


def mask_zero(backbone):
    backbone.token_embedding.mask_zero = True


def reorder(backbone):
    layers = list(reversed(backbone.transformer_layers))
    backbone.__dict__["transformer_layers"] = layers


UNKNOWN = {
    "float8": (lambda b: b.quantize("float8"), "dtype policy 'float8"),
    "call": (patch_call, "a replaced method"),
    "attention": (patch_attention, "a replaced method"),
    "encoder": (patch_backbone, "encoder .* with a replaced method"),
    "class": (replace_norm, "the class DoubledNorm"),
    "mask_zero": (mask_zero, "mask_zero=True"),
    "order": (reorder, "in another order"),
    "normalize_first": (
        setter("normalize_first", True),
        "normalize_first=True",
    ),
    "outer activation": (
        setter("_feedforward_output_dense.activation", keras.activations.tanh),
        "an activation after its feed-forward part",
    ),
    "query activation": (
        setter(
            "_self_attention_layer._query_dense.activation",
            keras.activations.tanh,
        ),
        "activation=.*tanh",
    ),
    "own activation": (
        setter("_feedforward_intermediate_dense.activation", tf.math.sin),
        "the activation .*sin",
    ),
    "noise shape": (
        setter("_feedforward_dropout.noise_shape", (None, 1, None)),
        "noise_shape=",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
@pytest.mark.filterwarnings("ignore:Layer:UserWarning")
@pytest.mark.filterwarnings("ignore:Invalid quantization mode:UserWarning")
def test_the_encoder_computes_what_the_pass_does_not_know(case):
    backbone = make_backbone()
    inputs = features(backbone)
    before = np.array(own_states(backbone, inputs))
    change, reason = UNKNOWN[case]
    change(backbone)

    assert re.search(reason, supported.unknown_to_pass(backbone))
    after = np.array(own_states(backbone, inputs))
    if case not in ("mask_zero", "order", "noise shape"):
        assert np.abs(after - before).max() > 1e-3
    model = models.task_model(make_backbone(), "span")
    model.backbone = backbone
    found = forward.encode(model, inputs, training=False)
    np.testing.assert_array_equal(found, after)


def test_an_encoder_of_another_class_computes_by_itself():
    backbone = make_backbone(DoubledBackbone)
    assert "class DoubledBackbone" in supported.unknown_to_pass(backbone)
    model = models.SpanExtractor(backbone)
    inputs = features(backbone)
    np.testing.assert_array_equal(
        forward.encode(model, inputs, training=False), backbone(inputs)
    )


def test_a_patched_class_is_seen(monkeypatch):
    backbone = make_backbone()
    assert supported.unknown_to_pass(backbone) is None
    call = keras.layers.Dense.call
    monkeypatch.setattr(keras.layers.Dense, "call", doubled(call))
    assert "a replaced method" in supported.unknown_to_pass(backbone)


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16", "float64"])
def test_other_precisions_are_the_encoder_s_own(dtype):
    backbone = make_backbone(dtype=dtype)
    assert "compute dtype" in supported.unknown_to_pass(backbone)
    model = models.SpanExtractor(backbone)
    inputs = features(backbone)
    np.testing.assert_array_equal(
        forward.encode(model, inputs, training=False), backbone(inputs)
    )


def test_a_precision_for_each_layer():
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["transformer_layer_0"] = "mixed_bfloat16"
    backbone = make_backbone(dtype=policies)
    assert first(backbone).compute_dtype == "bfloat16"
    assert "compute dtype bfloat16" in supported.unknown_to_pass(backbone)
    student = models.SpanExtractor(backbone)
    with pytest.raises(ValueError, match="must have one dtype policy.*bfloat1"):
        supported.check_student(student)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_feedforward_intermediate_dense.activation", keras.activations.relu),
        ("_feedforward_intermediate_dense.activation", keras.activations.silu),
        ("_feedforward_layer_norm.epsilon", 0.5),
    ],
)
def test_what_the_pass_reads_may_be_set(path, value):
    backbone = make_backbone()
    inputs = features(backbone)
    before = np.array(own_states(backbone, inputs))
    setter(path, value)(backbone)
    assert encoder_pass.is_supported(backbone)
    found = encoder_pass.sequence_output(backbone, inputs, training=False)
    expected = np.array(own_states(backbone, inputs))
    real = np.array(inputs["padding_mask"]) > 0
    assert np.abs(expected - before).max() > 1e-2
    np.testing.assert_allclose(
        np.array(found)[real], expected[real], rtol=1e-5, atol=1e-5
    )


# === The head ===


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("Roberta", {}),
        ("Albert", {"embedding_dim": 8, "num_groups": 1}),
        ("DebertaV3", {"bucket_size": 8}),
        ("FNet", {}),
    ],
)
def test_masked_lm_models_of_other_families(family, options):
    sizes = {**toy.SIZES, "num_layers": 1, **options}
    if family == "FNet":
        del sizes["num_heads"]
    elif family == "Albert":
        sizes["num_inner_repetitions"] = 1
    backbone = getattr(keras_hub.models, f"{family}Backbone")(**sizes)
    model = getattr(keras_hub.models, f"{family}MaskedLM")(backbone)
    toy.randomize(model, seed=1)
    forward.check_masked_lm(model, "teacher")
    inputs = features(backbone)
    inputs["segment_ids"] = tf.zeros_like(inputs["token_ids"])
    inputs["padding_mask"] = tf.constant([[1] * 7, [1] * 3 + [0] * 4])
    positions = tf.constant(np.tile(np.arange(7, dtype="int32"), (2, 1)))
    names = {*backbone.input, "mask_positions"}
    every = {**inputs, "mask_positions": positions}
    np.testing.assert_allclose(
        forward.logits(model, inputs),
        model({name: every[name] for name in names}, training=False),
        rtol=1e-5,
        atol=1e-5,
    )


def test_other_inputs_than_a_batch_s_are_refused():
    model = toy.make_teacher()
    model.backbone._inputs_struct = {"encoder_token_ids": None}
    with pytest.raises(TypeError, match=r"which reads \['encoder_token_ids'\]"):
        forward.check_masked_lm(model, "teacher")


class SharperMaskedLM(models.ExactBertMaskedLM):
    def call(self, inputs, training=None, **kwargs):
        return 2.0 * super().call(inputs, training=training, **kwargs)


class ScaledClassifier(keras_hub.models.BertTextClassifier):
    """Its logits are divided by a temperature, in its graph."""

    def __init__(self, backbone):
        self.backbone = backbone
        self.output_dropout = keras.layers.Dropout(0.1)
        self.output_dense = keras.layers.Dense(2)
        pooled = backbone(backbone.input)["pooled_output"]
        logits = self.output_dense(self.output_dropout(pooled)) / 2.0
        keras_hub.models.TextClassifier.__init__(
            self, inputs=backbone.input, outputs=logits, compile=False
        )
        self.num_classes = 2


def test_operations_behind_the_head_are_refused():
    model = ScaledClassifier(toy.make_teacher(num_layers=1).backbone)
    with pytest.raises(TypeError, match="class alone.*of type TrueDivide|Div"):
        Distiller(None, model, [losses.LabelCrossentropy()])


def another_call(teacher):
    return SharperMaskedLM(teacher.backbone)


def another_head(teacher):
    head = teacher.masked_lm_head
    head.call = doubled(head.call)
    return teacher


def another_encoder(teacher):
    teacher.backbone = toy.make_teacher().backbone
    return teacher


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (another_call, "SharperMaskedLM"),
        (another_head, "'mlm_head' .of type MaskedLMHead"),
        (another_encoder, "of type ExactBertBackbone"),
    ],
)
def test_layers_besides_encoder_and_head_are_refused(change, named):
    model = change(toy.make_teacher())
    with pytest.raises(TypeError, match="head of its class.*" + named):
        forward.check_masked_lm(model, "teacher")


def test_a_head_must_return_logits():
    model = toy.make_teacher()
    model.masked_lm_head.activation = keras.activations.tanh
    with pytest.raises(ValueError, match="outputs of `student` must be logi"):
        forward.check_masked_lm(model, "student")


def test_a_model_around_a_task_model_is_refused():
    student = toy.make_student(toy.make_teacher())
    around = keras.Model(student.input, student(student.input))
    with pytest.raises(TypeError, match="must be a keras_hub masked-LM task"):
        forward.check_masked_lm(around, "student")
