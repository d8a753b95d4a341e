"""Heads whose outputs are not logits are undone, or refused by name."""

import keras
import keras_hub
import marks
import numpy as np
import pytest
import toy

from keras_distil import Distiller, evaluation, losses, models
from keras_distil.evaluation.outputs import output_function
from keras_distil.export.student import make_student
from keras_distil.models import forward
from keras_distil.models.weights import copy_weights


def classifier(activation=None, *, num_classes=3, dtype=None, family="bert"):
    teacher = toy.make_teacher(dtype=dtype)
    if family == "bert":
        encoder = keras_hub.models.BertBackbone(**toy.SIZES, dtype=dtype)
        task = keras_hub.models.BertTextClassifier
    else:
        encoder = models.initialize_student(teacher, 2).backbone
        task = keras_hub.models.DistilBertTextClassifier
    model = task(encoder, num_classes, activation=activation, dropout=0.0)
    return toy.randomize(model, seed=4)


def plain_copy(model):
    """The same weights with a head that KerasHub itself calls logits."""
    config = model.get_config()
    config["activation"] = None
    copy = type(model).from_config(config)
    copy_weights(model, copy)
    return copy


X, _, _ = toy.make_batch()
LABELS = np.array([0, 2, 1, 1], np.int32)


def soft_target_loss(teacher, student):
    distiller = Distiller(teacher, student, losses.task_loss("classification"))
    distiller.compile("sgd")
    logs = distiller.evaluate(X, LABELS, verbose=0, return_dict=True)
    return logs["soft_target_loss"], logs["label_loss"]


@pytest.mark.parametrize(
    "family", marks.slow_except(["bert", "distilbert"], "bert")
)
def test_a_softmax_is_undone(family):
    teacher = classifier("softmax", family=family)
    student = classifier("softmax", family="distilbert")
    student.output_dense.bias.assign([0.3, -0.2, 0.4])
    found = soft_target_loss(teacher, student)
    expected = soft_target_loss(plain_copy(teacher), plain_copy(student))
    assert found == pytest.approx(expected, rel=1e-5)
    # The model itself still returns probabilities.
    inputs = {**X, "segment_ids": np.zeros_like(X["token_ids"])}
    inputs = {k: v for k, v in inputs.items() if k in teacher.input}
    np.testing.assert_allclose(np.sum(teacher(inputs), axis=-1), 1.0, rtol=1e-5)


def test_evaluation_reads_logits():
    model = classifier("softmax")
    inputs = {**X, "segment_ids": np.zeros_like(X["token_ids"])}
    logits = output_function(model)(inputs)
    # Keras's softmax of them equals the model's output.
    np.testing.assert_allclose(
        keras.ops.softmax(logits), model(inputs), rtol=1e-5
    )
    np.testing.assert_allclose(
        logits, output_function(plain_copy(model))(inputs), rtol=1e-5
    )


def test_a_softmax_in_half_precision_keeps_the_layer_s_dtype():
    model = classifier("softmax", dtype="mixed_bfloat16")
    inputs = {**X, "segment_ids": np.zeros_like(X["token_ids"])}
    _, found = forward.encode_task(model, inputs, training=False)
    _, expected = forward.encode_task(plain_copy(model), inputs, training=False)
    np.testing.assert_array_equal(found, expected)


def test_exports_put_out_logits():
    model = classifier("softmax")
    inputs = {**X, "segment_ids": np.zeros_like(X["token_ids"])}
    found = make_student(model).outputs(inputs)["logits"]
    np.testing.assert_allclose(
        found, plain_copy(model)(inputs), rtol=1e-5, atol=1e-6
    )
    # The caller's model is unchanged.
    assert model.output_dense.activation is keras.activations.softmax


def uses(model):
    """Every place where a task's model is passed in."""
    plain = classifier()
    loss = losses.task_loss("classification")
    yield lambda: Distiller(model, plain, loss)
    yield lambda: Distiller(None, model, [losses.LabelCrossentropy()])
    yield lambda: output_function(model)
    yield lambda: make_student(model)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "log_softmax"])
def test_other_activations_are_refused(activation):
    model = classifier(activation)
    for use in uses(model):
        with pytest.raises(
            ValueError,
            match=rf"must be logits, or a softmax.*activation='{activation}'",
        ):
            use()


def test_an_activation_given_later_is_seen():
    model = classifier()
    model.output_dense.activation = keras.activations.sigmoid
    for use in uses(model):
        with pytest.raises(ValueError, match="activation='sigmoid'"):
            use()


def test_a_softmax_of_one_output_is_refused():
    model = classifier("softmax", num_classes=1)
    with pytest.raises(ValueError, match="softmax of a single output is alwa"):
        output_function(model)


def test_a_head_that_was_replaced_is_refused():
    model = classifier()
    model.output_dense = keras.layers.Dense(3)
    model.output_dense.build((None, toy.SIZES["hidden_dim"]))
    for use in uses(model):
        with pytest.raises(TypeError, match="the head of its class"):
            use()


@pytest.mark.parametrize("kind", ["span", "token_classification"])
def test_heads_of_tokens_are_checked_too(kind):
    model = models.task_model(toy.make_teacher(), kind, 2)
    output_function(model)
    model.output_dense.activation = keras.activations.relu
    with pytest.raises(ValueError, match="activation='relu'"):
        output_function(model)


def test_a_masked_lm_with_a_softmax_is_read_as_logits():
    plain, model = toy.make_teacher(), toy.make_teacher()
    model.masked_lm_head.activation = keras.activations.softmax
    student = toy.make_student(plain)
    batches = toy.dataset(toy.make_batch())
    found, expected = (
        evaluation.score_masked_lm(student, teacher, batches)
        for teacher in (model, plain)
    )
    assert found == expected
    model.masked_lm_head.activation = keras.activations.tanh
    with pytest.raises(ValueError, match="activation='tanh'"):
        evaluation.score_masked_lm(student, model, batches)


def test_an_untied_head_is_refused():
    model = toy.make_teacher()
    model.masked_lm_head.token_embedding = None
    with pytest.raises(ValueError, match="with an untied decoder"):
        Distiller(None, model, [losses.MaskedLMCrossentropy()])
