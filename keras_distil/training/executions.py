"""Runs several steps per call into the graph, and never one too many.

Keras 3.15 rounds the steps of an epoch up to whole executions: ten steps with
`steps_per_execution=4` become twelve, the last batch has number 11, and
schedules end early. Here the last execution of an epoch is shorter instead.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distil.utils import private_api

Tensor = Any


def make_function(model: keras.Model, step_function: Callable) -> Callable:
    """Returns Keras's function around a step, for several steps per call.

    Args:
        model: a model with `steps_per_execution` above 1.
        step_function: `train_step` or `test_step`.

    Returns:
        A function from an iterator to the logs of the last step.
    """
    strategy = model.distribute_strategy

    def one_step(data: Any) -> dict[str, Tensor]:
        logs = strategy.run(step_function, args=(data,))
        return private_api.reduce_per_replica(logs, strategy)

    if not model.run_eagerly:
        one_step = tf.function(one_step, reduce_retracing=True, autograph=False)
    one_step = private_api.convert_optionals(model, one_step)
    several = (
        functools.partial(_eager_steps, one_step)
        if model.run_eagerly
        else _graph_steps(one_step)
    )

    def run(iterator: Any) -> dict[str, Tensor]:
        of_dataset = isinstance(
            iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)
        )
        if not of_dataset:  # The single batch of `train_on_batch`.
            return one_step(next(iterator))
        return several(iterator, getattr(model, private_api.STEPS_OF_EXECUTION))

    return run


def _eager_steps(
    one_step: Callable, iterator: Any, steps: int
) -> dict[str, Tensor]:
    logs = one_step(iterator.get_next())
    for _ in range(steps - 1):
        following = iterator.get_next_as_optional()
        if not following.has_value():
            break
        logs = one_step(following.get_value())
    return logs


def _graph_steps(one_step: Callable) -> Callable:
    def one(iterator: Any) -> dict[str, Tensor]:
        # Raises an error at the end of the data, which ends the epoch.
        return one_step(iterator.get_next())

    def several(iterator: Any, steps: Tensor) -> dict[str, Tensor]:
        logs = one(iterator)

        def body(done: Tensor, logs: Any, following: Any) -> tuple:
            logs = one_step(following.get_value())
            done += 1
            # Takes no batch beyond this execution, since it would be lost.
            following = tf.cond(
                done < steps,
                iterator.get_next_as_optional,
                lambda: following,
            )
            return done, logs, following

        _, logs, _ = tf.while_loop(
            lambda done, _, following: (done < steps) & following.has_value(),
            body,
            (tf.constant(1), logs, iterator.get_next_as_optional()),
        )
        return logs

    single = tf.function(one, reduce_retracing=True, autograph=False)
    several = tf.function(several, reduce_retracing=True, autograph=False)
    return lambda iterator, steps: (
        single(iterator)
        if steps == 1
        else several(iterator, tf.constant(steps))
    )


class UpdateRecord:
    """Keeps the values of the latest updates, those of one execution.

    Args:
        names: names of the values.
        updates: int >= 1, number of updates to keep.
    """

    def __init__(self, names: Sequence[str], updates: int) -> None:
        self.names = tuple(names)
        self.updates = updates
        self._rows = keras.Variable(
            np.zeros((updates, len(self.names)), "float32"),
            trainable=False,
            autocast=False,
            name="update_record",
            aggregation="only_first_replica",
        )

    def write(self, earlier: Tensor, values: Mapping[str, Tensor]) -> None:
        """Stores the values of an update, in the graph.

        Args:
            earlier: int scalar, number of updates before this one.
            values: scalars by name.
        """
        row = tf.stack([tf.cast(values[x], tf.float32) for x in self.names])
        place = tf.cast(earlier, tf.int32) % self.updates
        rows = tf.convert_to_tensor(self._rows)
        self._rows.assign(tf.tensor_scatter_nd_update(rows, [[place]], [row]))

    def read(self, updates: Sequence[int]) -> list[dict[str, float]]:
        """Returns the values of some of the latest updates.

        Args:
            updates: their numbers, counted from 1.

        Returns:
            The values by name, for each update.
        """
        rows = self._rows.numpy()
        return [
            dict(
                zip(
                    self.names,
                    rows[(number - 1) % self.updates].tolist(),
                    strict=True,
                )
            )
            for number in updates
        ]
