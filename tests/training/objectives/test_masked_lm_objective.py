"""The masked-LM objective against a step written out in full."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import toy
from reference_step import (
    TEMPERATURE,
    WEIGHTS,
    assert_gradients_close,
    reference_step,
)

from keras_distil import losses
from keras_distil.models import forward
from keras_distil.training.objectives import MaskedLMBatch, MaskedLMObjective


def triple(positions="all"):
    return losses.triple_loss(
        *WEIGHTS.values(), temperature=TEMPERATURE, positions=positions
    )


@pytest.fixture(scope="module")
def student(teacher):
    return toy.make_student(teacher)


def run(objective, batch, *, training=True, graph=False):
    """Logs, and the gradients by path."""

    def evaluate():
        named = MaskedLMBatch.from_triple(batch)
        sizes = objective.denominators(named)
        return sizes, objective.compute_gradients(
            named, sizes, training=training
        )

    if graph:
        evaluate = tf.function(evaluate, autograph=False)
    sizes, (sums, gradients) = evaluate()
    logs = {
        name: float(tf.math.divide_no_nan(sums[key], sizes[size]))
        for name, (key, size) in objective.metric_terms.items()
    }
    if not training:
        assert gradients == []
        return logs, {}
    paths = [variable.path for variable in objective.variables]
    return logs, dict(zip(paths, map(np.array, gradients), strict=True))


def assert_logs_close(actual, expected):
    expected = {k: v for k, v in expected.items() if k != "loss"}
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    ("positions", "graph"), [("all", False), ("masked", False), ("all", True)]
)
def test_equals_the_step_written_out(teacher, student, positions, graph):
    batch = toy.make_batch()
    objective = MaskedLMObjective(teacher, student, triple(positions))
    objective.chunk_size = 5
    logs, gradients = run(objective, batch, graph=graph)
    expected = reference_step(teacher, student, batch, positions)
    assert_logs_close(logs, expected[0])
    assert_gradients_close(gradients, expected[1])
    # Without dropout, evaluation gives the same.
    logs, _ = run(objective, batch, training=False, graph=graph)
    assert_logs_close(logs, expected[0])


def test_a_bert_student_keeps_its_pooler(teacher):
    student = toy.make_teacher(num_layers=1)
    batch = toy.make_batch()
    objective = MaskedLMObjective(teacher, student, triple())
    left_out = {v.path for v in student.trainable_variables} - {
        v.path for v in objective.variables
    }
    assert left_out == {"pooled_dense/kernel", "pooled_dense/bias"}
    logs, gradients = run(objective, batch)
    expected = reference_step(teacher, student, batch)
    assert_logs_close(logs, expected[0])
    assert_gradients_close(gradients, expected[1])


def test_a_narrower_student_has_a_projection(teacher):
    student = toy.make_student(teacher, hidden_dim=8)
    batch = toy.make_batch()
    objective = MaskedLMObjective(teacher, student, triple())
    assert objective.projection.kernel.shape == (8, 16)
    logs, gradients = run(objective, batch)
    expected = reference_step(
        teacher, student, batch, project=objective.projection
    )
    assert_logs_close(logs, expected[0])
    assert_gradients_close(gradients, expected[1])
    for given in (teacher, None):
        other = MaskedLMObjective(given, student, triple()[:1])
        assert other.projection is None


def test_only_masked_lm_without_a_teacher(teacher, student):
    batch = toy.make_batch()
    alone = MaskedLMObjective(None, student, triple()[:1])
    logs, gradients = run(alone, batch)
    assert set(logs) == {"mlm_loss", "mlm_accuracy"}
    beside, same_gradients = run(
        MaskedLMObjective(teacher, student, triple()[:1]), batch
    )
    assert logs["mlm_loss"] == beside["mlm_loss"]
    assert_gradients_close(gradients, same_gradients, rtol=0.0)
    expected, _ = reference_step(teacher, student, batch)
    assert logs["mlm_loss"] == pytest.approx(expected["mlm_loss"], rel=1e-5)
    assert logs["mlm_accuracy"] == pytest.approx(expected["mlm_accuracy"])


def test_a_weight_of_zero_adds_nothing(teacher, student):
    batch = toy.make_batch()
    weighted = losses.triple_loss(2.0, 0.0, 0.0, temperature=TEMPERATURE)
    logs, gradients = run(MaskedLMObjective(teacher, student, weighted), batch)
    expected, _ = reference_step(teacher, student, batch)
    assert_logs_close(logs, expected)
    _, alone = run(MaskedLMObjective(None, student, triple()[:1]), batch)
    assert_gradients_close(gradients, alone)


def test_no_masked_token(teacher, student):
    x, y, sample_weight = toy.make_batch()
    batch = x, y, np.zeros_like(sample_weight)
    objective = MaskedLMObjective(teacher, student, triple())
    logs, gradients = run(objective, batch)
    for name in ("mlm_loss", "mlm_accuracy", "teacher_agreement"):
        assert logs[name] == 0.0
    assert logs["soft_target_loss"] > 0.0
    assert all(np.isfinite(value).all() for value in gradients.values())


def test_nothing_but_padding(teacher, student):
    x, y, sample_weight = toy.make_batch()
    x["padding_mask"] = np.zeros_like(x["padding_mask"])
    logs, gradients = run(
        MaskedLMObjective(teacher, student, triple()), (x, y, sample_weight)
    )
    assert set(logs.values()) == {0.0}
    for path, value in gradients.items():
        np.testing.assert_array_equal(value, np.zeros_like(value), path)


def test_padding_does_not_matter(teacher, student):
    x, y, sample_weight = toy.make_batch()
    objective = MaskedLMObjective(teacher, student, triple())
    logs, gradients = run(objective, (x, y, sample_weight))
    padding = x["padding_mask"] == 0
    changed = {**x, "token_ids": np.where(padding, 9, x["token_ids"])}
    y = np.where(padding, 8, y)
    sample_weight = np.where(padding, 1.0, sample_weight)
    new_logs, new_gradients = run(objective, (changed, y, sample_weight))
    assert_logs_close(new_logs, logs)
    assert_gradients_close(new_gradients, gradients)


def test_no_tensor_of_the_batch_s_logits(teacher, student):
    objective = MaskedLMObjective(teacher, student, triple())
    named = MaskedLMBatch.from_triple(toy.make_batch())

    @tf.function(autograph=False)
    def evaluate():
        return objective.compute_gradients(
            named, objective.denominators(named), training=True
        )

    graph = evaluate.get_concrete_function().graph
    shapes = [
        output.shape.as_list()
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.shape.rank is not None
    ]
    # Batch and length are static here: the logits of all would be one of
    # (4, 7, 50) or (28, 50).
    assert [4, 7, 16] in shapes
    wide = {tuple(s) for s in shapes if s and s[-1] == toy.VOCABULARY}
    assert wide == {(toy.VOCABULARY,)}


def test_parts_are_the_whole():
    batch = MaskedLMBatch.from_triple(toy.make_batch())
    for parts in (1, 2, 3, 4, 6):
        found = [batch.part(index, parts) for index in range(parts)]
        sizes = [int(tf.shape(part.token_ids)[0]) for part in found]
        assert max(sizes) - min(sizes) <= 1
        assert batch.teacher is None
        for name in MaskedLMBatch._fields[:4]:
            joined = tf.concat([getattr(p, name) for p in found], axis=0)
            np.testing.assert_array_equal(joined, getattr(batch, name))


def test_names_the_parts_of_a_triple():
    x, y, sample_weight = toy.make_batch((3, 2))
    sample_weight = np.ones_like(sample_weight, "float64")
    batch = MaskedLMBatch.from_triple((x, y.astype("int64"), sample_weight))
    assert batch.token_ids.dtype == batch.targets.dtype == tf.int32
    np.testing.assert_array_equal(batch.token_ids, x["token_ids"])
    np.testing.assert_array_equal(batch.targets, y)
    # Row 1 has two tokens: the weight in its padding is dropped.
    expected = [[1, 1, 1], [1, 1, 0]]
    assert batch.mask_weight.dtype == tf.float32
    np.testing.assert_array_equal(batch.mask_weight, expected)
    np.testing.assert_array_equal(batch.token_weight, expected)
    sizes = MaskedLMObjective.denominators(None, batch)
    assert {k: float(v) for k, v in sizes.items()} == {"masked": 5, "tokens": 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y, w: (x["token_ids"], y, w),
            "A batch must be .* Received: x=ndarray",
        ),
        (
            lambda x, y, w: ({"token_ids": x["token_ids"]}, y, w),
            r"A batch must be .* Received: x=\['token_ids'\]",
        ),
        (
            lambda x, y, w: ({**x, "token_type_ids": x["token_ids"]}, y, w),
            "A batch must be .* Received: .*token_type_ids",
        ),
        (lambda x, y, w: (x,), "must hold the original .* Received: y=None"),
        (lambda x, y, w: (x, y), "Received: sample_weight=None"),
    ],
)
def test_wrong_batches(change, message):
    with pytest.raises(ValueError, match=message):
        MaskedLMBatch.from_triple(change(*toy.make_batch()))


# === What cannot be trained ===


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_models_must_be_masked_lm(teacher, student, role):
    given = {"teacher": teacher, "student": student}
    given[role] = given[role].backbone
    message = f"`{role}` must be a keras_hub masked-LM task model, .* Received"
    with pytest.raises(TypeError, match=message):
        MaskedLMObjective(**given, losses=triple())


def test_the_decoder_must_be_tied(teacher):
    # KerasHub's head asks for tied weights itself, so they are cut later.
    untied = toy.make_student(teacher)
    untied.masked_lm_head.token_embedding.tie_weights = False
    with pytest.raises(
        ValueError, match="The decoder of `student` must be tied to its token"
    ):
        MaskedLMObjective(teacher, untied, triple())


def test_vocabularies_must_be_the_same(teacher):
    student = toy.make_teacher(vocabulary_size=49)
    message = "must share a vocabulary. .* vocabulary 50, student vocabulary 49"
    with pytest.raises(ValueError, match=message):
        MaskedLMObjective(teacher, student, triple())


def test_float16_is_refused(teacher):
    student = toy.make_student(teacher, dtype="mixed_float16")
    with pytest.raises(ValueError, match="`mixed_float16` is not supported"):
        MaskedLMObjective(teacher, student, triple())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, r"must be a list of at least one .* losses=\[\]"),
        (losses.MaskedLMCrossentropy(), ValueError, "must be a list of at le"),
        (
            [keras.losses.MeanSquaredError()],
            TypeError,
            "`losses` must hold keras_distil losses. .*MeanSquaredError",
        ),
        (
            [losses.MaskedLMCrossentropy(), losses.MaskedLMCrossentropy()],
            ValueError,
            r"Every loss needs its own name.* names \['mlm', 'mlm'\]",
        ),
        (
            [losses.HiddenStateCosineDistance()],
            ValueError,
            r"must hold a loss on logits, .* names \['cosine'\]",
        ),
    ],
)
def test_wrong_losses(teacher, student, given, error, message):
    with pytest.raises(error, match=message):
        MaskedLMObjective(teacher, student, given)


@pytest.mark.parametrize("index", [1, 2])
def test_a_loss_may_need_a_teacher(student, index):
    name = ["mlm", "soft_target", "cosine"][index]
    with pytest.raises(
        ValueError, match=f"The loss '{name}' needs a teacher. .*teacher=None"
    ):
        MaskedLMObjective(None, student, [triple()[index]])


def test_every_trainable_variable_must_be_reached(teacher):
    student = toy.make_student(teacher)
    objective = MaskedLMObjective(teacher, student, triple())
    # A layer that some other use of the encoder would train.
    spare = keras.layers.Dense(2, name="spare")
    spare.build((None, 2))
    student.backbone.pooled_dense_of_mine = spare
    assert any(v is spare.kernel for v in objective.variables)
    with pytest.raises(
        ValueError, match="No loss reaches the trainable variable 'spare/kern"
    ):
        run(objective, toy.make_batch())


# === The forward pass, cut in two ===


@pytest.mark.parametrize("kind", ["bert", "distil_bert", "keras_hub"])
def test_forward_equals_the_task_model(teacher, student, kind):
    model = {"bert": teacher, "distil_bert": student}.get(kind)
    if model is None:
        # KerasHub's own classes: tanh GELU, its epsilon in the head.
        backbone = keras_hub.models.BertBackbone(**toy.SIZES)
        model = toy.randomize(keras_hub.models.BertMaskedLM(backbone), seed=8)
    x, _, _ = toy.make_batch()
    # States at padding are meaningless.
    real = x["padding_mask"] > 0
    np.testing.assert_allclose(
        np.array(forward.encode(model, x, training=False))[real],
        np.array(toy.hidden_states(model, x))[real],
        rtol=1e-5,
        atol=1e-6,
    )
    expected = toy.full_logits(model, x)
    actual = forward.logits(model, x)
    assert actual.dtype == tf.float32
    # Logits are of order 1 and sums of 16 products.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    positions = np.array([[2, 0]] * 4, "int32")
    np.testing.assert_allclose(
        forward.logits(model, {**x, "mask_positions": positions}),
        np.take_along_axis(np.array(expected), positions[..., None], axis=1),
        rtol=1e-5,
        atol=1e-6,
    )
