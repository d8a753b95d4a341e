"""The objective of sentence embedders against losses written in NumPy."""

from pathlib import Path

import keras
import keras_hub
import numpy as np
import processes
import pytest
import tensorflow as tf
import toy

import keras_distil
from keras_distil import losses, models
from keras_distil.training.objectives import (
    EmbeddingObjective,
    make_objective,
)
from keras_distil.utils.graph_checks import BatchError

ROOT = Path(__file__).parents[3]
TEMPERATURE = 0.2
WEIGHTS = {
    "vector_cosine": 0.7,
    "vector_mse": 1.3,
    "similarity_kl": 0.5,
    "similarity_mse": 2.0,
    "matryoshka": 0.6,
    "hidden_mse": 0.4,
}
DIMENSIONS = (8, 4)


def make_losses(projection=None, without=()):
    made = [
        losses.VectorCosineDistance(projection=projection),
        losses.VectorMeanSquaredError(projection=projection),
        losses.SimilarityKLDivergence(temperature=TEMPERATURE),
        losses.SimilarityMeanSquaredError(),
        losses.Matryoshka(DIMENSIONS),
        losses.HiddenStateMeanSquaredError(layers=[(1, 0)]),
    ]
    for loss in made:
        loss.weight.assign(WEIGHTS[loss.name])
    return [loss for loss in made if loss.name not in without]


def make_batch():
    """Five texts; the third has no weight, the fourth half of one."""
    x = toy.make_texts((7, 4, 2, 6, 5))
    return x, None, np.array([1, 1, 0, 0.5, 2], "float32")


# === NumPy ===


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def mean(values, weight):
    return float((values * weight).sum() / weight.sum())


def of_texts(name, teacher, student, weight):
    if name == "vector_cosine":
        values = 1 - (unit(teacher) * unit(student)).sum(-1)
    else:
        values = ((teacher - student) ** 2).mean(-1)
    return mean(values, weight)


def of_pairs(name, teacher, student, weight):
    counted = weight > 0
    tables = [unit(x[counted]) for x in (teacher, student)]
    tables = [x @ x.T for x in tables]
    others = ~np.eye(counted.sum(), dtype=bool)
    if name == "similarity_mse":
        squares = np.where(others, (tables[0] - tables[1]) ** 2, 0.0)
        values = squares.sum(1) / others.sum(1)
    else:
        p, q = (np.where(others, np.exp(x / TEMPERATURE), 0.0) for x in tables)
        p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
        ratio = np.log(np.where(others, p, 1.0) / np.where(others, q, 1.0))
        values = (p * ratio).sum(1)
    return mean(values, weight[counted])


def expected_logs(teacher, student, batch, projection=None):
    """The means by NumPy in float64, from what Keras computes by itself."""
    x, _, weight = batch
    weight = weight.astype("float64")
    t, s = (np.array(model(x), "float64") for model in (teacher, student))

    def project(vectors):
        if projection is None:
            return vectors
        wide = np.zeros_like(s)
        wide[:, : vectors.shape[1]] = vectors
        kernel, bias = (v.numpy().astype("float64") for v in projection.weights)
        return wide @ kernel + bias

    logs = {
        f"{name}_loss": of_texts(name, t, project(s), weight)
        for name in ("vector_cosine", "vector_mse")
    } | {
        f"{name}_loss": of_pairs(name, t, s, weight)
        for name in ("similarity_kl", "similarity_mse")
    }
    parts = []
    for size in DIMENSIONS:
        short = unit(s[:, :size])
        cut = t if projection is not None else unit(t[:, :size])
        for name in ("vector_cosine", "vector_mse"):
            value = of_texts(name, cut, project(short), weight)
            parts.append(WEIGHTS[name] * value)
        for name in ("similarity_kl", "similarity_mse"):
            value = of_pairs(name, t, short, weight)
            parts.append(WEIGHTS[name] * value)
    logs["matryoshka_loss"] = sum(parts) / len(DIMENSIONS)
    return logs


def total_of(logs):
    return sum(WEIGHTS[name[: -len("_loss")]] * logs[name] for name in logs)


