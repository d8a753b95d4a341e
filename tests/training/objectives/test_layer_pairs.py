"""Losses on hidden states of chosen layers, in the objectives."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import toy
from pool import pooled

from keras_distil import Distiller, losses, models
from keras_distil.models import forward
from keras_distil.training.objectives import make_objective

PAIRS = [("embeddings", "embeddings"), (0, 1), (3, 0)]


@pytest.fixture(scope="module")
def teacher():
    return toy.make_teacher(num_layers=4)


@pytest.fixture(scope="module")
def student(teacher):
    return make_student(teacher)


@pooled
def make_student(teacher, **sizes):
    student = toy.initialize_student(teacher, 2, dropout=0.0, **sizes)
    return toy.randomize(student, seed=5)


def states_of(model, x):
    """States by layer, as Keras computes them one layer at a time."""
    backbone = model.backbone
    inputs = forward.encoder_inputs(model, x)
    names = ["embeddings_dropout"] + [
        layer.name for layer in backbone.transformer_layers
    ]
    return [
        np.array(
            keras.Model(backbone.input, backbone.get_layer(name).output)(
                inputs, training=False
            ),
            "float64",
        )
        for name in names
    ]


def place(layer):
    return 0 if layer == "embeddings" else layer + 1


def mean_distance(teacher, student, x, weight, pairs, project=None):
    """The mean cosine distance over tokens, then over pairs."""
    of_teacher, of_student = states_of(teacher, x), states_of(student, x)
    means = []
    for upper, lower in pairs:
        t, s = of_teacher[place(upper)], of_student[place(lower)]
        if project is not None:
            s = project(s, (upper, lower))
        cosine = (t * s).sum(-1) / (
            np.linalg.norm(t, axis=-1) * np.linalg.norm(s, axis=-1)
        )
        means.append(((1 - cosine) * weight).sum() / weight.sum())
    return np.mean(means)


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
    return logs, gradients


@pytest.mark.parametrize("graph", [False, True])
def test_the_loss_is_the_mean_over_its_pairs(teacher, student, graph):
    batch = toy.make_batch()
    loss = losses.HiddenStateCosineDistance(layers=PAIRS)
    objective = make_objective(
        teacher, student, [losses.MaskedLMCrossentropy(), loss]
    )
    logs, _ = evaluate(objective, batch, graph=graph)
    mask = batch[0]["padding_mask"].astype("float64")
    expected = mean_distance(teacher, student, batch[0], mask, PAIRS)
    assert logs["cosine_loss"] == pytest.approx(expected, rel=1e-5)


def test_uniform_pairs(teacher, student):
    batch = toy.make_batch()
    found = [
        evaluate(
            make_objective(
                teacher,
                student,
                [
                    losses.MaskedLMCrossentropy(),
                    losses.HiddenStateCosineDistance(layers=layers),
                ],
            ),
            batch,
        )[0]
        for layers in ("uniform", [(1, 0), (3, 1)], "last")
    ]
    assert found[0] == found[1] != found[2]


def test_last_is_the_same_loss_whatever_it_is_called(teacher, student):
    batch = toy.make_batch()
    found = []
    for layers in ("last", [(3, 1)]):
        loss = losses.HiddenStateCosineDistance(layers=layers)
        objective = make_objective(
            teacher, student, [losses.MaskedLMCrossentropy(), loss]
        )
        found.append(evaluate(objective, batch))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_of_a_pair(teacher, student):
    """The slope along a direction is that of a finite difference."""
    batch = toy.make_batch()
    loss = losses.HiddenStateCosineDistance(layers=[(1, 0)], weight=3.0)
    mlm = losses.MaskedLMCrossentropy(weight=0.0)
    objective = make_objective(teacher, student, [mlm, loss])
    _, gradients = evaluate(objective, batch)
    by_path = {
        v.path: np.array(g)
        for v, g in zip(objective.variables, gradients, strict=True)
    }
    path = "transformer_layer_0/feedforward_output_dense/kernel"
    assert np.abs(by_path[path]).max() > 1e-4
    # What comes after the layer has no part in it.
    for name, gradient in by_path.items():
        if "transformer_layer_1" in name or "masked_lm_head" in name:
            np.testing.assert_array_equal(gradient, 0.0)
    variable = next(v for v in objective.variables if v.path == path)
    before, step = variable.numpy(), 1e-2
    direction = np.sign(by_path[path])
    slopes = []
    for side in (1.0, -1.0):
        variable.assign(before + side * step * direction)
        logs, _ = evaluate(objective, batch, training=False)
        slopes.append(3.0 * logs["cosine_loss"])
    variable.assign(before)
    assert (slopes[0] - slopes[1]) / (2 * step) == pytest.approx(
        np.abs(by_path[path]).sum(), rel=1e-2
    )


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_tasks(teacher, student, kind):
    pair = [
        toy.task_model(encoder, kind, 3 if kind != "span" else 1, dropout=0.0)
        for encoder in (teacher, student)
    ]
    x, _, _ = toy.make_batch()
    y = np.array([0, 1, 2, 0])
    if kind == "span":
        y = {"start": np.zeros(4, "int32"), "end": np.ones(4, "int32")}
    weight = np.array([1.0, 0.0, 2.0, 1.0], "float32")
    loss = losses.HiddenStateCosineDistance(layers=PAIRS)
    objective = make_objective(*pair, [losses.LabelCrossentropy(), loss])
    logs, gradients = evaluate(objective, (x, y, weight))
    expected = mean_distance(
        *pair, x, x["padding_mask"] * weight[:, None], PAIRS
    )
    assert logs["cosine_loss"] == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(np.array(x)).all() for x in gradients)


@pytest.mark.slow
def test_each_pair_has_its_projection(teacher):
    student = make_student(teacher, hidden_dim=8)
    pairs = [(0, 1), (3, 1), (3, 0)]
    cosine = losses.HiddenStateCosineDistance(layers=pairs)
    # On two of these pairs: it shares their projections.
    other = losses.HiddenStateCosineDistance(
        layers=[(3, 0), (3, 1)], name="other"
    )
    distiller = Distiller(
        teacher, student, [losses.MaskedLMCrossentropy(), cosine, other]
    )
    assert distiller.projection.name == "hidden_state_projection"
    assert [layer.name for layer in distiller.layer_projections] == [
        "hidden_state_projection_0_last",
        "hidden_state_projection_last_0",
    ]
    by_pair = {
        (3, 1): distiller.projection,
        (0, 1): distiller.layer_projections[0],
        (3, 0): distiller.layer_projections[1],
    }
    kernels = [layer.kernel.numpy() for layer in by_pair.values()]
    assert kernels[0].shape == (8, 16)
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])

    def project(states, pair):
        kernel = by_pair[pair].kernel.numpy().astype("float64")
        return states @ kernel + by_pair[pair].bias.numpy()

    batch = toy.make_batch()
    logs, _ = evaluate(distiller._objective, batch)
    x, mask = batch[0], batch[0]["padding_mask"].astype("float64")
    for name, wanted in (("cosine", pairs), ("other", pairs[2:0:-1])):
        expected = mean_distance(teacher, student, x, mask, wanted, project)
        assert logs[f"{name}_loss"] == pytest.approx(expected, rel=1e-5)
    distiller.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    distiller.fit(toy.dataset(batch), verbose=0)
    for layer, before in zip(by_pair.values(), kernels, strict=True):
        assert np.abs(layer.kernel.numpy() - before).max() > 1e-6


@pytest.mark.slow
def test_projections_survive_saving(teacher, tmp_path):
    student = make_student(teacher, hidden_dim=8)
    distiller = Distiller(
        teacher,
        student,
        [
            losses.MaskedLMCrossentropy(),
            losses.HiddenStateCosineDistance(layers="uniform"),
        ],
    )
    distiller.compile(keras.optimizers.AdamW(1e-2), run_eagerly=True)
    batch = toy.make_batch()
    distiller.fit(toy.dataset(batch), verbose=0)
    distiller.save(tmp_path / "made.keras")
    again = keras.saving.load_model(tmp_path / "made.keras")
    assert [x.name for x in again.layer_projections] == [
        "hidden_state_projection_1_0"
    ]
    for each in (distiller, again):
        each.fit(toy.dataset(batch, batch), verbose=0)
    for one, other in zip(distiller.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_micro_batches_give_the_update_of_the_whole(teacher):
    weights = []
    for micro_batches in (1, 3):
        student = make_student(teacher, hidden_dim=8)
        distiller = Distiller(
            teacher,
            student,
            [
                losses.MaskedLMCrossentropy(),
                losses.HiddenStateCosineDistance(layers=PAIRS),
            ],
        )
        distiller.compile(
            keras.optimizers.SGD(0.5),
            micro_batches=micro_batches,
            run_eagerly=True,
        )
        distiller.fit(toy.dataset(toy.make_batch()), verbose=0)
        weights.append([v.numpy() for v in distiller.trainable_variables])
    for one, other in zip(*weights, strict=True):
        # Sums in another order.
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["exact", "bert", "distil_bert"])
def test_the_own_pass_has_the_states_of_every_layer(kind):
    backbone = toy.randomize(
        {
            "exact": models.ExactBertBackbone,
            "bert": keras_hub.models.BertBackbone,
            "distil_bert": keras_hub.models.DistilBertBackbone,
        }[kind](**toy.SIZES),
        seed=3,
    )
    check_states(toy.task_model(backbone, "span"))


def test_keras_pass_has_the_states_of_every_layer():
    backbone = keras_hub.models.XLMRobertaBackbone(**toy.SIZES)
    check_states(toy.task_model(backbone, "span"))


def check_states(model):
    x, _, _ = toy.make_batch()
    layers = ["embeddings", 0, "last"]
    found = forward.hidden_states(model, x, layers, training=False)
    assert set(found) == set(layers)
    expected = dict(zip(layers, states_of(model, x), strict=True))
    real = x["padding_mask"] > 0
    for layer in layers:
        np.testing.assert_allclose(
            np.array(found[layer])[real], expected[layer][real], atol=1e-5
        )
    assert set(forward.hidden_states(model, x, training=False)) == {"last"}


def test_keras_pass_runs_once():
    """All states come of one pass, dropout included."""
    encoder = keras_hub.models.XLMRobertaBackbone(**toy.SIZES)
    model = toy.task_model(encoder, "span", dropout=0.5)
    x, _, _ = toy.make_batch()
    layer = model.backbone.transformer_layers[1]
    for each in layer._flatten_layers():
        if isinstance(each, keras.layers.Dropout):
            each.rate = 0.0
    found = forward.hidden_states(model, x, [0], training=True)
    mask = tf.constant(x["padding_mask"])
    again = layer(found[0], padding_mask=mask, training=True)
    np.testing.assert_allclose(again, found["last"], atol=1e-6)
    other = forward.hidden_states(model, x, [0], training=True)
    assert np.abs(other["last"] - found["last"]).max() > 1e-3


def test_layers_that_do_not_exist(teacher, student):
    loss = losses.HiddenStateCosineDistance(layers=[(9, 0)])
    with pytest.raises(
        ValueError,
        match="^The loss 'cosine': The teacher has 4 layers, 0 to 3. Received: "
        "layer 9.$",
    ):
        make_objective(teacher, student, [losses.MaskedLMCrossentropy(), loss])


def test_an_encoder_with_a_replaced_method(teacher):
    model = toy.make_teacher()
    model.backbone.call = model.backbone.call
    x, _, _ = toy.make_batch()
    with pytest.raises(ValueError, match="only its last hidden states can be"):
        forward.hidden_states(model, x, [0], training=False)


class _Unclear(losses.LogitsLoss):
    reads = frozenset({"student_states"})


class _Other(losses.LogitsLoss):
    counts = "words"


class _Halfway(losses.HiddenStateLoss):
    reads = frozenset({"student_hidden_states"})


class _Fewer(losses.LogitsLoss):
    def token_values(self, *, teacher_logits, student_logits):
        return student_logits[:, 0] - teacher_logits[:, 0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            _Fewer,
            r"`_Fewer.token_values` must take the arguments that "
            r"`_Fewer.reads` names, \['student_logits', 'targets', "
            r"'teacher_logits'\]\. Received: "
            r"\(\*, teacher_logits, student_logits\)\. Make the two agree",
        ),
        (_Unclear, r"`_Unclear.reads` must hold.*\['student_states'\]"),
        (_Other, r"`_Other.counts` must be one of .*counts='words'"),
        (_Halfway, r"`_Halfway.reads` must be .*\['student_hidden_states'\]"),
    ],
)
def test_a_loss_that_does_not_say_what_it_reads(
    teacher, student, kind, message
):
    own = kind(weight=1.0, name="own")
    with pytest.raises(TypeError, match=message):
        make_objective(teacher, student, [losses.MaskedLMCrossentropy(), own])


class _States(losses.HiddenStateLoss):
    counts = "examples"


def test_what_a_task_does_not_count(teacher, student):
    with pytest.raises(TypeError, match="'label' counts the examples of a"):
        make_objective(teacher, student, [losses.LabelCrossentropy()])
    model = toy.task_model(student, "span")
    own = _States(weight=1.0, name="own")
    with pytest.raises(TypeError, match="'own' on hidden states must count"):
        make_objective(
            toy.task_model(teacher, "span"),
            model,
            [losses.LabelCrossentropy(), own],
        )


class _Masked(losses.HiddenStateCosineDistance):
    counts = "masked"


def test_hidden_states_of_masked_positions(teacher, student):
    batch = toy.make_batch()
    objective = make_objective(
        teacher, student, [losses.MaskedLMCrossentropy(), _Masked()]
    )
    logs, _ = evaluate(objective, batch)
    expected = mean_distance(teacher, student, batch[0], batch[2], [(3, 1)])
    assert logs["cosine_loss"] == pytest.approx(expected, rel=1e-5)
