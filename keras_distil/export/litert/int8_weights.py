"""Fits weights to lose less when they and their inputs go into 8 bits.

Two steps, based on the student's activations on representative texts.
SmoothQuant (Xiao et al., 2023, arXiv:2211.10438) divides every column of a
product's inputs by a number and multiplies the row of weights by it, so that
columns of large values do not use up the 8 bits of all others. GPTQ (Frantar
et al., 2022, arXiv:2210.17323) rounds the weights column by column, and
adjusts the columns still to be rounded to compensate for the error on the
texts.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import scipy.linalg
import tensorflow as tf

from keras_distil.export import parity
from keras_distil.export.litert import graph
from keras_distil.export.plain_weights import (
    Layer,
    Linear,
    Tensor,
    Weights,
    weights_of,
)
from keras_distil.export.student import MASKED_LM, Student

# Share of the difficulty that is moved from the inputs to the weights. Results
# hardly change from 0.4 to 0.6: see docs/export/litert.md.
_STRENGTH = 0.5
# LiteRT's weights are integers from -127 to 127.
_LARGEST = 127
# Added to the diagonal of the inputs' products, as a share of its mean; the
# value is the paper's.
_DAMPING = 0.01
# Number of columns whose errors are passed on at once.
_COLUMNS = 128
_SMALLEST = 1e-5


def fit(student: Student, examples: parity.Examples) -> Weights:
    """Smooths and rounds the weights of a LiteRT graph to fit 8 bits.

    In float32 arithmetic they compute the student's outputs, except for the
    rounding of the weights to the 8 bits that LiteRT gives them.

    Args:
        student: the model to export.
        examples: representative examples of what it will read. A hundred
            sequences are enough.

    Returns:
        Weights that are variables.
    """
    largest: dict[str, np.ndarray] = {}

    def widen(name: str, rows: np.ndarray) -> None:
        found = np.max(np.abs(rows), axis=0, initial=0.0)
        largest[name] = np.maximum(largest.get(name, _SMALLEST), found)

    weights = weights_of(student)
    _watch(student, weights, examples, widen)
    layers = tuple(_smoothed(layer, largest) for layer in weights.layers)
    weights = dataclasses.replace(weights, layers=layers)

    products: dict[str, np.ndarray] = {}

    def add(name: str, rows: np.ndarray) -> None:
        found = (rows.T @ rows).astype(np.float64)
        products[name] = products.get(name, 0.0) + found

    _watch(student, weights, examples, add)
    return _rounded(student, weights, products)


def _watch(
    student: Student,
    weights: Weights,
    examples: parity.Examples,
    see: Callable[[str, np.ndarray], None],
) -> None:
    """Passes on the inputs of all products, without those of padding."""
    for batch, _ in examples.batches:
        inputs = parity.full_inputs(student, batch)
        real = inputs["padding_mask"].reshape(-1) > 0

        def watch(name: str, rows: tf.Tensor, real: np.ndarray = real) -> None:
            see(name, rows.numpy()[real])

        tensors = {key: tf.constant(value) for key, value in inputs.items()}
        graph.outputs(student, tensors, weights=weights, watch=watch)


def _smoothed(layer: Layer, largest: Mapping[str, np.ndarray]) -> Layer:
    """Moves factors from the inputs of a layer's products to the weights."""

    def divisor(product: str, *kernels: np.ndarray) -> np.ndarray:
        values = largest[f"{layer.name}/{product}"]
        of_weights = np.max([np.abs(k).max(axis=1) for k in kernels], axis=0)
        factor = values**_STRENGTH
        factor /= np.maximum(of_weights, _SMALLEST) ** (1.0 - _STRENGTH)
        # A factor common to all columns would have no effect.
        return np.asarray(factor / np.exp(np.log(factor).mean()), np.float32)

    projections = [_kernel(x) for x in (layer.query, layer.key, layer.value)]
    before = divisor(graph.PROJECTIONS, *projections)
    query, key, value = (
        dataclasses.replace(linear, kernel=kernel * before[:, None])
        for linear, kernel in zip(
            (layer.query, layer.key, layer.value), projections, strict=True
        )
    )
    # Attention averages the values, so their columns can be divided instead.
    kernel = _kernel(layer.attention)
    across = divisor(graph.ATTENTION, kernel)
    bias = _array(layer.value.bias).ravel() / across
    value = Linear(value.kernel / across, bias)
    attention = Linear(kernel * across[:, None], layer.attention.bias)
    inner, outer = _kernel(layer.inner), _kernel(layer.outer)
    between = divisor(graph.INNER, inner)
    within = divisor(graph.OUTER, outer)
    return dataclasses.replace(
        layer,
        query=query,
        key=key,
        value=value,
        attention=attention,
        inner=Linear(inner * between[:, None], layer.inner.bias),
        outer=Linear(outer * within[:, None], layer.outer.bias),
        divisors=(before, between, within),
    )