def logs_of(objective, batch, training=False):
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    sums, _ = objective.compute_gradients(named, sizes, training=training)
    return {
        name: float(sums[key] / sizes[size])
        for name, (key, size) in objective.metric_terms.items()
    }


WIDTHS = {"equal": (16, None), "projected": (16, 12)}


@pytest.fixture(params=WIDTHS)
def pair(request):
    """Objective, models and the projection; with hidden states left out."""
    student_width, dimension = WIDTHS[request.param]
    teacher, student = toy.make_embedders(student_width, dimension)
    projection = "learned" if request.param == "projected" else None
    objective = make_objective(
        teacher, student, make_losses(projection, without=["hidden_mse"])
    )
    assert isinstance(objective, EmbeddingObjective)
    layers = objective.layer_projections
    assert len(layers) == (projection is not None)
    return objective, teacher, student, layers[0] if layers else None


def test_logs_are_those_of_numpy(pair):
    objective, teacher, student, projection = pair
    batch = make_batch()
    expected = expected_logs(teacher, student, batch, projection)
    logs = logs_of(objective, batch)
    assert logs.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            logs[name], expected[name], rtol=1e-5, err_msg=name
        )


def test_gradients_are_those_of_finite_differences(pair):
    objective, teacher, student, projection = pair
    batch = make_batch()
    named = objective.batch(batch)
    sizes = objective.denominators(named)
    _, gradients = objective.compute_gradients(named, sizes, training=True)
    values = [variable.numpy() for variable in objective.variables]
    generator = np.random.default_rng(0)
    for _ in range(3):
        directions = [
            generator.normal(size=v.shape) / np.sqrt(v.size) for v in values
        ]
        ends = []
        for step in (0.003, -0.003):
            for variable, value, direction in zip(
                objective.variables, values, directions, strict=True
            ):
                variable.assign((value + step * direction).astype("float32"))
            ends.append(
                total_of(expected_logs(teacher, student, batch, projection))
            )
        slope = (ends[0] - ends[1]) / 0.006
        found = sum(
            float((gradient.numpy() * direction).sum())
            for gradient, direction in zip(gradients, directions, strict=True)
        )
        # A central difference: noise of float32 and a cut-off of 0.003**2.
        assert found == pytest.approx(slope, rel=5e-3, abs=5e-4)


def test_texts_without_weight_count_nowhere(pair):
    objective, *_ = pair
    x, _, weight = make_batch()
    kept = weight > 0
    fewer = {name: values[kept] for name, values in x.items()}
    logs = logs_of(objective, (x, None, weight))
    alone = logs_of(objective, (fewer, None, weight[kept]))
    for name, value in logs.items():
        assert value == pytest.approx(alone[name], rel=1e-5), name


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: (x, None, None),
        lambda x: (x, np.zeros((5, 0))),
    ],
)
def test_weights_and_targets_may_be_left_out(form):
    objective = make_objective(*toy.make_embedders(), make_losses())
    x, _, _ = make_batch()
    logs = logs_of(objective, form(x))
    ones = np.ones(5, "float32")
    assert logs == logs_of(objective, (x, None, ones))


def test_the_teachers_vectors_may_be_given():
    teacher, student = toy.make_embedders()
    objective = make_objective(
        teacher, student, make_losses(without=["hidden_mse"])
    )
    x, _, weight = make_batch()
    vectors = teacher(x).numpy()
    logs = logs_of(objective, (x, None, weight))
    given = logs_of(objective, (x, vectors, weight))
    for name, value in logs.items():
        assert given[name] == pytest.approx(value, rel=1e-5, abs=1e-7)
    moved = logs_of(objective, (x, -vectors, weight))
    assert moved["vector_cosine_loss"] == pytest.approx(
        2 - logs["vector_cosine_loss"], rel=1e-5
    )


