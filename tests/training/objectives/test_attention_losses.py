"""Losses on attention in the objectives and in a Distiller."""

import os
from pathlib import Path

import keras
import keras_hub
import marks
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy
from losses.attention_reference import divergence
from pool import pooled

from keras_distil import Distiller, losses
from keras_distil.losses.layers import Attention
from keras_distil.models import forward
from keras_distil.training.objectives import make_objective

PAIRS = [(0, 1), (3, 0)]


@pytest.fixture(scope="module")
def teacher():
    return toy.make_teacher(num_layers=4)


@pooled
def make_student(teacher, **sizes):
    student = toy.initialize_student(teacher, 2, dropout=0.0, **sizes)
    return toy.randomize(student, seed=5)


def relation(layers=PAIRS, **options):
    options = {"relation_heads": 4, "query_weight": 0.5, **options}
    return losses.AttentionRelationKLDivergence(layers=layers, **options)


def transfer(layers=PAIRS, **options):
    return losses.AttentionTransfer(layers=layers, **options)


# Arguments of the reference.
BY_LOSS = {
    relation: ([(0, 0, 0.5), (1, 1, 1.0), (2, 2, 1.0)], 4),
    transfer: ([(0, 1, 1.0)], 2),
}
BOTH = pytest.mark.parametrize("kind", [relation, transfer])


def vectors_of(model, x, number):
    """Queries, keys and values of a layer, by Keras's own layers."""
    backbone = model.backbone
    name = "embeddings_dropout"
    if number:
        name = backbone.transformer_layers[number - 1].name
    cut = keras.Model(backbone.input, backbone.get_layer(name).output)
    states = cut(forward.encoder_inputs(model, x), training=False)
    attention = backbone.transformer_layers[number]._self_attention_layer
    parts = ("_query_dense", "_key_dense", "_value_dense")
    return tf.stack([getattr(attention, x)(states) for x in parts], axis=2)


def expected_step(kind, teacher, student, x, weight=None):
    """Value of the mean over the pairs, and gradients by path."""
    variables = student.trainable_variables
    with tf.GradientTape() as tape:
        ours = [vectors_of(student, x, lower) for _, lower in PAIRS]
    found = [
        divergence(
            np.array(vectors_of(teacher, x, upper)),
            np.array(vectors),
            *BY_LOSS[kind],
            x["padding_mask"],
            weight,
        )
        for (upper, _), vectors in zip(PAIRS, ours, strict=True)
    ]
    gradients = tape.gradient(
        ours,
        [v.value for v in variables],
        output_gradients=[
            tf.constant(slopes / len(PAIRS), tf.float32) for _, slopes in found
        ],
        unconnected_gradients="zero",
    )
    paths = [v.path for v in variables]
    arrays = [np.array(tf.convert_to_tensor(x)) for x in gradients]
    values = [value for value, _ in found]
    return np.mean(values), dict(zip(paths, arrays, strict=True))


def evaluate(objective, batch, training=True, graph=False):
    def run():
        named = objective.batch(batch)
        denominators = objective.denominators(named)
        return denominators, objective.compute_gradients(
            named, denominators, training=training
        )

    found = tf.function(run, autograph=False)() if graph else run()
    denominators, (sums, gradients) = found
    logs = {
        name: float(sums[key]) / float(denominators[denominator])
        for name, (key, denominator) in objective.metric_terms.items()
    }
    paths = [v.path for v in objective.variables] if training else []
    return logs, dict(zip(paths, gradients, strict=True))


def check(found, expected, name, weight=1.0):
    (logs, gradients), (value, slopes) = found, expected
    assert logs[f"{name}_loss"] == pytest.approx(value, rel=1e-5)
    largest = max(np.abs(x).max() for x in slopes.values())
    for path, gradient in gradients.items():
        # Both passes sum in float32, in another order.
        np.testing.assert_allclose(
            gradient,
            weight * slopes[path],
            rtol=1e-4,
            atol=2e-6 * weight * largest,
            err_msg=path,
        )


