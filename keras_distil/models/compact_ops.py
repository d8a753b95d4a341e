"""Operations that keep few tensors for their gradients.

TensorFlow keeps every intermediate value that a gradient needs: for a GELU,
six tensors of the feed-forward width. These operations compute the same and
keep one.
"""

import math
from typing import Any

import tensorflow as tf

Tensor = Any

_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


@tf.custom_gradient
def gelu(values: Tensor) -> tuple[Tensor, Any]:
    """Exact GELU, computed by `erf`.

    Args:
        values: float, any shape.

    Returns:
        Same shape and dtype, computed in at least float32. Only `values`
        is kept for the gradient.
    """
    # In half precision, 1 + erf(x) would lose the digits of a negative x.
    half = values.dtype in (tf.bfloat16, tf.float16)
    dtype = tf.float32 if half else values.dtype

    # Keras uses `erfc`, which takes twice as long on CPUs.
    def cumulative(inputs: Tensor) -> Tensor:
        root = tf.cast(_ROOT_HALF, dtype)
        return tf.cast(0.5, dtype) * (1 + tf.math.erf(inputs * root))

    def gradient(upstream: Tensor) -> Tensor:
        inputs = tf.cast(values, dtype)
        density = tf.cast(_DENSITY, dtype) * tf.exp(
            tf.cast(-0.5, dtype) * inputs * inputs
        )
        slope = cumulative(inputs) + inputs * density
        return tf.cast(tf.cast(upstream, dtype) * slope, values.dtype)

    inputs = tf.cast(values, dtype)
    return tf.cast(inputs * cumulative(inputs), values.dtype), gradient


def layer_norm(
    rows: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> Tensor:
    """Layer normalisation over the last axis, computed in float32.

    Args:
        rows: float, (rows, width).
        gamma: float32, (width,), the scale.
        beta: float32, (width,), the offset.
        epsilon: float > 0, added to the variance.

    Returns:
        The shape and dtype of `rows`. The normalised rows and one scale per
        row are kept for the gradient.
    """

    @tf.custom_gradient
    def normalize(rows: Tensor, gamma: Tensor, beta: Tensor) -> Any:
        values = tf.cast(rows, tf.float32)
        centred = values - tf.reduce_mean(values, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        scale = tf.math.rsqrt(variance + epsilon)
        normal = centred * scale
        saved = tf.cast(normal, rows.dtype)

        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            above = tf.cast(upstream, tf.float32)
            normal = tf.cast(saved, tf.float32)
            product = above * normal
            inner = above * gamma
            mean = tf.reduce_mean(inner, axis=-1, keepdims=True)
            # The mean of `inner * normal`.
            slope = tf.linalg.matvec(product, gamma)[:, None]
            slope /= tf.cast(tf.shape(gamma)[0], tf.float32)
            below = scale * (inner - mean - normal * slope)
            return (
                tf.cast(below, rows.dtype),
                tf.reduce_sum(product, axis=0),
                tf.reduce_sum(above, axis=0),
            )

        return tf.cast(normal * gamma + beta, rows.dtype), gradient

    return normalize(rows, gamma, beta)


def pack_rows(rows: Tensor, selected: Tensor, places: Tensor) -> Tensor:
    """Selects rows by index; the gradient is a selection, too.

    Args:
        rows: float, (rows, width).
        selected: int, (selected,), ascending indices into `rows`.
        places: int, (rows,), each row's place among the selected ones, or -1.

    Returns:
        float, (selected, width). Rows not selected get a gradient of 0.
    """

    @tf.custom_gradient
    def pack(rows: Tensor) -> Any:
        def gradient(above: Tensor) -> Tensor:
            is_selected = tf.cast(places >= 0, above.dtype)[:, None]
            return is_selected * tf.gather(above, tf.maximum(places, 0))

        return tf.gather(rows, selected), gradient

    return pack(rows)


def unpack_rows(packed: Tensor, selected: Tensor, places: Tensor) -> Tensor:
    """Reverses `pack_rows`.

    Args:
        packed: float, (selected, width), with a row unless `places` is empty.
        selected: as for `pack_rows`.
        places: as for `pack_rows`.

    Returns:
        float, (rows, width). Rows that were not selected are meaningless and
        get no gradient.
    """

    @tf.custom_gradient
    def unpack(packed: Tensor) -> Any:
        rows = tf.gather(packed, tf.maximum(places, 0))
        return rows, lambda above: tf.gather(above, selected)

    return unpack(packed)