def train(micro_batches=1, dropout=0.0, student_width=16, **options):
    dimension = None if student_width == 16 else 16
    teacher, student = toy.make_embedders(student_width, dimension)
    if dropout:
        student = toy.initialize_student(student, 1, dropout=dropout)
    projection = None if student_width == 16 else "learned"
    distiller = keras_distil.Distiller(
        teacher, student, make_losses(projection)
    )
    distiller.compile(
        keras.optimizers.SGD(0.5),
        micro_batches=micro_batches,
        clip_norm=1.0,
        metrics=[keras.metrics.CosineSimilarity()] * (student_width == 16),
        **options,
    )
    batches = tf.data.Dataset.from_tensors(make_batch()).repeat()
    logs = distiller.fit(batches, steps_per_epoch=2, verbose=0).history
    return distiller, logs


@pytest.mark.slow
@pytest.mark.parametrize(
    "student_width", [16, pytest.param(12, marks=pytest.mark.slow)]
)
def test_micro_batches_and_graph_give_the_update_of_the_whole(student_width):
    found = [
        train(parts, run_eagerly=eager, student_width=student_width)
        for parts, eager in ((1, True), (3, False))
    ]
    for distiller, logs in found[1:]:
        for name, value in found[0][1].items():
            np.testing.assert_allclose(logs[name], value, rtol=1e-4)
        for whole, part in zip(
            found[0][0].trainable_variables,
            distiller.trainable_variables,
            strict=True,
        ):
            np.testing.assert_allclose(whole, part, atol=1e-6)
    assert found[0][1]["gradient_norm"][0] > 0.1


def test_dropout_of_micro_batches_is_the_same_in_both_passes():
    """The gradient of pairs is taken where their vectors were computed."""
    teacher, student = toy.make_embedders()
    student = toy.initialize_student(student, 1, dropout=0.5)
    objective = make_objective(
        teacher, student, [losses.SimilarityMeanSquaredError()]
    )
    batch = objective.batch(make_batch())
    sizes = objective.denominators(batch)
    seen = []
    forward_pass = objective._student_states

    def watch(part, *, training):
        states = forward_pass(part, training=training)
        seen.append(states["last"])
        return states

    objective._student_states = watch
    whole = objective.before_parts(batch, sizes, 2)
    for index in range(2):
        objective.compute_gradients(whole.part(index, 2), sizes, training=True)
    vectors = np.concatenate(
        [
            student.sentence_embedding(
                states, whole.part(index, 2).inputs["padding_mask"]
            )
            for index, states in enumerate(seen)
        ]
    )
    _, first = objective._all_vectors(batch, 2)
    assert np.abs(first - vectors).max() > 0.01
    # What the gradient was computed from, again.
    pairs = objective._compare_pairs(
        whole.teacher_vectors,
        tf.constant(vectors),
        batch.weight,
        objective._scales(sizes),
    )
    np.testing.assert_allclose(
        pairs.gradient, whole.pairs.gradient, rtol=1e-4, atol=1e-6
    )


