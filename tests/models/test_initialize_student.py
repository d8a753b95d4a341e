import logging
import random

import keras
import keras_hub
import numpy as np
import pytest

from keras_distil import models

# === Which layers ===


@pytest.mark.parametrize(
    "depth, num_layers, layers, expected",
    [
        (12, 6, "alternate", [0, 2, 4, 6, 8, 10]),
        (12, 4, "alternate", [0, 3, 6, 9]),
        (12, 5, "alternate", [0, 2, 4, 7, 9]),
        (6, 3, "alternate", [0, 2, 4]),
        (6, None, "alternate", [0, 2, 4]),
        (1, None, "alternate", [0]),
        (3, 3, "alternate", [0, 1, 2]),
        (12, 6, "paper_code", [0, 2, 4, 7, 9, 11]),
        (12, None, "paper_code", [0, 2, 4, 7, 9, 11]),
        (12, 3, "first", [0, 1, 2]),
        (12, 3, "last", [9, 10, 11]),
        (12, None, [11, 0], [11, 0]),
        (12, 2, (3, 5), [3, 5]),
        (4, None, range(4), [0, 1, 2, 3]),
        (4, np.int64(1), np.array([2]), [2]),
    ],
)
def test_layer_indices(depth, num_layers, layers, expected):
    found = models.student_layer_indices(depth, num_layers, layers)
    assert found == expected
    assert all(type(index) is int for index in found)


@pytest.mark.parametrize(
    "num_layers, layers, message",
    [
        (5, "alternate", "from 1 to the teacher's 4.*num_layers=5"),
        (0, "first", "from 1 to the teacher's 4.*num_layers=0"),
        (-1, "last", "from 1 to the teacher's 4.*num_layers=-1"),
        (2, "alternat", "`layers` .*layers='alternat'.*mean 'alternate'"),
        (2, "paper", "layers='paper'.*mean 'paper_code'"),
        (2, "paper_code", "teacher of 12 .*student of 6.*Received: 4 and 2"),
        (None, [0, 4], "from 0 to 3, .*teacher of 4.*Received: index 4"),
        (None, [-1], "from 0 to 3, .*Received: index -1"),
        (None, [1, 1], r"not name a layer twice.*layers=\[1, 1\]"),
        (None, [], r"at least one layer. Received: \[\]"),
        (3, [0, 1], "None or the number of `layers`.*=3 and 2 layers"),
    ],
)
def test_impossible_layers(num_layers, layers, message):
    with pytest.raises(ValueError, match=message):
        models.student_layer_indices(4, num_layers, layers)


@pytest.mark.parametrize(
    "num_layers, layers, message",
    [
        (2.0, "first", "`num_layers` must be an integer. Received: 2.0"),
        (True, "first", "`num_layers` must be an integer. Received: True"),
        ("2", "first", "`num_layers` must be an integer. Received: '2'"),
        (1.5, [0], "`num_layers` must be an integer. Received: 1.5"),
        (None, [0.0], "`layers` must be an integer. Received: 0.0"),
        (None, [True], "`layers` must be an integer. Received: True"),
        (None, 3, "`layers` must be a name or a list.*layers=3"),
    ],
)
def test_layers_of_the_wrong_type(num_layers, layers, message):
    with pytest.raises(TypeError, match=message):
        models.student_layer_indices(4, num_layers, layers)


# === Weights ===


@pytest.mark.parametrize("name", ["toy_bert", "toy_distil_bert"])
def test_student_of_all_layers_equals_the_teacher(
    name, request, bert_inputs, inputs, all_logits
):
    teacher = request.getfixturevalue(name)
    student = models.initialize_student(teacher, layers=list(range(4)))
    assert type(student) is models.ExactDistilBertMaskedLM
    assert isinstance(student, keras_hub.models.DistilBertMaskedLM)
    theirs = {k: bert_inputs[k] for k in teacher.backbone.input}
    expected = teacher.backbone(theirs)
    if isinstance(expected, dict):
        expected = expected["sequence_output"]
    # Float32: the sum of three embeddings is taken in another order.
    tolerance = {"atol": 1e-5, "rtol": 1e-5}
    np.testing.assert_allclose(student.backbone(inputs), expected, **tolerance)
    np.testing.assert_allclose(
        all_logits(student, inputs), all_logits(teacher, theirs), **tolerance
    )


