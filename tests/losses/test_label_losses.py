"""The losses on labels, and what the objectives ask of any loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
from losses import reference

from keras_distil import losses
from keras_distil.training.objectives import make_objective

LOGITS = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))


def test_crossentropy_of_classes_by_hand():
    loss = losses.LabelCrossentropy()
    # -log(1/4) and -log(0.8)
    assert float(loss(np.array([1, 2]), LOGITS)) == pytest.approx(
        (1.3862944 + 0.2231436) / 2, rel=1e-6
    )


def test_crossentropy_of_soft_labels_by_hand():
    loss = losses.LabelCrossentropy()
    soft = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    # (log 2 + log 4) / 2 and -log(0.8)
    expected = (1.0397208 + 0.2231436) / 2
    assert float(loss(soft, LOGITS)) == pytest.approx(expected, rel=1e-6)
    one_hot = np.eye(3)[[1, 2]]
    assert float(loss(one_hot, LOGITS)) == pytest.approx(
        float(loss(np.array([1, 2]), LOGITS)), rel=1e-6
    )


def test_squared_errors_by_hand():
    outputs = np.array([[1.0], [-2.5], [0.0]])
    others = np.array([4.0, -2.0, 9.0])
    counted = np.array([1.0, 3.0, 0.0])
    # 3**2 and 0.5**2, the latter three times.
    expected = (9.0 + 3 * 0.25) / 4
    label = losses.LabelSquaredError()
    assert float(label(others, outputs, counted)) == pytest.approx(expected)
    soft = losses.SoftTargetSquaredError()
    value = soft(others[:, None], outputs, counted)
    assert float(value) == pytest.approx(expected)


def test_label_smoothing_by_hand():
    loss = losses.LabelCrossentropy(label_smoothing=0.3)
    # q = 0.1, 0.8, 0.1: 0.1 * log 2 + 0.9 * log 4
    value = loss(np.array([1]), LOGITS[:1])
    assert float(value) == pytest.approx(1.3169796, rel=1e-6)
    soft = loss(np.array([[0.0, 1.0, 0.0]]), LOGITS[:1])
    assert float(soft) == pytest.approx(1.3169796, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_are_those_of_numpy(smoothing, soft):
    generator = np.random.default_rng(0)
    logits = generator.normal(0.0, 3.0, (5, 4)).astype("float32")
    labels = generator.integers(0, 4, 5)
    p = np.eye(4)[labels]
    if soft:
        p = labels = generator.dirichlet(np.ones(4), 5)
    weight = np.array([1.0, 0.5, 0.0, 2.0, 1.0])
    q = (1 - smoothing) * p + smoothing / 4
    log_probabilities = reference.log_softmax(logits)
    factors = weight / weight.sum()
    expected = -((q * log_probabilities).sum(-1) * factors).sum()
    gradient = (np.exp(log_probabilities) - q) * factors[:, None]
    loss = losses.LabelCrossentropy(label_smoothing=smoothing)
    for call in (loss, tf.function(loss)):
        student = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = call(
                tf.constant(labels), student, tf.constant(weight, tf.float32)
            )
        assert float(value) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(
            tape.gradient(value, student), gradient, rtol=1e-5, atol=1e-6
        )


def test_it_equals_that_of_keras():
    labels = np.eye(3)[[1, 0]]
    expected = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2
    )(labels, LOGITS)
    loss = losses.LabelCrossentropy(label_smoothing=0.2)
    assert float(loss(labels, LOGITS)) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_the_smoothing_is_in_its_config():
    loss = losses.LabelCrossentropy(2.0, "mine", label_smoothing=0.1)
    config = loss.get_config()
    assert config == {"weight": 2.0, "name": "mine", "label_smoothing": 0.1}
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(loss)
    )
    assert again.get_config() == config
    assert losses.LabelCrossentropy().label_smoothing == 0.0


@pytest.mark.parametrize(
    ("smoothing", "error", "message"),
    [
        (
            -0.1,
            ValueError,
            "at least 0 and below 1. Received: label_smoothing=",
        ),
        (1.0, ValueError, "at least 0 and below 1"),
        (float("nan"), ValueError, "`label_smoothing` must be finite"),
        ("0.1", TypeError, "`label_smoothing` must be a number"),
        (True, TypeError, "`label_smoothing` must be a number"),
    ],
)
def test_smoothing_out_of_range(smoothing, error, message):
    with pytest.raises(error, match=message):
        losses.LabelCrossentropy(label_smoothing=smoothing)


@pytest.mark.parametrize(
    ("loss", "arguments"),
    [
        (losses.LabelCrossentropy(), (np.zeros((2, 1), int), LOGITS)),
        (losses.LabelCrossentropy(), (np.zeros(3, int), LOGITS)),
        (losses.LabelCrossentropy(), (np.ones((2, 2)) / 2, LOGITS)),
        (
            losses.LabelCrossentropy(),
            (np.zeros(2, int), LOGITS, np.ones((2, 1))),
        ),
        # Would be spread to (2, 2).
        (losses.LabelSquaredError(), (np.zeros((2, 1)), np.zeros((2, 2)))),
        (
            losses.LabelSquaredError(),
            (np.zeros(2), np.zeros((2, 1)), np.ones(1)),
        ),
        (
            losses.MaskedLMCrossentropy(),
            (np.zeros((1, 2), int), LOGITS[None], np.ones((1, 1))),
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(loss, arguments):
    with pytest.raises(ValueError, match="must be equal. Received: .* and "):
        loss(*arguments)


# === Losses of one's own ===


class _Reduced(losses.LogitsLoss):
    """A loss that reduces what it should not."""

    reads = frozenset({"student_logits"})

    def __init__(self, reduce):
        super().__init__(weight=1.0, name="own")
        self._reduce = reduce

    def token_values(self, *, student_logits):
        return self._reduce(tf.reduce_logsumexp(student_logits, axis=-1))


class _ReducedHidden(losses.HiddenStateLoss):
    def __init__(self):
        super().__init__(weight=1.0, name="own")

    def token_values(self, *, teacher_hidden_states, student_hidden_states):
        return tf.reduce_mean(teacher_hidden_states - student_hidden_states)


REDUCED = {
    "a mean": (tf.reduce_mean, r"shape \(\)"),
    "one for all": (
        lambda v: tf.reduce_mean(v, keepdims=True),
        r"shape \(1,\)",
    ),
    "a column": (lambda v: v[:, None], r"shape \(.*, 1\)"),
    "integers": (lambda v: tf.cast(v, tf.int32), "dtype int32"),
}


@pytest.fixture(scope="module")
def student():
    return toy.make_student(toy.make_teacher())


@pytest.fixture(scope="module")
def classifier(student):
    return toy.task_model(student, "classification", 3)


def evaluate(objective, batch, graph):
    def run():
        named = objective.batch(batch)
        return objective.compute_gradients(
            named, objective.denominators(named), training=True
        )

    return (tf.function(run, autograph=False) if graph else run)()


@pytest.mark.parametrize("case", REDUCED)
@pytest.mark.parametrize("graph", [False, True])
def test_one_value_per_token_is_due(student, classifier, case, graph):
    reduce, received = REDUCED[case]
    x, y, weight = toy.make_batch()
    for model, batch in (
        (student, (x, y, weight)),
        (classifier, (x, np.array([0, 1, 2, 0]))),
    ):
        objective = make_objective(None, model, [_Reduced(reduce)])
        with pytest.raises(
            ValueError,
            match=f"The loss 'own' must return one value per .*{received}",
        ):
            evaluate(objective, batch, graph)


def test_one_value_per_hidden_state_is_due(student):
    objective = make_objective(
        toy.make_teacher(),
        student,
        [losses.MaskedLMCrossentropy(), _ReducedHidden()],
    )
    with pytest.raises(ValueError, match=r"The loss 'own' must .*shape \(\)"):
        evaluate(objective, toy.make_batch(), graph=False)


def test_a_loss_with_one_value_per_token_is_taken(student):
    objective = make_objective(None, student, [_Reduced(lambda v: v)])
    sums, _ = evaluate(objective, toy.make_batch(), graph=True)
    x, _, _ = toy.make_batch()
    logits = np.array(toy.full_logits(student, x), "float64")
    expected = np.log(np.exp(logits).sum(-1)) * x["padding_mask"]
    assert float(sums["own_sum"]) == pytest.approx(expected.sum(), rel=1e-5)


def test_spans_have_no_label_smoothing(student):
    model = toy.task_model(student, "span")
    loss = losses.LabelCrossentropy(label_smoothing=0.1)
    with pytest.raises(ValueError, match="of a span must have no label smooth"):
        make_objective(None, model, [loss])