def test_a_distiller_is_saved_and_goes_on(tmp_path):
    distiller, _ = train(student_width=12, run_eagerly=True)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.saving.load_model(tmp_path / "distiller.keras")
    batches = tf.data.Dataset.from_tensors(make_batch())
    logs = [
        each.fit(batches, epochs=2, verbose=0).history
        for each in (distiller, again)
    ]
    assert logs[0] == logs[1]
    assert again.layer_projections[-1].name == "vector_projection"
    for one, other in zip(
        distiller.trainable_variables, again.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_training_brings_the_student_nearer():
    distiller, _ = train(run_eagerly=True)
    batches = tf.data.Dataset.from_tensors(make_batch())
    before = distiller.evaluate(batches, return_dict=True, verbose=0)
    distiller.fit(batches, epochs=5, verbose=0)
    after = distiller.evaluate(batches, return_dict=True, verbose=0)
    assert after["loss"] < 0.9 * before["loss"]
    assert after["cosine_similarity"] > before["cosine_similarity"]
    x = make_batch()[0]
    np.testing.assert_allclose(
        distiller.predict(x, verbose=0),
        distiller.student.predict(x, verbose=0),
        atol=1e-6,
    )


def test_attention_and_embeddings_with_a_dense_layer():
    teacher, student = toy.make_embedders()
    student = models.embedding_model(student, dimension=6)
    made = [
        losses.SimilarityKLDivergence(),
        losses.AttentionRelationKLDivergence(relation_heads=2),
        losses.HiddenStateCosineDistance(),
    ]
    distiller = keras_distil.Distiller(teacher, student, made)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    kernel = student.sentence_embedding.kernel.numpy()
    distiller.fit(tf.data.Dataset.from_tensors(make_batch()), verbose=0)
    assert np.abs(student.sentence_embedding.kernel - kernel).max() > 0
    norms = distiller.gradient_norms(make_batch()).measure()
    assert set(norms) == {loss.name for loss in made}


def test_keras_hubs_own_embedder_teaches():
    teacher, student = toy.make_embedders()
    stock = keras_hub.models.BertTextEmbedder(teacher.backbone)
    made = make_losses(without=["hidden_mse"])
    found, expected = (
        logs_of(make_objective(each, student, made), make_batch())
        for each in (stock, teacher)
    )
    assert found == expected


_TWO_REPLICAS = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
sys.path[:0] = ["tests", "tests/training/objectives"]
import keras
import numpy as np
import toy
from keras_distil import Distiller, models
from test_embedding_objective import make_losses, make_batch

def train(micro_batches, dropout=0.0, **options):
    teacher, student = toy.make_embedders()
    if dropout:
        student = models.initialize_student(student, 1, dropout=dropout)
    distiller = Distiller(teacher, student, make_losses())
    distiller.compile(
        keras.optimizers.SGD(0.5), micro_batches=micro_batches, **options
    )
    x, _, weight = make_batch()
    none = np.zeros((5, 0), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, none, weight))
    data = data.batch(5).repeat(3)
    logs = distiller.fit(data, verbose=0).history
    logs.update(distiller.evaluate(data, verbose=0, return_dict=True))
    return toy.weights_of(student), logs

weights, logs = train(1, run_eagerly=True)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for micro_batches in (1, 2):
    # Three texts on one replica, two on the other.
    with strategy.scope():
        mirrored, mirrored_logs = train(micro_batches)
    for path, value in weights.items():
        np.testing.assert_allclose(
            mirrored[path], value, rtol=0, atol=1e-6, err_msg=path
        )
    for name, value in logs.items():
        np.testing.assert_allclose(
            mirrored_logs[name], value, rtol=1e-4, err_msg=name
        )
# The states of dropout are set back on replicas, too.
with strategy.scope():
    _, dropped = train(2, dropout=0.5)