def test_chosen_layers_are_copied_in_order(toy_bert):
    student = models.initialize_student(toy_bert, layers=[3, 1])
    pairs = [(3, 0), (1, 1)]
    for theirs, ours in pairs:
        source = toy_bert.backbone.transformer_layers[theirs]
        target = student.backbone.transformer_layers[ours]
        for old, new in zip(source.weights, target.weights, strict=True):
            np.testing.assert_array_equal(new, old)


def test_segment_zero_is_folded_into_the_positions(toy_bert):
    student = models.initialize_student(toy_bert)
    backbone = toy_bert.backbone
    expected = (
        backbone.position_embedding.position_embeddings.numpy()
        + backbone.segment_embedding.embeddings.numpy()[:1]
    )
    positions = student.backbone.embeddings.position_embedding
    np.testing.assert_array_equal(positions.position_embeddings, expected)
    # The head is tied to the embedding of the encoder.
    head = student.masked_lm_head
    assert head.token_embedding is student.backbone.token_embedding
    np.testing.assert_array_equal(
        head.token_embedding.embeddings, backbone.token_embedding.embeddings
    )


def test_teacher_is_left_alone(toy_bert):
    before = [weight.copy() for weight in toy_bert.get_weights()]
    student = models.initialize_student(toy_bert)
    for variable in student.weights:
        variable.assign(keras.ops.zeros_like(variable))
    for old, new in zip(before, toy_bert.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_dtype_and_dropout(toy_bert):
    student = models.initialize_student(
        toy_bert, dtype="mixed_bfloat16", dropout=0.2
    )
    assert student.backbone.compute_dtype == "bfloat16"
    assert student.backbone.dropout == 0.2
    assert {variable.dtype for variable in student.weights} == {"float32"}


def test_teacher_in_bfloat16(golden_bert):
    teacher = models.load_teacher(golden_bert, dtype="bfloat16")
    student = models.initialize_student(teacher, layers=[0, 1])
    # The sum of two bfloat16 values is kept in the student's precision.
    backbone = teacher.backbone
    expected = keras.ops.cast(
        backbone.position_embedding.position_embeddings, "float32"
    ) + keras.ops.cast(backbone.segment_embedding.embeddings[0], "float32")
    positions = student.backbone.embeddings.position_embedding
    np.testing.assert_array_equal(positions.position_embeddings, expected)


def test_copied_student_does_not_depend_on_global_state(toy_bert):
    keras.utils.set_random_seed(3)
    state = random.getstate()
    student = models.initialize_student(toy_bert, seed=1)
    assert random.getstate() == state
    keras.utils.set_random_seed(4)
    again = models.initialize_student(toy_bert, seed=1)
    other = models.initialize_student(toy_bert, seed=2)

    def dropout_seeds(model):
        return np.stack(
            [
                np.asarray(v)
                for v in model.variables
                if "seed_generator" in v.path
            ]
        )

    assert len(dropout_seeds(student))
    np.testing.assert_array_equal(dropout_seeds(student), dropout_seeds(again))
    assert (dropout_seeds(student) != dropout_seeds(other)).any()


def test_saved_student_is_the_same(toy_bert, tmp_path, all_logits, inputs):
    student = models.initialize_student(toy_bert)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(
        all_logits(loaded, inputs), all_logits(student, inputs)
    )


# === Narrower students ===


def test_narrow_student_is_fresh_and_says_so(toy_bert, caplog):
    student = models.initialize_student(toy_bert, 2, hidden_dim=4, seed=1)
    assert "Nothing was copied" in caplog.text
    assert "hidden_dim 8 -> 4, intermediate_dim 16 -> 8" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING
    backbone = student.backbone
    assert (backbone.num_layers, backbone.hidden_dim) == (2, 4)
    assert (backbone.intermediate_dim, backbone.num_heads) == (8, 2)
    assert backbone.vocabulary_size == 32
    for variable in student.weights:
        value = np.asarray(variable)
        if variable.path.endswith(("kernel", "embeddings")):
            # Truncated normal of 0.02: at most two standard deviations.
            assert 0 < np.abs(value).max() <= 0.04
        else:
            scale = variable.path.endswith("gamma")
            np.testing.assert_array_equal(value, np.full(value.shape, scale))


@pytest.mark.parametrize(
    "sizes, text",
    [
        ({"num_heads": 4}, "num_heads 2 -> 4"),
        ({"intermediate_dim": 8}, "intermediate_dim 16 -> 8"),
    ],
)
def test_any_other_size_means_fresh_weights(toy_bert, caplog, sizes, text):
    student = models.initialize_student(toy_bert, **sizes)
    assert text in caplog.text
    embeddings = np.asarray(student.backbone.token_embedding.embeddings)
    assert np.abs(embeddings).max() <= 0.04


def test_the_teachers_own_sizes_are_no_difference(toy_bert, caplog):
    models.initialize_student(
        toy_bert, hidden_dim=8, intermediate_dim=16, num_heads=2
    )
    assert caplog.text == ""


def test_random_initialization_copies_nothing_and_warns_of_nothing(
    toy_bert, caplog
):
    student = models.initialize_student(toy_bert, 2, initialization="random")
    assert caplog.text == ""
    assert student.backbone.num_layers == 2
    copied = models.initialize_student(toy_bert, 2)
    for fresh, other in zip(student.weights, copied.weights, strict=True):
        value = np.asarray(fresh)
        if fresh.path.endswith(("kernel", "embeddings")):
            assert 0 < np.abs(value).max() <= 0.04
            assert (value != np.asarray(other)).mean() > 0.9


def test_fresh_weights_depend_on_the_seed_alone(toy_bert):
    def weights(seed):
        student = models.initialize_student(toy_bert, hidden_dim=4, seed=seed)
        return np.concatenate([w.ravel() for w in student.get_weights()])

    keras.utils.set_random_seed(1)
    first = weights(5)
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(weights(5), first)
    assert (weights(6) != first).any()


def test_fresh_kernels_differ_from_each_other(toy_bert):
    student = models.initialize_student(toy_bert, hidden_dim=4)
    kernels = [
        np.asarray(v).ravel()
        for v in student.weights
        if v.path.endswith(("query/kernel", "key/kernel", "value/kernel"))
    ]
    assert len(np.unique(np.stack(kernels), axis=0)) == len(kernels) == 6


# === Errors ===


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"hidden_dim": 0}, ValueError, "`hidden_dim` .*hidden_dim=0"),
        ({"num_heads": -2}, ValueError, "`num_heads` must be .*num_heads=-2"),
        (
            {"hidden_dim": 7},
            ValueError,
            "divisible by `num_heads`.*hidden_dim=7, num_heads=2",
        ),
        ({"hidden_dim": 4.0}, TypeError, "`hidden_dim` must be an integer.*4"),
        (
            {"intermediate_dim": True},
            TypeError,
            "`intermediate_dim` must be an integer. Received: True",
        ),
        ({"dropout": 1.0}, ValueError, r"`dropout` .*\[0, 1\).*dropout=1.0"),
        ({"dropout": -0.1}, ValueError, "`dropout` .*dropout=-0.1"),
        ({"num_layers": 9}, ValueError, "num_layers=9"),
        (
            {"initialization": "fresh"},
            ValueError,
            "`initialization` must be one of .*random.*Received.*'fresh'",
        ),
    ],
)
def test_errors(toy_bert, options, error, message):
    with pytest.raises(error, match=message):
        models.initialize_student(toy_bert, **options)


def test_teacher_of_another_kind(toy_bert):
    message = "a task or sentence embeddings. Received: ExactBertBackbone"
    with pytest.raises(TypeError, match=message):
        models.initialize_student(toy_bert.backbone)


# === The sizes of the paper ===


@pytest.mark.slow
def test_half_of_bert_base_has_the_size_of_distil_bert():
    sizes = {
        "vocabulary_size": 30522,
        "num_heads": 12,
        "hidden_dim": 768,
        "intermediate_dim": 3072,
    }
    backbone = models.ExactBertBackbone(**sizes, num_layers=12)
    teacher = models.ExactBertMaskedLM(backbone)
    student = models.initialize_student(teacher, layers="paper_code")
    # Published: 110 million and 66 million, a reduction by 40%.
    assert teacher.backbone.count_params() == 109_482_240
    assert student.backbone.count_params() == 66_362_880