def _rounded(
    student: Student, weights: Weights, products: Mapping[str, np.ndarray]
) -> Weights:
    def rounded(linear: Linear, name: str) -> Linear:
        kernel = linear.scale * _kernel(linear)
        bias = linear.scale * _array(linear.bias).ravel()
        kernel = round_columns(kernel.T, products[name]).T
        return Linear(tf.Variable(kernel), tf.Variable(bias))

    layers = []
    for layer in weights.layers:
        name = layer.name
        projections = f"{name}/{graph.PROJECTIONS}"
        layers.append(
            dataclasses.replace(
                layer,
                query=rounded(layer.query, projections),
                key=rounded(layer.key, projections),
                value=rounded(layer.value, projections),
                attention=rounded(layer.attention, f"{name}/{graph.ATTENTION}"),
                inner=rounded(layer.inner, f"{name}/{graph.INNER}"),
                outer=rounded(layer.outer, f"{name}/{graph.OUTER}"),
            )
        )
    table = weights.table
    if student.kind == MASKED_LM:
        rows = round_columns(_array(table), products[graph.DECODER])
        table = tf.Variable(rows)
    return dataclasses.replace(weights, table=table, layers=tuple(layers))


def round_columns(rows: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Rounds a matrix to 8 bits with a scale for each row, by GPTQ.

    Args:
        rows: (outputs, inputs), weights.
        products: (inputs, inputs), the sum of the inputs' outer products.

    Returns:
        float32 weights of the same shape. Each row holds integers from -127 to
        127 times its scale, which its largest weight sets.
    """
    rows = np.array(rows, np.float64)
    count = rows.shape[1]
    place = np.abs(rows).argmax(axis=1)
    peak = rows[np.arange(len(rows)), place]
    scale = np.where(peak == 0.0, 1.0, np.abs(peak)) / _LARGEST
    damped = products + np.eye(count) * (
        _DAMPING * np.diag(products).mean() + np.finfo(np.float64).tiny
    )
    # The upper Cholesky factor of the inverse.
    inverse = scipy.linalg.cho_solve(
        scipy.linalg.cho_factor(damped, lower=True), np.eye(count)
    )
    factor = scipy.linalg.cholesky(inverse, lower=False)
    found = np.zeros_like(rows)
    for start in range(0, count, _COLUMNS):
        end = min(start + _COLUMNS, count)
        errors = np.zeros((len(rows), end - start))
        for column in range(start, end):
            integers = np.round(rows[:, column] / scale)
            integers = np.clip(integers, -_LARGEST, _LARGEST)
            # The largest weight stays, and with it the scale of the row.
            kept = place == column
            integers[kept] = _LARGEST * np.sign(peak[kept])
            found[:, column] = integers * scale
            error = rows[:, column] - found[:, column]
            error /= factor[column, column]
            errors[:, column - start] = error
            rest = np.s_[column + 1 : end]
            rows[:, rest] -= np.outer(error, factor[column, rest])
        rows[:, end:] -= errors @ factor[start:end, end:]
    return found.astype(np.float32)


def _kernel(linear: Linear) -> np.ndarray:
    """Returns the kernel as (inputs, outputs)."""
    outputs = int(np.prod(linear.bias.shape))
    return np.reshape(_array(linear.kernel), (-1, outputs))


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor, np.float32)
