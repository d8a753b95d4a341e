"""The records of a cache: a sequence's outputs to bytes and back."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

Tensor = Any

# Overhead of ArrayRecord per record and per file; files are padded to blocks.
_RECORD_OVERHEAD = 64
_BLOCK = 2**16
_BLOCK_HEADER = 24


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """Sizes and types of a record: one sequence under one masking.

    Attributes:
        length: number of tokens of the sequence.
        slots: number of positions with logits.
        top_k: number of logits per position.
        temperatures: number of tails per position.
        hidden_dim: width of the last hidden states, 0 if they are left out.
        attention: number and size of heads of the last layer's queries, keys
            and values; (0, 0) if they are left out.
        vocabulary_size: upper bound of token ids.
    """

    length: int
    slots: int
    top_k: int
    temperatures: int
    hidden_dim: int
    vocabulary_size: int
    attention: tuple[int, int] = (0, 0)

    @property
    def _fields(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of each part of a record, in order."""
        ids = "uint16" if self.vocabulary_size <= 2**16 else "int32"
        return [
            ("token_ids", ids, (self.slots, self.top_k)),
            # Relative to the largest, so half precision is exact to 1e-3 for
            # logits within 4 of it, which have most of the mass.
            ("logits", "float16", (self.slots, self.top_k)),
            ("tails", "float32", (self.slots, self.temperatures)),
            ("states", "float16", (self.length, self.hidden_dim)),
            ("attention", "float16", (self.length, 3, *self.attention)),
        ]

    @property
    def record_bytes(self) -> int:
        """Size of one record in bytes."""
        return sum(_size(dtype, shape) for _, dtype, shape in self._fields)

    def shard_bytes(self, records: int) -> int:
        """Estimates the bytes of a shard; at most one block too high."""
        if not records:
            return 0
        content = records * (self.record_bytes + _RECORD_OVERHEAD)
        blocks = -(-content // (_BLOCK - _BLOCK_HEADER))
        return (blocks + 1) * _BLOCK

    def encode(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Converts arrays to records.

        Args:
            arrays: "token_ids", "logits", "tails" and, if they are not left
                out, "states" and "attention", each (sequences, ...).

        Returns:
            uint8, (sequences, record_bytes).
        """
        parts = []
        for name, dtype, shape in self._fields:
            if not math.prod(shape):
                continue
            stored = np.dtype(dtype).newbyteorder("<")
            array = np.ascontiguousarray(arrays[name].astype(stored))
            parts.append(array.reshape(len(array), -1).view(np.uint8))
        return np.concatenate(parts, axis=1)

    def decode(self, records: Tensor) -> dict[str, Tensor]:
        """Converts records to arrays, in the types they are stored in.

        Args:
            records: uint8, (sequences, record_bytes).

        Returns:
            The arrays given to `encode`.
        """
        found, start = {}, 0
        count = tf.shape(records)[0]
        for name, dtype, shape in self._fields:
            if name in ("states", "attention") and not math.prod(shape):
                continue
            size = _size(dtype, shape)
            part = records[:, start : start + size]
            start += size
            # `bitcast` turns the bytes of the last axis into one value, in
            # this machine's byte order.
            part = tf.reshape(part, [count, *shape, np.dtype(dtype).itemsize])
            found[name] = tf.bitcast(part, dtype)
        return found


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
