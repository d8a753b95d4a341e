"""Schedules at their boundaries, by hand."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_distil.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    Piecewise,
    Warmup,
)

EVERY = [
    Constant(2.5),
    Linear(4.0, 1.0, steps=6),
    Cosine(4.0, 1.0, steps=6),
    Exponential(4.0, 1.0, steps=6),
    Piecewise([2, 5], [3.0, 2.0, 1.0]),
    Warmup(Linear(4.0, 1.0, steps=6), steps=3),
    Warmup(0.5, steps=3),
]
IDS = [f"{i}-{type(schedule).__name__}" for i, schedule in enumerate(EVERY)]


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(2.5), {0: 2.5, 1: 2.5, 10**6: 2.5}),
        (Linear(4.0, 1.0, steps=6), {0: 4, 1: 3.5, 3: 2.5, 6: 1, 7: 1}),
        (Linear(1.0, 4.0, steps=6), {0: 1, 2: 2, 6: 4, 10**6: 4}),
        (Linear(0.0, 1.0, steps=1), {0: 0, 1: 1, 2: 1}),
        # Half a wave: 1/2 +- sqrt(3)/4 at a sixth from either end.
        (
            Cosine(1.0, 0.0, steps=6),
            {
                0: 1,
                1: 0.5 + math.sqrt(3) / 4,
                2: 0.75,
                3: 0.5,
                4: 0.25,
                6: 0,
                9: 0,
            },
        ),
        (Cosine(4.0, 1.0, steps=2), {0: 4, 1: 2.5, 2: 1, 3: 1}),
        (Exponential(8.0, 1.0, steps=3), {0: 8, 1: 4, 2: 2, 3: 1, 4: 1}),
        (Exponential(1.0, 9.0, steps=2), {0: 1, 1: 3, 2: 9, 5: 9}),
        (
            Piecewise([2, 5], [3.0, 2.0, 1.0]),
            {0: 3, 1: 3, 2: 2, 4: 2, 5: 1, 99: 1},
        ),
        (Piecewise([], [3.0]), {0: 3, 9: 3}),
        (Warmup(0.5, steps=5), {0: 0.1, 1: 0.2, 3: 0.4, 4: 0.5, 5: 0.5}),
        (Warmup(2, steps=1), {0: 2, 1: 2}),
        (
            Warmup(Linear(4.0, 1.0, steps=6), steps=2),
            {0: 2, 1: 4, 2: 4, 3: 3.5, 8: 1, 20: 1},
        ),
    ],
)
def test_values_by_hand(schedule, values):
    for step, value in values.items():
        # A cosine of float32 pi is 4e-8 away from its zero.
        assert float(schedule(step)) == pytest.approx(
            value, rel=1e-6, abs=1e-7
        ), step


@pytest.mark.parametrize(
    ("schedule", "steps", "start", "end"),
    [
        (kind(start, end, steps=steps), steps, start, end)
        for kind in (Linear, Cosine, Exponential)
        for start, end, steps in ((4.0, 1.0, 7), (0.3, 0.7, 10_000))
    ],
)
def test_a_ramp_ends_exactly(schedule, steps, start, end):
    assert float(schedule(0)) == np.float32(start)
    # A power of float32 may round its last bit.
    rel = 2**-23 if isinstance(schedule, Exponential) else 0.0
    for step in (steps, steps + 1, 10 * steps):
        assert float(schedule(step)) == pytest.approx(
            float(np.float32(end)), rel=rel, abs=0.0
        )


@pytest.mark.parametrize("schedule", EVERY, ids=IDS)
def test_a_tensor_step_in_a_graph(schedule):
    compiled = tf.function(schedule)
    for step in range(9):
        value = compiled(tf.constant(step, tf.int64))
        assert value.dtype == tf.float32
        assert value.shape == ()
        np.testing.assert_allclose(value, schedule(step), rtol=1e-6)


@pytest.mark.parametrize("schedule", EVERY, ids=IDS)
def test_round_trips(schedule):
    config = schedule.get_config()
    copies = [
        type(schedule).from_config(config),
        keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(schedule)
        ),
    ]
    for copy in copies:
        assert type(copy) is type(schedule)
        assert copy.get_config() == config
        for step in (0, 3, 8):
            assert float(copy(step)) == float(schedule(step))
    name = keras.saving.get_registered_name(type(schedule))
    assert name == f"keras_distil>{type(schedule).__name__}"


@pytest.mark.parametrize("schedule", EVERY, ids=IDS)
def test_drives_a_learning_rate(schedule):
    optimizer = keras.optimizers.SGD(schedule)
    variable = keras.Variable(0.0)
    optimizer.build([variable])
    expected = 0.0
    for step in range(8):
        assert float(optimizer.learning_rate) == float(schedule(step))
        expected -= float(schedule(step))
        optimizer.apply([tf.constant(1.0)])
        assert float(variable) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 100])
def test_warmup_is_continuous(steps):
    after = Linear(4.0, 1.0, steps=50)
    values = [float(Warmup(after, steps)(step)) for step in range(steps + 3)]
    rises = np.diff(values[:steps])
    np.testing.assert_allclose(rises, 4.0 / steps, rtol=1e-4)
    # The top of the rise is where the other schedule begins.
    assert values[steps - 1] == values[steps] == float(after(0))
    assert values[steps + 1] == float(after(1))


WRONG_NUMBERS = [
    ("2", TypeError, r"`{}` must be a number\. Received: {}='2'"),
    (None, TypeError, r"`{}` must be a number\. Received: {}=None"),
    (True, TypeError, r"`{}` must be a number\. Received: {}=True"),
    (float("nan"), ValueError, r"`{}` must be finite\. Received: {}=nan"),
    (float("inf"), ValueError, r"`{}` must be finite\. Received: {}=inf"),
    (float("-inf"), ValueError, r"`{}` must be finite\. Received: {}=-inf"),
]
WRONG_STEPS = [
    (1.5, TypeError, r"`{}` must be an integer\. Received: {}=1\.5"),
    (True, TypeError, r"`{}` must be an integer\. Received: {}=True"),
    (0, ValueError, r"`{}` must be at least 1\. Received: {}=0"),
    (-3, ValueError, r"`{}` must be at least 1\. Received: {}=-3"),
]


@pytest.mark.parametrize(("value", "error", "message"), WRONG_NUMBERS)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("value", Constant),
        ("start", lambda x: Linear(x, 1.0, steps=2)),
        ("end", lambda x: Cosine(1.0, x, steps=2)),
        ("start", lambda x: Exponential(x, 1.0, steps=2)),
        ("values", lambda x: Piecewise([1], [1.0, x])),
    ],
)
def test_wrong_numbers(name, make, value, error, message):
    with pytest.raises(error, match=message.format(name, name)):
        make(value)


@pytest.mark.parametrize(("value", "error", "message"), WRONG_STEPS)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("steps", lambda x: Linear(1.0, 2.0, steps=x)),
        ("steps", lambda x: Warmup(1.0, steps=x)),
        ("boundaries", lambda x: Piecewise([x], [1.0, 2.0])),
    ],
)
def test_wrong_steps(name, make, value, error, message):
    with pytest.raises(error, match=message.format(name, name)):
        make(value)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, -2.0)])
def test_an_exponential_must_be_positive(start, end):
    message = (
        "`start` and `end` of an exponential schedule must be positive. "
        rf"Received: start={start}, end={end}\."
    )
    with pytest.raises(ValueError, match=message):
        Exponential(start, end, steps=2)


def test_piecewise_must_fit():
    with pytest.raises(
        ValueError,
        match=r"`values` must be one longer than `boundaries`\. Received: "
        r"boundaries=\[1\], values=\[1\.0\]",
    ):
        Piecewise([1], [1.0])
    for boundaries in ([3, 2], [2, 2]):
        with pytest.raises(
            ValueError, match=r"`boundaries` must increase\. Received: bou"
        ):
            Piecewise(boundaries, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("schedule", ["linear", None, [1.0]])
def test_warmup_needs_a_schedule(schedule):
    with pytest.raises(
        TypeError, match="`schedule` must be a schedule or a number. Received"
    ):
        Warmup(schedule, steps=2)
