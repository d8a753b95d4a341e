"""The divergence of attention relations, against NumPy and by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from losses.attention_reference import divergence

from keras_distil import losses
from keras_distil.losses import attention_tables
from keras_distil.losses.settings import AttentionRelationSettings

MASK = (np.arange(7) < np.array([7, 3, 5, 1])[:, None]).astype("int32")
WEIGHTS = {"query_weight": 0.5, "key_weight": 2.0, "value_weight": 1.0}
TABLES = [(0, 0, 0.5), (1, 1, 2.0), (2, 2, 1.0)]


@pytest.fixture(scope="module")
def arrays():
    """Vectors of a teacher of width 24 and a student of width 12."""
    generator = np.random.default_rng(0)
    teacher = generator.normal(size=(4, 7, 3, 4, 6)).astype("float32")
    student = generator.normal(size=(4, 7, 3, 3, 4)).astype("float32")
    weight = generator.integers(0, 3, MASK.shape).astype("float32")
    weight[0, :2] = 0.0, 2.0
    return teacher, student, weight


def value_and_gradient(loss, teacher, student, *rest):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student, *rest)
    return value, tape.gradient(value, student)


def make_loss(**options):
    return losses.AttentionRelationKLDivergence(
        **{"relation_heads": 6, **WEIGHTS, **options}
    )


def test_two_tokens_by_hand():
    """The teacher relates all tokens alike, the student the first to itself.

    Its scores are 4 / 2 and 2 / 2 in the first row, and 2 / 2 twice in the
    second, with a size of 4.
    """
    teacher = np.zeros((1, 2, 3, 1, 3), "float32")
    student = np.zeros((1, 2, 3, 1, 4), "float32")
    student[0, :, 1, 0] = [[2, 0, 0, 0], [1, 1, 0, 0]]
    loss = losses.AttentionRelationKLDivergence(
        relation_heads=1, key_weight=3.0
    )
    first = np.log(1 + np.e) - 0.5 - np.log(2)
    value, gradient = value_and_gradient(loss, teacher, student)
    assert float(value) == pytest.approx(3 * first / 2, rel=1e-6)
    # q - p of the first row is +-d; each score has a slope of 1 / 2.
    d = np.e / (1 + np.e) - 0.5
    slopes = 3 / 2 / 2 * d * np.array([[2 * 2 - 1, -1, 0, 0], [-2, 0, 0, 0]])
    np.testing.assert_allclose(gradient[0, :, 1, 0], slopes, rtol=1e-5)
    np.testing.assert_array_equal(gradient[0, :, ::2], 0.0)
    # Without the first token's row, nothing is left.
    weight = np.array([[0.0, 1.0]])
    assert float(loss(teacher, student, None, weight)) == 0.0


@pytest.mark.parametrize("graph", [False, True])
# All tables at once, two at a time, and one.
@pytest.mark.parametrize("at_once", [2**18, 100, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_numpy_float64(arrays, monkeypatch, weighted, at_once, graph):
    monkeypatch.setattr(attention_tables, "_AT_ONCE", at_once)
    teacher, student, weight = arrays
    weight = weight if weighted else None
    run = value_and_gradient
    if graph:
        run = tf.function(run, autograph=False)
    value, gradient = run(make_loss(), teacher, student, MASK, weight)
    expected = divergence(teacher, student, TABLES, 6, MASK, weight)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(expected[0], rel=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-7)


def test_as_many_heads_as_numbers_and_one(arrays):
    for heads in (1, 12):
        value = make_loss(relation_heads=heads)(*arrays[:2], MASK)
        expected = divergence(*arrays[:2], TABLES, heads, MASK)[0]
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_few_tables_exist_at_once(arrays, monkeypatch):
    monkeypatch.setattr(attention_tables, "_AT_ONCE", 100)
    sizes, evaluate = [], attention_tables._few_tables

    def watched(theirs, ours, tables, *, real, **rest):
        sizes.append(real.shape[0] * real.shape[1] ** 2)
        return evaluate(theirs, ours, tables, real=real, **rest)

    monkeypatch.setattr(attention_tables, "_few_tables", watched)
    make_loss()(*arrays[:2], MASK)
    # Two tables of 49 numbers at a time, of 4 sequences with 6 heads.
    assert sizes == [98] * 12


def test_a_whole_table_is_kept_for_no_gradient(arrays):
    """No tensor between value and gradient has two axes of length."""
    teacher, student, _ = arrays
    loss = make_loss()
    spec = [tf.TensorSpec((4, 7, *x.shape[2:])) for x in (teacher, student)]
    graph = (
        tf.function(
            lambda t, s: value_and_gradient(loss, t, s), autograph=False
        )
        .get_concrete_function(*spec)
        .graph
    )
    # Tables exist inside of the loop, which is a graph of its own.
    assert not any(
        output.shape.rank and output.shape.as_list().count(7) > 1
        for operation in graph.get_operations()
        for output in operation.outputs
    )


def test_zero_where_teacher_equals_student(arrays):
    value, gradient = value_and_gradient(
        make_loss(), arrays[0], arrays[0], MASK
    )
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0 * arrays[0])


@pytest.mark.parametrize("filling", [1e9, float("nan")])
def test_padding_does_not_matter(arrays, filling):
    real = MASK[:, :, None, None, None] > 0
    changed = [np.where(real, x, np.float32(filling)) for x in arrays[:2]]
    found = value_and_gradient(make_loss(), *changed, MASK, arrays[2])
    expected = value_and_gradient(make_loss(), *arrays[:2], MASK, arrays[2])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.where(real, 0.0, found[1]).any()


def test_sequences_may_be_cut_to_their_tokens(arrays):
    teacher, student, _ = arrays
    loss, sums = make_loss(), 0.0
    for row, count in enumerate(MASK.sum(axis=1)):
        cut = [x[row : row + 1, :count] for x in (teacher, student)]
        sums += count * float(loss(*cut))
    assert float(loss(teacher, student, MASK)) == pytest.approx(
        sums / MASK.sum(), rel=1e-5
    )


def test_no_token_counts(arrays):
    for mask in (0 * MASK, MASK[:0]):
        cut = [x[: len(mask)] for x in arrays[:2]]
        value, gradient = value_and_gradient(make_loss(), *cut, mask)
        assert float(value) == 0.0
        np.testing.assert_array_equal(gradient, 0.0 * cut[1])


def test_half_precision_is_computed_in_float32(arrays):
    rounded = [tf.cast(x, tf.bfloat16) for x in arrays[:2]]
    exact = [tf.cast(x, tf.float64).numpy() for x in rounded]
    value, gradient = value_and_gradient(make_loss(), *rounded, MASK)
    expected = divergence(*exact, TABLES, 6, MASK)
    assert float(value) == pytest.approx(expected[0], rel=1e-5)
    assert gradient.dtype == tf.bfloat16
    # Eight bits of mantissa.
    np.testing.assert_allclose(
        tf.cast(gradient, tf.float32), expected[1], rtol=2**-8, atol=1e-7
    )


def test_config_round_trip():
    loss = make_loss(weight=3.0, name="own", layers=[(1, 0), (5, 2)])
    config = keras.saving.serialize_keras_object(loss)
    assert config["registered_name"] == (
        "keras_distil>AttentionRelationKLDivergence"
    )
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["relation_heads"] == 6
    assert again.get_config()["key_weight"] == 2.0


def test_a_recipe_makes_it():
    settings = AttentionRelationSettings(
        relation_heads=4, key_weight=0.0, layers=[[1, 0]]
    )
    for kind in ("masked_lm", "span", "regression"):
        (loss,) = losses.make_losses({"attention_relation": settings}, kind)
        config = loss.get_config()
        assert (config["relation_heads"], config["key_weight"]) == (4, 0.0)
        assert loss.layers == ((1, 0),)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"relation_heads": 0},
            ValueError,
            "`relation_heads` must be at least 1. Received: relation_heads=0",
        ),
        (
            {"relation_heads": 1.5},
            TypeError,
            "`relation_heads` must be an integer. Received: .*=1.5",
        ),
        (
            {"value_weight": -1.0},
            ValueError,
            "`value_weight` must not be negative. Received: value_weight=-1",
        ),
        (
            {"key_weight": "1"},
            TypeError,
            "`key_weight` must be a number. Received: key_weight='1'",
        ),
        (
            dict.fromkeys(WEIGHTS, 0.0),
            ValueError,
            "`value_weight` must be above 0. Received: 0 for all three",
        ),
        (
            {"layers": [(1, "embeddings")]},
            ValueError,
            r"The embeddings have no attention: `layers` must .* "
            r"Received: the pair \(1, 'embeddings'\)",
        ),
        (
            {"layers": [("conv", "conv")]},
            ValueError,
            r"`layers` must be 'last', .* Received: the pair \('conv', 'conv'",
        ),
    ],
)
def test_arguments_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        make_loss(**options)


def test_heads_that_do_not_divide_a_width(arrays):
    loss = make_loss(relation_heads=8)
    with pytest.raises(
        ValueError,
        match="`relation_heads` must divide the widths of teacher and "
        "student, 24 and 12. Received: relation_heads=8.",
    ):
        loss(*arrays[:2])


def test_a_recipe_without_any_relation():
    with pytest.raises(ValueError, match="above 0. Received: 0 for all three"):
        AttentionRelationSettings(**dict.fromkeys(WEIGHTS, 0.0))
