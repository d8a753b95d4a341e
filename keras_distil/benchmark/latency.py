"""Latency of models for one input, compared fairly."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras_hub.models import MaskedLM

from keras_distil.data import character_inputs
from keras_distil.models import ElmoClassifier, forward
from keras_distil.utils.checks import check_count


def measure_latency_ms(
    models: dict[str, Callable[[], Any]],
    *,
    runs: int = 30,
    warmup: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Measures the median latency of several callables side by side.

    Every round runs each callable once, and each round starts with a
    different one: a temporary slowdown of the machine, or what one callable
    leaves in the caches for the next, affects all of them alike.

    Args:
        models: names and callables without arguments, each of which returns
            only once its result is computed.
        runs: int >= 1, timed rounds.
        warmup: int >= 0, untimed rounds before them.
        clock: function that returns seconds.

    Returns:
        The median of each callable in milliseconds, by name.

    Raises:
        TypeError: if a count is not an integer.
        ValueError: if there are no models or a count is too small.

    Example:
        >>> latency_ms = measure_latency_ms({"sum": lambda: sum(range(9))})
        >>> list(latency_ms)
        ['sum']
    """
    check_count("runs", runs, 1)
    check_count("warmup", warmup, 0)
    if not models:
        raise ValueError("`models` must hold at least one. Received: {}.")
    names = list(models)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warmup + runs):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started = clock()
            models[name]()
            duration = clock() - started
            if number >= warmup:
                seconds[name].append(duration)
    return {
        name: 1000.0 * statistics.median(duration)
        for name, duration in seconds.items()
    }


def masked_lm_encoder_call(model: MaskedLM, length: int) -> Callable[[], Any]:
    """Prepares the encoder of a masked-LM model to be timed.

    Args:
        model: a KerasHub masked-LM task model.
        length: int, real tokens of the single sequence to encode.

    Returns:
        A callable without arguments that runs the encoder in a graph, with
        dropout off, and returns the last hidden states as a NumPy array,
        (1, length, width). Its first call traces the graph.

    Raises:
        TypeError: if `model` is not a masked-LM task model, or `length` not
            an integer.
        ValueError: if `length` is below 1 or exceeds the model's positions.
    """
    forward.check_masked_lm(model, "model")
    check_count("length", length, 1)
    longest = model.backbone.max_sequence_length
    if length > longest:
        raise ValueError(
            f"`length` must be at most {longest}, the positions of the model. "
            f"Received: length={length}."
        )
    vocabulary_size = model.backbone.vocabulary_size
    token_ids = np.arange(length, dtype="int32") % vocabulary_size
    inputs = {
        "token_ids": tf.constant(token_ids[None]),
        "padding_mask": tf.ones((1, length), "int32"),
    }

    # The inputs are arguments, because TensorFlow would precompute whatever
    # depends only on constants.
    @tf.function(autograph=False)
    def encode(inputs: dict[str, Any]) -> Any:
        return forward.encode(model, inputs, training=False)

    # `numpy` waits for devices that compute asynchronously.
    return lambda: encode(inputs).numpy()


def elmo_call(model: ElmoClassifier, words: int) -> Callable[[], Any]:
    """Prepares the ELMo baseline to be timed.

    Args:
        model: a classifier for single texts.
        words: int, words of the single text.

    Returns:
        A callable without arguments that runs the model in a graph, with
        dropout off, and returns its outputs as a NumPy array. Its first call
        traces the graph.

    Raises:
        TypeError: if `words` is not an integer.
        ValueError: if `words` is below 1.
    """
    check_count("words", words, 1)
    text = [f"word{number}" for number in range(words)]
    inputs = {
        name: tf.constant(value)
        for name, value in character_inputs([text]).items()
    }

    @tf.function
    def run(inputs: dict[str, Any]) -> Any:
        return model(inputs, training=False)

    return lambda: run(inputs).numpy()
