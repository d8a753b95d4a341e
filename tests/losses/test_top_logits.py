"""Losses on a teacher's largest logits, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from losses import reference

from keras_distil import losses
from keras_distil.losses import chunked, functional
from keras_distil.losses.top_logits import TopLogits, tail_temperatures

ROWS, VOCABULARY, WIDTH = 24, 37, 6


def logits_of(seed, rows=ROWS, scale=3.0):
    generator = np.random.default_rng(seed)
    return generator.normal(0.0, scale, (rows, VOCABULARY))


def cut(logits, k, temperatures):
    """What a cache keeps of logits, by hand."""
    token_ids = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    relative = logits - logits.max(axis=-1, keepdims=True)
    others = relative.copy()
    np.put_along_axis(others, token_ids, -np.inf, axis=-1)
    tails = []
    if k < logits.shape[-1]:
        tails = [np.log(np.exp(others / t).sum(axis=-1)) for t in temperatures]
    return TopLogits(
        tf.constant(token_ids, tf.int32),
        tf.constant(np.take_along_axis(relative, token_ids, -1), tf.float32),
        tf.constant(np.reshape(tails, (len(tails), len(logits))).T, tf.float32),
        tf.constant(temperatures, tf.float32),
    )


def merged_kl(theirs, ours, k, temperature):
    """KL divergence of k + 1 outcomes, and its gradient, row by row."""
    p = np.exp(reference.log_softmax(theirs / temperature))
    q = np.exp(reference.log_softmax(ours / temperature))
    value, gradient = np.zeros(len(p)), np.zeros_like(p)
    for row in range(len(p)):
        order = np.argsort(-theirs[row], kind="stable")
        first, other = order[:k], order[k:]
        value[row] = (
            p[row, first] * np.log(p[row, first] / q[row, first])
        ).sum()
        gradient[row, first] = q[row, first] - p[row, first]
        if len(other):
            tail_p, tail_q = p[row, other].sum(), q[row, other].sum()
            value[row] += tail_p * np.log(tail_p / tail_q)
            gradient[row, other] = q[row, other] * (1 - tail_p / tail_q)
    return temperature**2 * value, temperature * gradient


def loss_and_gradient(top, ours, temperature):
    loss = losses.SoftTargetKLDivergence(temperature=temperature)
    student = tf.constant(ours, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = loss.token_values(teacher_logits=top, student_logits=student)
    return values, tape.gradient(values, student)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
@pytest.mark.parametrize("k", [1, 2, 8, 36, 37])
def test_equals_the_divergence_written_out(k, temperature):
    theirs, ours = logits_of(0), logits_of(1)
    top = cut(theirs, k, [temperature])
    values, gradient = loss_and_gradient(top, ours, temperature)
    expected, its_gradient = merged_kl(theirs, ours, k, temperature)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, its_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_with_all_tokens_it_is_the_exact_divergence(temperature):
    theirs, ours = logits_of(2), logits_of(3)
    top = cut(theirs, VOCABULARY, [temperature])
    values, gradient = loss_and_gradient(top, ours, temperature)
    exact, its_gradient = loss_and_gradient(
        tf.constant(theirs, tf.float32), ours, temperature
    )
    np.testing.assert_allclose(values, exact, rtol=1e-5)
    np.testing.assert_allclose(gradient, its_gradient, rtol=1e-5, atol=1e-6)


def test_gradient_against_finite_differences():
    theirs, ours = logits_of(4, rows=3), logits_of(5, rows=3)
    top = cut(theirs, 4, [2.0])
    _, gradient = loss_and_gradient(top, ours, 2.0)
    step = 1e-6
    for row, token in [(0, 0), (1, 20), (2, int(top.token_ids[2, 1]))]:
        beside = []
        for sign in (1, -1):
            moved = ours.copy()
            moved[row, token] += sign * step
            beside.append(merged_kl(theirs, moved, 4, 2.0)[0].sum())
        slope = (beside[0] - beside[1]) / (2 * step)
        assert float(gradient[row, token]) == pytest.approx(
            slope, rel=1e-4, abs=1e-6
        )


def test_more_choices_bring_it_closer_and_never_above():
    theirs, ours = logits_of(6), logits_of(7)
    values = [
        loss_and_gradient(cut(theirs, k, [2.0]), ours, 2.0)[0].numpy()
        for k in (1, 4, 16, 37)
    ]
    for fewer, more in zip(values, values[1:], strict=False):
        assert (fewer <= more * (1 + 1e-5)).all()
    assert (values[0] > 0).all()


def test_zero_where_the_student_agrees():
    theirs = logits_of(8)
    for k in (3, 37):
        values, gradient = loss_and_gradient(
            cut(theirs, k, [2.0]), theirs + 5.0, 2.0
        )
        np.testing.assert_allclose(values, 0.0, atol=1e-6)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_a_vanished_tail_stays_finite():
    theirs = logits_of(9)
    ours = np.full_like(theirs, -500.0)
    ours[:, 0] = 500.0
    top = cut(theirs, 1, [1.0])._replace(
        token_ids=tf.zeros([ROWS, 1], tf.int32)
    )
    values, gradient = loss_and_gradient(top, ours, 1.0)
    assert np.isfinite(values).all()
    assert np.isfinite(gradient).all()


def test_a_tail_that_is_nearly_nothing_keeps_its_digits():
    # Its mass is 1e-9 of the student's: a difference of sums would be noise.
    theirs, ours = logits_of(10), logits_of(11)
    first = np.argmax(theirs, axis=-1)
    ours[np.arange(ROWS), first] += 30.0
    values, gradient = loss_and_gradient(cut(theirs, 1, [1.0]), ours, 1.0)
    expected, its_gradient = merged_kl(theirs, ours, 1, 1.0)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, its_gradient, rtol=1e-5, atol=1e-12)


# === Temperatures ===


def test_temperatures_of_a_range():
    np.testing.assert_array_equal(tail_temperatures(2.0, 2.0), [2.0])
    made = tail_temperatures(1.0, 4.0)
    assert made[0] == 1.0
    assert made[-1] == 4.0
    assert (np.diff(made) > 0).all()


def test_between_temperatures_the_tail_is_interpolated():
    logits = logits_of(12, rows=200)
    nodes = tail_temperatures(1.0, 4.0)
    top = cut(logits, 8, nodes)
    for temperature in np.linspace(1.0, 4.0, 23):
        exact = cut(logits, 8, [temperature]).tails[:, 0]
        # Logs of sums: an error is a relative error of the tail's mass.
        np.testing.assert_allclose(
            top.tail_at(temperature), exact, rtol=0, atol=1e-3
        )
    for number, node in enumerate(nodes):
        np.testing.assert_allclose(
            top.tail_at(node), top.tails[:, number], rtol=1e-6
        )


# === In chunks ===


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chunk_size", "jit_compile"),
    [
        (24, False),
        (7, False),
        (1, False),
        (8, True),
        (7, True),
        (7, "products"),
    ],
)
@pytest.mark.parametrize("k", [5, VOCABULARY])
def test_chunks_equal_all_logits_at_once(chunk_size, jit_compile, k):
    generator = np.random.default_rng(13)
    features, kernel = (
        generator.normal(0.0, 1.0, (size, WIDTH)).astype("float32")
        for size in (ROWS, VOCABULARY)
    )
    bias = generator.normal(0.0, 0.5, VOCABULARY).astype("float32")
    ours = features.astype("float64") @ kernel.T.astype("float64") + bias
    theirs = logits_of(14)
    theirs[::3] += 4.0 * (ours[::3] == ours[::3].max(-1, keepdims=True))
    targets = generator.integers(0, VOCABULARY, ROWS).astype("int32")
    masked = (np.arange(ROWS) < 9).astype("float32")
    real = (np.arange(ROWS) != 11).astype("float32")
    result = chunked.chunked_losses(
        [
            losses.MaskedLMCrossentropy(weight=2.0),
            losses.SoftTargetKLDivergence(weight=5.0, temperature=2.0),
        ],
        [
            tf.constant(2.0 / masked.sum(), tf.float32),
            tf.constant(5.0 / real.sum(), tf.float32),
        ],
        student=chunked.VocabularyProjection(
            *map(tf.constant, (features, kernel, bias))
        ),
        teacher=cut(theirs, k, [2.0]),
        token_ids=tf.constant(targets),
        row_weights=[tf.constant(masked), tf.constant(real)],
        metric_weight=tf.constant(masked),
        masked_rows=tf.constant(9),
        chunk_size=chunk_size,
        jit_compile=jit_compile,
    )
    hard, hard_gradient = reference.crossentropy(targets, ours, masked)
    soft, soft_gradient = merged_kl(theirs, ours, k, 2.0)
    gradient = 2.0 * hard_gradient
    gradient += 5.0 * soft_gradient * real[:, None] / real.sum()
    expected = {
        "sums": [hard * masked.sum(), (soft * real).sum()],
        "correct": ((ours.argmax(-1) == targets) * masked).sum(),
        "agreeing": ((ours.argmax(-1) == theirs.argmax(-1)) * masked).sum(),
        "feature_gradient": gradient @ kernel,
        "kernel_gradient": gradient.T @ features,
        "bias_gradient": gradient.sum(axis=0),
    }
    assert 0 < expected["agreeing"] < masked.sum()
    for name, value in expected.items():
        atol = 1e-5 * np.abs(value).max()
        np.testing.assert_allclose(
            getattr(result, name), value, rtol=1e-5, atol=atol, err_msg=name
        )


def test_no_rows_give_zeros():
    top = cut(logits_of(15), 5, [2.0]).of_rows(lambda tensor: tensor[:0])
    values = functional.top_soft_target_kl_divergence(
        top.token_ids,
        top.logits,
        top.tail_at(2.0),
        tf.zeros([0, VOCABULARY]),
        2.0,
    )
    assert values.shape == (0,)