assert np.isfinite(dropped["loss"]).all()
"""


@pytest.mark.slow
def test_two_replicas_equal_one():
    # The devices must be set before TensorFlow starts.
    result = processes.run(["-c", _TWO_REPLICAS], cwd=ROOT)
    assert result.returncode == 0, result.stderr[-3000:]


# === What is refused ===


def padded_out(x):
    return {**x, "padding_mask": toy.set_at(x["padding_mask"], 2, 0)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y, w: (padded_out(x), y, np.ones_like(w)),
            "Every text must have a token, where `padding_mask` is 1: padding "
            "has no vector. .* Received: padding in row 2",
        ),
        (
            lambda x, y, w: (x, np.ones((5, 3), "float32"), w),
            r"the teacher's vectors, \(batch, 16\), or be None. Received: sha",
        ),
        (
            lambda x, y, w: (x, np.full((5, 16), np.nan, "float32"), w),
            "`y` must be finite where the weight is not 0. .* row 0",
        ),
        (
            lambda x, y, w: (x, y, w[:3]),
            "`sample_weight` must have the shape of|number of examples of",
        ),
        (
            lambda x, y, w: ({"token_ids": x["token_ids"]}, y, w),
            "A batch must be {'token_ids', 'padding_mask'}",
        ),
    ],
)
def test_batches_that_do_not_fit(change, message):
    objective = make_objective(*toy.make_embedders(), make_losses())
    with pytest.raises(BatchError, match=message):
        objective.batch(change(*make_batch()))


def test_padding_of_weight_zero_is_taken_and_the_first_token_matters():
    x, y, weight = make_batch()
    objective = make_objective(*toy.make_embedders(), make_losses())
    logs = logs_of(objective, (padded_out(x), y, weight))
    expected = logs_of(objective, (x, y, weight))
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-5), name
    objective = make_objective(
        *toy.make_embedders(pooling_mode="cls"), make_losses()
    )
    mask = toy.set_at(x["padding_mask"], (1, 0), 0)
    with pytest.raises(BatchError, match="a token at position 0, where"):
        objective.batch(({**x, "padding_mask": mask}, y, weight))
    with pytest.raises(BatchError, match="a token at position 0, where"):
        objective.outputs({**x, "padding_mask": mask}, training=False)


@pytest.mark.parametrize(
    ("made", "sizes", "error", "message"),
    [
        (
            [losses.VectorCosineDistance()],
            (16, 12),
            ValueError,
            "compares vectors of one size: give it projection='learned', make "
            "the student with dimension=12, .* Received: a teacher of 12, a "
            "student of 16",
        ),
        (
            [losses.Matryoshka([4])],
            (16, None),
            ValueError,
            "repeats other losses on vectors, and there are none",
        ),
        (
            [losses.VectorCosineDistance(), losses.Matryoshka([16])],
            (16, None),
            ValueError,
            "must be below the size of the student's vectors, 16",
        ),
        (
            [losses.SoftTargetKLDivergence()],
            (16, None),
            TypeError,
            "reads logits, and embedding models return vectors",
        ),
        ([], (16, None), ValueError, "at least one distillation loss"),
    ],
)
def test_losses_that_do_not_fit(made, sizes, error, message):
    with pytest.raises(error, match=message):
        make_objective(*toy.make_embedders(*sizes), made)


def test_the_advice_for_two_sizes_helps():
    teacher, student = toy.make_embedders(16, 12)
    cosine = losses.VectorCosineDistance()
    learned = losses.VectorCosineDistance(projection="learned")
    wide = models.embedding_model(student, dimension=12)
    narrow = models.embedding_model(student, dimension=6)
    vectors = teacher(toy.make_texts((6,) * 9))
    reduced = models.with_principal_components(teacher, vectors, 6)
    for pair, loss in (
        ((teacher, student), learned),
        ((teacher, wide), cosine),
        ((reduced, narrow), cosine),
    ):
        make_objective(*pair, [loss])


def test_losses_on_vectors_are_for_embedders():
    teacher = toy.make_teacher()
    student = toy.make_student(teacher)
    made = [losses.MaskedLMCrossentropy(), losses.VectorCosineDistance()]
    with pytest.raises(TypeError, match="which only embedding models return"):
        make_objective(teacher, student, made)


def test_a_teacher_without_vectors_is_refused():
    teacher = toy.make_teacher()
    _, student = toy.make_embedders()
    with pytest.raises(TypeError, match="`teacher` must be an embedding model"):
        make_objective(teacher, student, make_losses())
    with pytest.raises(ValueError, match="needs a teacher"):
        make_objective(None, student, make_losses())


class Tokens(losses.HiddenStateLoss):
    counts = "examples"

    def token_values(self, *, teacher_hidden_states, student_hidden_states):
        return 0.0 * student_hidden_states[:, :, 0]


def test_a_loss_on_states_must_count_tokens():
    own = Tokens(weight=1.0, name="own")
    with pytest.raises(TypeError, match="must count tokens. Received: counts="):
        make_objective(*toy.make_embedders(), [own])


class Halves(losses.VectorLoss):
    reads = frozenset({"student_vectors"})


class Masked(losses.VectorLoss):
    counts = "masked"

    def token_values(self, *, teacher_vectors, student_vectors):
        return student_vectors[:, 0]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Halves, "`Halves.reads` must be"),
        (Masked, r"`Masked.counts` must be one of \['examples', 'pairs'\]"),
    ],
)
def test_a_loss_must_declare_what_it_is(kind, message):
    own = kind(weight=1.0, name="own")
    with pytest.raises(TypeError, match=message):
        make_objective(*toy.make_embedders(), [own])
