"""Whether every pass over a finite dataset gives the same batches."""

import hashlib
import re
from collections.abc import Iterator

import tensorflow as tf

from keras_distil.utils import private_api

# TensorFlow's operations that draw other numbers each time they run.
_RANDOM = re.compile(
    r"(Random(?!Dataset|Index).*|TruncatedNormal|ParameterizedTruncatedNormal"
    r"|Multinomial|SampleDistortedBoundingBox.*|Stateful(?!Partitioned).*"
    r"|RngReadAndSkip)"
)


def check_order(dataset: tf.data.Dataset) -> None:
    """Refuses a dataset whose passes are known to differ.

    Python functions and generators are not looked into.

    Args:
        dataset: a finite dataset.

    Raises:
        ValueError: if it is shuffled anew in each pass or without a seed,
            draws random numbers, or does not promise its order.
    """
    steps = list(_steps(dataset))
    if dataset.options().deterministic is False or any(
        private_api.is_unordered(step) for step in steps
    ):
        raise _make_error("`deterministic` is False", "Leave it out")
    for step in steps:
        shuffling = private_api.shuffling_of(step)
        if shuffling is not None:
            _check_shuffling(*shuffling)
        for node in private_api.dataset_operations(step):
            if node.op.startswith("Shuffle"):
                # Its seeds may be tensors, which the first batch tells.
                anew = node.attr["reshuffle_each_iteration"].b
                _check_shuffling(anew, has_seed=True)
            elif _RANDOM.fullmatch(node.op):
                raise _make_error(
                    f"it draws random numbers ({node.op})",
                    "Draw them by `tf.random.stateless_...`, with seeds from "
                    "the data",
                )


def first_batch_hash(dataset: tf.data.Dataset) -> str:
    """Returns the sha256 of the first batch, reading only this one."""
    digest = hashlib.sha256()
    for batch in dataset.take(1):
        for part in tf.nest.flatten(batch, expand_composites=True):
            digest.update(tf.io.serialize_tensor(part).numpy())
    return digest.hexdigest()


def _steps(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """Yields the dataset and all datasets that it was made from."""
    yield dataset
    for source in private_api.dataset_inputs(dataset):
        yield from _steps(source)


def _check_shuffling(anew: bool, has_seed: bool) -> None:
    if anew:
        raise _make_error(
            "`shuffle` gives each pass another order",
            "Give it a seed and `reshuffle_each_iteration=False`; or, for "
            "another order in each epoch, a seed, `repeat()` after it and "
            "`steps_per_epoch`",
        )
    if not has_seed:
        raise _make_error(
            "`shuffle` without a seed gives each process another order",
            "Give it a seed",
        )


def _make_error(reason: str, remedy: str) -> ValueError:
    return ValueError(
        "`TrainingState` can continue a finite dataset only if each pass over "
        f"it gives the same batches. Received: a dataset where {reason}. "
        f"{remedy}."
    )
