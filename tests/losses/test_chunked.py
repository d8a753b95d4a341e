"""Chunked vocabulary losses against all logits at once, in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from losses import reference

from keras_distil import losses
from keras_distil.losses import chunked

VOCABULARY, WIDTH = 37, 6
WEIGHTS = 2.0, 5.0
TEMPERATURE = 2.0


LOSSES = [
    losses.MaskedLMCrossentropy(weight=WEIGHTS[0]),
    losses.SoftTargetKLDivergence(weight=WEIGHTS[1], temperature=TEMPERATURE),
]


def make_problem(rows):
    """NumPy arrays: two projections, tokens, a row weight per loss."""
    generator = np.random.default_rng(4)

    def projection():
        return [
            generator.normal(0.0, scale, shape).astype("float32")
            for scale, shape in (
                (1.0, (rows, WIDTH)),
                (0.7, (VOCABULARY, WIDTH)),
                (0.5, (VOCABULARY,)),
            )
        ]

    student, teacher = projection(), projection()
    token_ids = generator.integers(0, VOCABULARY, rows).astype("int32")
    # Some of them right, for the accuracy.
    token_ids[::6] = logits_of(*student)[::6].argmax(axis=-1)
    masked = (np.arange(rows) % 3 == 0).astype("float32")
    real = np.ones(rows, "float32")
    real[rows // 2 : rows // 2 + 1] = 0.0
    return student, teacher, token_ids, [masked, real]


def chunked_result(problem, dtype=tf.float32, **options):
    student, teacher, token_ids, row_weights = problem

    def projection(features, kernel, bias):
        return chunked.VocabularyProjection(
            tf.cast(features, dtype), tf.cast(kernel, dtype), bias
        )

    scales = [
        tf.constant(weight / max(rows.sum(), 1.0), tf.float32)
        for weight, rows in zip(WEIGHTS, row_weights, strict=True)
    ]
    return chunked.chunked_losses(
        LOSSES,
        scales,
        student=projection(*student),
        teacher=projection(*teacher),
        token_ids=tf.constant(token_ids),
        row_weights=[tf.constant(rows) for rows in row_weights],
        metric_weight=tf.constant(row_weights[0]),
        **options,
    )


def in_a_graph(function):
    return tf.function(function, autograph=False)()


def logits_of(features, kernel, bias):
    return features.astype("float64") @ kernel.astype("float64").T + bias


def expected_result(problem):
    student, teacher, token_ids, (masked, real) = problem
    ours, theirs = logits_of(*student), logits_of(*teacher)
    hard, hard_gradient = reference.crossentropy(token_ids, ours, masked)
    soft, soft_gradient = reference.kl_divergence(
        theirs, ours, TEMPERATURE, real
    )
    gradient = WEIGHTS[0] * hard_gradient + WEIGHTS[1] * soft_gradient
    best = ours.argmax(axis=-1)
    return chunked.ChunkedResult(
        sums=np.array([hard * masked.sum(), soft * real.sum()]),
        correct=((best == token_ids) * masked).sum(),
        agreeing=((best == theirs.argmax(axis=-1)) * masked).sum(),
        statistics=np.zeros(0),
        feature_gradient=gradient @ student[1],
        kernel_gradient=gradient.T @ student[0],
        bias_gradient=gradient.sum(axis=0),
    )


def assert_close(actual, expected, rtol):
    for name, theirs in expected._asdict().items():
        ours = tf.cast(getattr(actual, name), tf.float32)
        # Relative to the largest entry: sums cancel, and entries near zero
        # carry the rounding of the terms.
        atol = rtol * np.max(np.abs(theirs), initial=0.0)
        np.testing.assert_allclose(
            ours, theirs, rtol=rtol, atol=atol, err_msg=name
        )


# 24 rows: chunks that divide them, that do not, one row, and one chunk.
@pytest.mark.parametrize(
    ("chunk_size", "jit_compile"),
    [(8, False), (12, False), (7, False), (23, False), (1, False)]
    + [(24, False), (1000, False), (8, True), (7, True), (1000, True)]
    + [(8, "products"), (7, "products"), (1000, "products")],
)
def test_equals_all_logits_at_once(chunk_size, jit_compile):
    problem = make_problem(24)
    result = chunked_result(
        problem, chunk_size=chunk_size, jit_compile=jit_compile
    )
    assert_close(result, expected_result(problem), rtol=1e-5)
    assert result.feature_gradient.shape == (24, WIDTH)


@pytest.mark.parametrize("rows", [1, 2, 13])
def test_few_rows_in_a_graph(rows):
    problem = make_problem(rows)
    result = in_a_graph(lambda: chunked_result(problem, chunk_size=4))
    assert_close(result, expected_result(problem), rtol=1e-5)


def test_the_metrics_count_something():
    expected = expected_result(make_problem(240))
    assert expected.correct > 0
    assert expected.agreeing > 0
    actual = chunked_result(make_problem(240), chunk_size=64)
    assert float(actual.correct) == expected.correct
    assert float(actual.agreeing) == expected.agreeing


@pytest.mark.parametrize("jit_compile", [False, True, "products"])
@pytest.mark.parametrize("run", [in_a_graph, lambda function: function()])
def test_no_rows_give_zeros(run, jit_compile):
    result = run(
        lambda: chunked_result(make_problem(0), jit_compile=jit_compile)
    )
    for name, value in result._asdict().items():
        np.testing.assert_array_equal(
            value, np.zeros(value.shape), err_msg=name
        )
    assert result.feature_gradient.shape == (0, WIDTH)
    assert result.kernel_gradient.shape == (VOCABULARY, WIDTH)
    assert result.bias_gradient.shape == (VOCABULARY,)


def test_metrics_by_hand():
    # Features are logits: the kernel is the identity.
    eye, bias = np.eye(3, dtype="float32"), np.zeros(3, "float32")
    student = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9], [9, 0, 0]], "float32")
    teacher = np.array([[9, 0, 0], [0, 0, 9], [0, 0, 9], [0, 9, 0]], "float32")
    result = chunked.chunked_losses(
        LOSSES,
        [tf.constant(1.0)] * 2,
        student=chunked.VocabularyProjection(student, eye, bias),
        teacher=chunked.VocabularyProjection(teacher, eye, bias),
        token_ids=tf.constant([0, 1, 0, 0]),
        row_weights=[tf.ones(4)] * 2,
        # The last row would be correct, but does not count.
        metric_weight=tf.constant([1.0, 1.0, 1.0, 0.0]),
        chunk_size=3,
        with_gradients=False,
    )
    assert float(result.correct) == 2.0
    assert float(result.agreeing) == 2.0
    assert result.feature_gradient is None
    assert result.kernel_gradient is None
    assert result.bias_gradient is None


def test_without_a_teacher():
    problem = make_problem(9)
    student, _, token_ids, (masked, _) = problem
    result = chunked.chunked_losses(
        LOSSES[:1],
        [tf.constant(1.0)],
        student=chunked.VocabularyProjection(*map(tf.constant, student)),
        teacher=None,
        token_ids=tf.constant(token_ids),
        row_weights=[tf.constant(masked)],
        metric_weight=tf.ones(9),
        chunk_size=4,
    )
    assert float(result.agreeing) == 0.0
    expected, _ = reference.crossentropy(token_ids, logits_of(*student), masked)
    np.testing.assert_allclose(
        result.sums, [expected * masked.sum()], rtol=1e-5
    )


@pytest.mark.parametrize("masked_rows", [0, 3, 4, 9, 24])
@pytest.mark.parametrize("run", [in_a_graph, lambda function: function()])
def test_chunks_without_masked_rows_are_spared(masked_rows, run):
    problem = make_problem(24)
    problem[3][0][:] = np.arange(24) < masked_rows
    result = run(
        lambda: chunked_result(
            problem, chunk_size=4, masked_rows=tf.constant(masked_rows)
        )
    )
    assert_close(result, expected_result(problem), rtol=1e-5)


def test_a_row_of_weight_zero_does_not_matter():
    problem = make_problem(9)
    student, teacher, _, row_weights = problem
    for weights in row_weights:
        weights[4] = 0.0
    before = chunked_result(problem, chunk_size=4)
    student[0][4] = 50.0
    teacher[0][4] = -50.0
    after = chunked_result(problem, chunk_size=4)
    for name in ("sums", "correct", "kernel_gradient", "bias_gradient"):
        np.testing.assert_array_equal(
            getattr(before, name), getattr(after, name), err_msg=name
        )
    np.testing.assert_array_equal(after.feature_gradient[4], np.zeros(WIDTH))


def test_mixed_bfloat16():
    problem = make_problem(24)
    result = chunked_result(problem, dtype=tf.bfloat16, chunk_size=7)
    # What leaves the loop is summed in float32.
    assert result.feature_gradient.dtype == tf.bfloat16
    assert result.kernel_gradient.dtype == tf.float32
    assert result.bias_gradient.dtype == tf.float32
    expected = expected_result(problem)
    # 8 bits: features and kernel are rounded by up to 2**-9, the products of
    # a logit (6 terms, of order 1) and its own rounding add to some 2**-7;
    # a gradient is a difference of probabilities with that relative error.
    for name in ("sums", "feature_gradient", "kernel_gradient"):
        ours = np.array(tf.cast(getattr(result, name), tf.float32))
        theirs = getattr(expected, name)
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert error < 2**-6, name


def all_shapes(graph):
    """Static shapes in a graph and in the functions it calls."""
    graphs = [graph]
    seen = set()
    while graphs:
        current = graphs.pop()
        for operation in current.get_operations():
            for output in operation.outputs:
                yield output.shape
            for name in ("cond", "body", "then_branch", "else_branch", "f"):
                try:
                    called = operation.get_attr(name)
                except ValueError:
                    continue
                if called.name not in seen:
                    seen.add(called.name)
                    graphs.append(current._get_function(called.name).graph)


def test_no_tensor_of_all_logits_exists():
    # The rows are static here, so a tensor of them all would show.
    problem = make_problem(24)
    evaluate = tf.function(
        lambda: chunked_result(problem, chunk_size=8), autograph=False
    )
    shapes = [
        shape.as_list()
        for shape in all_shapes(evaluate.get_concrete_function().graph)
        if shape.rank is not None
    ]
    # The chunks' logits are found, of unknown height, and nothing of 24 rows.
    assert [None, VOCABULARY] in shapes
    assert [24, WIDTH] in shapes
    assert not [s for s in shapes if 24 in s and VOCABULARY in s]


def test_memory_of_the_rows_is_never_all_logits(monkeypatch):
    heights = []
    original = chunked._evaluate_chunk

    def record(losses, scales, chunk, **kwargs):
        heights.append(int(chunk.student_product.shape[0]))
        return original(losses, scales, chunk, **kwargs)

    monkeypatch.setattr(chunked, "_evaluate_chunk", record)
    chunked_result(make_problem(25), chunk_size=8)
    # Nearly equal chunks: 4 of 7, 7, 7 and 4 rows instead of 8, 8, 8 and 1.
    assert heights == [7, 7, 7, 4]
