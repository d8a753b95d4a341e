"""The memory that a finished training leaves behind."""

import gc
import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_distil.search.graph_memory import forget_trial


def train():
    """One update in a graph; returns weak references to what it held."""
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([variable])

    @tf.function
    def step(gradient):
        optimizer.apply([gradient], [variable])
        return tf.constant(0)

    step(tf.ones(3))
    graph = step.get_concrete_function(tf.ones(3)).graph
    return weakref.ref(variable._value.handle), weakref.ref(graph)


def test_a_finished_training_leaves_nothing():
    with forget_trial():
        found = train()
    gc.collect()
    assert [kept() for kept in found] == [None, None]


def test_tensorflow_would_keep_it():
    """If this fails, `graph_memory` is no longer needed."""
    found = train()
    gc.collect()
    assert all(kept() is not None for kept in found)


def test_gradients_from_before_stay():
    @tf.custom_gradient
    def double(x):
        return 2.0 * x, lambda upstream: 7.0 * upstream

    forward = tf.function(double)
    x = tf.constant(1.0)
    forward(x)
    with forget_trial():
        train()
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = forward(x)
    assert float(tape.gradient(y, x)) == 7.0