@BOTH
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("width", marks.slow_except([8, 16], 8))
def test_masked_lm(teacher, width, graph, kind):
    """A student of another width needs no projection."""
    student = make_student(teacher, hidden_dim=width)
    loss = kind(weight=3.0)
    mlm = losses.MaskedLMCrossentropy(weight=0.0)
    objective = make_objective(teacher, student, [mlm, loss])
    assert objective.projection is None and not objective.layer_projections
    batch = toy.make_batch()
    expected = expected_step(kind, teacher, student, batch[0])
    found = evaluate(objective, batch, graph=graph)
    check(found, expected, loss.name, weight=3.0)
    logs, _ = evaluate(objective, batch, training=False, graph=graph)
    assert logs[f"{loss.name}_loss"] == pytest.approx(expected[0], rel=1e-5)


TASKS = ["classification", "regression", "token_classification", "span"]


@BOTH
@pytest.mark.parametrize("task", TASKS)
def test_tasks(teacher, task, kind):
    classes = 1 if task in ("span", "regression") else 3
    pair = [
        toy.task_model(encoder, task, classes, dropout=0.0)
        for encoder in (teacher, make_student(teacher))
    ]
    x, _, _ = toy.make_batch()
    y = {
        "classification": np.array([0, 1, 2, 0]),
        "regression": np.array([0.5, 1.0, 2.0, 0.0], "float32"),
        "token_classification": x["padding_mask"],
        "span": {"start": np.zeros(4, "int32"), "end": np.ones(4, "int32")},
    }[task]
    weight = np.array([1.0, 0.0, 2.0, 1.0], "float32")
    of_tokens = weight
    if task == "token_classification":
        of_tokens = np.sign(weight)
        weight = np.repeat(weight[:, None], 7, axis=1)
    label = losses.LabelCrossentropy(weight=0.0)
    if task == "regression":
        label = losses.LabelSquaredError(weight=0.0)
    loss = kind()
    found = evaluate(make_objective(*pair, [label, loss]), (x, y, weight))
    of_tokens = np.repeat(of_tokens[:, None], 7, axis=1)
    check(found, expected_step(kind, *pair, x, of_tokens), loss.name)


def test_last_is_the_pair_of_last_layers(teacher):
    student, batch = make_student(teacher), toy.make_batch()
    found = []
    for layers in ("last", [(3, 1)], "uniform"):
        mlm = losses.MaskedLMCrossentropy(weight=0.0)
        objective = make_objective(teacher, student, [mlm, relation(layers)])
        found.append(evaluate(objective, batch, training=False)[0])
    assert found[0] == found[1] != found[2]


class _Masked(losses.AttentionRelationKLDivergence):
    counts = "masked"


def test_rows_of_masked_positions(teacher):
    """Their rows relate them to all real tokens."""
    student, batch = make_student(teacher), toy.make_batch()
    own = _Masked(relation_heads=4, query_weight=0.5, layers=PAIRS)
    mlm = losses.MaskedLMCrossentropy(weight=0.0)
    found = evaluate(make_objective(teacher, student, [mlm, own]), batch)
    expected = expected_step(relation, teacher, student, batch[0], batch[2])
    check(found, expected, "attention_relation")


def test_other_encoders_show_their_attention():
    """The pass of Keras gives what its layers compute."""
    encoder = toy.randomize(
        keras_hub.models.XLMRobertaBackbone(**toy.SIZES), seed=4
    )
    model = toy.task_model(encoder, "span", dropout=0.0)
    x, _, _ = toy.make_batch()
    wanted = [Attention(0), Attention("last"), 0]
    found = forward.hidden_states(model, x, wanted, training=False)
    assert set(found) == {*wanted, "last"}
    for number, name in ((0, wanted[0]), (1, wanted[1])):
        assert found[name].shape == (4, 7, 3, 2, 8)
        np.testing.assert_allclose(
            found[name], vectors_of(model, x, number), rtol=1e-5, atol=1e-6
        )
    assert forward.attention_shape(model, "last") == (2, 8)


@BOTH
def test_micro_batches_give_the_update_of_the_whole(teacher, kind):
    weights = []
    for parts in (1, 3):
        student = make_student(teacher, hidden_dim=8)
        loss = kind()
        distiller = Distiller(
            teacher, student, [losses.MaskedLMCrossentropy(0.1), loss]
        )
        distiller.compile(
            keras.optimizers.SGD(0.5), micro_batches=parts, run_eagerly=True
        )
        history = distiller.fit(toy.dataset(toy.make_batch()), verbose=0)
        weights.append([v.numpy() for v in distiller.trainable_variables])
        weights[-1].append(history.history[f"{loss.name}_loss"][0])
    for one, other in zip(*weights, strict=True):
        # Sums in another order.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


