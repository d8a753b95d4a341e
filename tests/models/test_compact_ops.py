"""Operations with custom gradients, against NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from keras_distil.models import compact_ops


def normal(shape, seed, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def with_gradients(function, inputs, upstream):
    """Output and gradients, as NumPy float64, of a function in a graph."""

    @tf.function(autograph=False)
    def run(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            output = function(*tensors)
        up = tf.cast(upstream, output.dtype)
        return output, tape.gradient(output, tensors, output_gradients=up)

    output, gradients = run(*inputs)
    return tf.cast(output, "float64").numpy(), [
        tf.cast(gradient, "float64").numpy() for gradient in gradients
    ]


def differences(function, inputs, upstream, step=1e-5):
    """Central differences of `sum(upstream * function)` in float64."""
    found = []
    for index, value in enumerate(inputs):
        slope = np.zeros_like(value)
        for place in np.ndindex(value.shape):
            moved = [np.array(x) for x in inputs]
            moved[index][place] += step
            up = np.sum(upstream * function(*moved))
            moved[index][place] -= 2 * step
            down = np.sum(upstream * function(*moved))
            slope[place] = (up - down) / (2 * step)
        found.append(slope)
    return found


def exact_gelu(values):
    return values * 0.5 * (1 + special.erf(values / np.sqrt(2)))


def exact_layer_norm(rows, gamma, beta):
    centred = rows - rows.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-3) * gamma + beta


def test_gelu_is_exact_and_so_is_its_slope():
    values = np.concatenate(
        [normal((5, 7), 0, 2.0).ravel(), [0.0, -12.0, 12.0, 0.5]]
    )
    upstream = normal(values.shape, 1)
    found, (slope,) = with_gradients(
        compact_ops.gelu, [tf.constant(values, tf.float32)], upstream
    )
    np.testing.assert_allclose(found, exact_gelu(values), rtol=1e-5, atol=1e-6)
    (expected,) = differences(exact_gelu, [values], upstream)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [1, 8])
def test_layer_norm_is_exact_and_so_are_its_slopes(width):
    inputs = [
        normal((6, width), 0, 3.0) + 2.0,
        normal((width,), 1) + 1.0,
        normal((width,), 2),
    ]
    upstream = normal((6, width), 3)
    found, slopes = with_gradients(
        lambda *tensors: compact_ops.layer_norm(*tensors, epsilon=1e-3),
        [tf.constant(value, tf.float32) for value in inputs],
        upstream,
    )
    np.testing.assert_allclose(
        found, exact_layer_norm(*inputs), rtol=1e-5, atol=1e-5
    )
    expected = differences(exact_layer_norm, inputs, upstream)
    for ours, theirs in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def test_layer_norm_of_bfloat16_is_computed_in_float32():
    # Around 100, neighbouring bfloat16 numbers lie 0.5 apart: a mean taken in
    # bfloat16 would be off by more than the values differ.
    rows = tf.cast(100.0 + normal((4, 64), 0, 4.0), tf.bfloat16)
    gamma, beta = normal((64,), 1) + 1.0, normal((64,), 2)
    upstream = normal((4, 64), 3)
    found, slopes = with_gradients(
        lambda *tensors: compact_ops.layer_norm(*tensors, epsilon=1e-3),
        [rows, tf.constant(gamma, tf.float32), tf.constant(beta, tf.float32)],
        upstream,
    )
    exact = tf.cast(rows, "float64").numpy()
    inputs = [exact, gamma, beta]
    np.testing.assert_allclose(
        found, exact_layer_norm(*inputs), rtol=2**-8, atol=2**-8
    )
    # The upstream gradient is rounded as well.
    upstream = tf.cast(tf.cast(upstream, tf.bfloat16), "float64").numpy()
    expected = differences(exact_layer_norm, inputs, upstream)
    for ours, theirs in zip(slopes, expected, strict=True):
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        assert error < 2**-7


def packing(flags):
    flags = np.array(flags)
    places = np.where(flags, np.cumsum(flags) - 1, -1)
    return (
        tf.constant(np.flatnonzero(flags), tf.int32),
        tf.constant(places, tf.int32),
    )


def test_rows_are_packed_and_others_get_no_gradient():
    kept, places = packing([1, 0, 1, 1, 0])
    rows = normal((5, 3), 0)
    upstream = normal((3, 3), 1)
    found, (slope,) = with_gradients(
        lambda rows: compact_ops.pack_rows(rows, kept, places),
        [tf.constant(rows)],
        upstream,
    )
    np.testing.assert_array_equal(found, rows[[0, 2, 3]])
    expected = np.zeros((5, 3))
    expected[[0, 2, 3]] = upstream
    np.testing.assert_array_equal(slope, expected)


def test_rows_are_unpacked_and_padding_gives_no_gradient():
    kept, places = packing([1, 0, 1, 1, 0])
    packed = normal((3, 3), 0)
    upstream = normal((5, 3), 1)
    found, (slope,) = with_gradients(
        lambda packed: compact_ops.unpack_rows(packed, kept, places),
        [tf.constant(packed)],
        upstream,
    )
    np.testing.assert_array_equal(found[[0, 2, 3]], packed)
    np.testing.assert_array_equal(slope, upstream[[0, 2, 3]])


def test_nothing_is_packed_from_an_empty_batch():
    kept, places = packing(np.zeros([0], bool))
    rows = tf.zeros([0, 3])
    packed = compact_ops.pack_rows(rows, kept, places)
    assert packed.shape == (0, 3)
    assert compact_ops.unpack_rows(packed, kept, places).shape == (0, 3)


def test_gelu_keeps_its_digits_in_bfloat16():
    values = tf.cast(np.linspace(-4.0, 0.0, 4001), tf.bfloat16)
    exact = tf.cast(values, tf.float64).numpy()
    expected = exact * special.ndtr(exact)
    output, (gradient,) = with_gradients(
        compact_ops.gelu, [values], np.ones(4001)
    )
    # Rounding the right values to bfloat16 makes 0.88e-4; before, 9.7e-4.
    assert np.abs(output - expected).mean() < 1.0e-4
    density = np.exp(-(exact**2) / 2) / np.sqrt(2 * np.pi)
    slope = special.ndtr(exact) + exact * density
    assert np.abs(gradient - slope).mean() < 2.0e-4
