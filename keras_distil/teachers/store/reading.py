"""Reads the records of a store inside `tf.data`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_distil import data
from keras_distil.data.corpus.manifests import Shard
from keras_distil.teachers.store import manifest
from keras_distil.teachers.store.records import RecordLayout

Tensor = Any

# From numbers of records and their tokens, int64 (n,), and the longest of
# these, to arrays by name.
Reader: TypeAlias = Callable[[Tensor, Tensor, Any], dict[str, Tensor]]


def make_reader(
    folder: Path, shards: Sequence[Shard], layout: RecordLayout
) -> Reader:
    """Returns a function that reads padded arrays of some records.

    Args:
        folder: the store's folder.
        shards: some of its shards; their records have consecutive numbers.
        layout: the layout of its records.
    """
    records = data.ShardedRecords(
        [folder / shard.file for shard in shards],
        [shard.sequences for shard in shards],
        remedy=manifest.REMEDY,
    )
    fields = layout.fields

    def arrays(
        numbers: np.ndarray, lengths: np.ndarray, longest: np.ndarray
    ) -> list[np.ndarray]:
        found = records.read_records(numbers, layout.record_bytes(lengths))
        decoded = layout.decode(found, lengths.tolist(), int(longest))
        return [decoded[field.name] for field in fields]

    def read(numbers: Tensor, lengths: Tensor, longest: Any) -> dict:
        # Marked stateless: under deterministic operations it may still run in
        # parallel.
        found = tf.numpy_function(
            arrays,
            [numbers, tf.cast(lengths, tf.int64), longest],
            [field.dtype for field in fields],
            stateful=False,
        )
        length = longest if isinstance(longest, int) else None
        named = {}
        # Outside a graph, a single array is not in a list.
        for field, array in zip(fields, tf.nest.flatten(found), strict=True):
            axes = [length] if field.per_token else []
            array.set_shape([numbers.shape[0], *axes, *field.shape])
            named[field.name] = array
        return named

    return read


def check_room(folder: Path, shard: Shard, content_bytes: int) -> None:
    """Raises CorpusError if a shard is too small for its records.

    Args:
        folder: the store's folder.
        shard: one of its shards.
        content_bytes: the bytes of its records.
    """
    if content_bytes > shard.bytes:
        raise data.CorpusError(
            f"The shard {folder / shard.file} is too small for its "
            f"{shard.sequences:,} records. {manifest.REMEDY}"
        )