_REPLICAS = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
import keras
import toy
from training.objectives import test_attention_losses as made
from keras_distil import Distiller, losses

weights = []
for strategy in (
    tf.distribute.get_strategy(),
    tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
):
    with strategy.scope():
        teacher = toy.make_teacher(num_layers=4)
        distiller = Distiller(
            teacher,
            made.make_student(teacher),
            [
                losses.MaskedLMCrossentropy(0.1),
                made.relation(),
                made.transfer(),
            ],
        )
        distiller.compile(keras.optimizers.SGD(0.5))
    history = distiller.fit(toy.dataset(toy.make_batch()), verbose=0).history
    weights.append([np.array(v) for v in distiller.trainable_variables])
    weights[-1] += [history[name][0] for name in sorted(history)]
for one, other in zip(*weights, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
print("equal")
"""


@pytest.mark.slow
def test_two_replicas_give_the_update_of_one():
    """Two sequences each, with 11 and 8 tokens."""
    tests = Path(__file__).parents[2]
    found = processes.run(
        ["-c", _REPLICAS],
        env={**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}"},
    )
    assert found.stdout.endswith("equal\n"), found.stderr


@BOTH
def test_training_moves_towards_the_teacher(teacher, kind):
    student = make_student(teacher)
    loss = kind("last")
    distiller = Distiller(
        teacher, student, [losses.MaskedLMCrossentropy(0.0), loss]
    )
    distiller.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    history = distiller.fit(toy.dataset(toy.make_batch()), epochs=5, verbose=0)
    values = history.history[f"{loss.name}_loss"]
    assert values[-1] < 0.9 * values[0]


# === What is refused ===


def make(teacher, student, loss):
    mlm = losses.MaskedLMCrossentropy()
    return make_objective(teacher, student, [mlm, loss])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            relation([(9, 0)]),
            "The loss 'attention_relation': The teacher has 4 layers, 0 to 3. "
            "Received: layer 9.",
        ),
        (
            relation(relation_heads=3),
            "The loss 'attention_relation': `relation_heads` must divide the "
            "widths of teacher and student, 16 and 16. Received: "
            "relation_heads=3.",
        ),
    ],
)
def test_layers_and_heads_that_do_not_fit(teacher, loss, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(teacher, make_student(teacher), loss)


def test_transfer_between_unequal_heads(teacher):
    student = make_student(teacher, hidden_dim=12, num_heads=3)
    with pytest.raises(
        ValueError,
        match="^The loss 'attention_transfer': Teacher and student must have "
        "as many .* Received: 2 and 3 heads; use AttentionRelationKLDiver",
    ):
        make(teacher, student, transfer("last"))
    make(teacher, student, relation("last"))


def test_an_encoder_without_attention():
    sizes = {k: v for k, v in toy.SIZES.items() if k != "num_heads"}
    pair = [
        toy.task_model(keras_hub.models.FNetBackbone(**sizes), "span")
        for _ in range(2)
    ]
    with pytest.raises(
        ValueError,
        match="^The loss 'attention_relation': Losses on attention need "
        "layers with queries, .* Received: the encoder .* with FNetEncoder.$",
    ):
        make_objective(*pair, [losses.LabelCrossentropy(), relation("last")])


def test_no_teacher(teacher):
    with pytest.raises(ValueError, match="'attention_relation' needs a teach"):
        make(None, make_student(teacher), relation())


class _Halfway(losses.AttentionRelationKLDivergence):
    reads = frozenset({"student_attention"})


def test_a_loss_that_does_not_say_what_it_reads(teacher):
    loss = _Halfway(relation_heads=4)
    # It would need no teacher.
    with pytest.raises(
        TypeError, match=r"`_Halfway.reads` must be .*\['student_attention'\]"
    ):
        make(teacher, make_student(teacher), loss)


def test_any_keras_model():
    pair = [
        keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
        for _ in range(2)
    ]
    with pytest.raises(
        TypeError, match="'attention_relation' reads the attention of encod"
    ):
        make_objective(
            *pair, [losses.LabelCrossentropy(), relation()], from_logits=True
        )
