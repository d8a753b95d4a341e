"""Streams of batches that can be entered at any step and read in shares."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

_ATTRIBUTE = "keras_distil_stream"


class Stream:
    """A stream of batches, each a pure function of its number.

    Because batch `i` depends on nothing but `i`, a stream can be entered at
    any step without computing earlier batches, and every replica computes
    only its share of a batch.

    Args:
        batch: function from a step, an int64 scalar, and places in its
            batch, int64 (examples,), to these examples, a structure of
            tensors.
        batch_size: int, examples per batch.
        steps: int, number of batches; endless if None.
        examples: int, number of examples, if the last batch may have fewer
            than `batch_size`.
    """

    def __init__(
        self,
        batch: Callable[[tf.Tensor, tf.Tensor], Any],
        *,
        batch_size: int,
        steps: int | None,
        examples: int | None = None,
    ) -> None:
        self._batch = batch
        self._batch_size = batch_size
        self.steps = steps
        self._examples = examples

    def dataset(
        self,
        first_step: int = 0,
        *,
        replicas: Sequence[int] = (0,),
        replica_count: int = 1,
    ) -> tf.data.Dataset:
        """Returns the batches from `first_step` on as a dataset.

        Args:
            first_step: int, batches to skip without computing them.
            replicas: the replicas, of `replica_count`, whose shares are read.
                Each step has one element per replica: shares are consecutive
                examples, and their sizes differ by at most one.
            replica_count: int, number of shares of a batch.

        Returns:
            A dataset that `stream_of` recognises.

        Raises:
            ValueError: if `first_step` is not a step of the stream.
        """
        if first_step < 0 or (
            self.steps is not None and first_step > self.steps
        ):
            raise ValueError(
                "`first_step` must be at least 0 and at most `steps`. "
                f"Received: first_step={first_step}, steps={self.steps}."
            )
        local = tf.constant(list(replicas), tf.int64)
        shares = len(replicas)

        @tf.autograph.experimental.do_not_convert
        def share(number: tf.Tensor) -> Any:
            step, replica = number // shares, local[number % shares]
            return self._batch(step, self._places(step, replica, replica_count))

        if self.steps is None:
            numbers = tf.data.Dataset.counter(first_step * shares)
        else:
            numbers = tf.data.Dataset.range(
                first_step * shares, self.steps * shares
            )
        mapped = numbers.map(
            share, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        dataset = without_autotune(mapped.prefetch(tf.data.AUTOTUNE))
        if shares == replica_count:
            setattr(dataset, _ATTRIBUTE, (self, first_step))
        return dataset

    def _places(
        self, step: tf.Tensor, replica: tf.Tensor, replica_count: int
    ) -> tf.Tensor:
        """Returns a replica's places; their number is static if possible."""
        if self._examples is None and self._batch_size % replica_count == 0:
            share = self._batch_size // replica_count
            return replica * share + tf.range(share, dtype=tf.int64)
        size = tf.constant(self._batch_size, tf.int64)
        if self._examples is not None:
            size = tf.minimum(self._examples - step * self._batch_size, size)
        return tf.range(
            size * replica // replica_count,
            size * (replica + 1) // replica_count,
        )


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a dataset whose iterators end at once.

    The thread of tf.data's autotuning sleeps for up to a minute between two
    looks at a pipeline, twice as long each time. The end of an iterator wakes
    it, but before the iterator counts as ended, so it often sleeps again, and
    `fit` returns that much later. Without it, `AUTOTUNE` means as many parallel
    calls as there are processors, up to 16, and TensorFlow adds no prefetch.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def stream_of(dataset: Any) -> Stream | None:
    """Returns the stream that `dataset` reads whole, or None.

    A dataset derived from a stream's by `map`, `batch` and the like is not a
    stream: it cannot be entered at a step.
    """
    return getattr(dataset, _ATTRIBUTE, (None, 0))[0]


def first_step_of(dataset: Any) -> int:
    """Returns the step of its stream at which `dataset` begins."""
    return getattr(dataset, _ATTRIBUTE, (None, 0))[1]
