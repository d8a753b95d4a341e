"""What a cache keeps of a sequence, as bytes and back."""

import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

Tensor = Any

# Of ArrayRecord, per record and per file; files are filled up to blocks.
_RECORD_OVERHEAD = 64
_BLOCK = 2**16
_BLOCK_HEADER = 24


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """Sizes and types of a record: one sequence under one masking.

    Attributes:
        length: tokens of the sequence.
        slots: positions with logits.
        top_k: logits of a position.
        temperatures: tails of a position.
        hidden_dim: width of the last hidden states, 0 if they are left out.
        vocabulary_size: below it are the ids of tokens.
    """

    length: int
    slots: int
    top_k: int
    temperatures: int
    hidden_dim: int
    vocabulary_size: int

    @property
    def _fields(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Name, type and shape of each part of a record, in order."""
        ids = "uint16" if self.vocabulary_size <= 2**16 else "int32"
        return [
            ("token_ids", ids, (self.slots, self.top_k)),
            # Relative to the largest, so half precision is exact to 1e-3
            # where they are within 4 of it, as most of the mass is.
            ("logits", "float16", (self.slots, self.top_k)),
            ("tails", "float32", (self.slots, self.temperatures)),
            ("states", "float16", (self.length, self.hidden_dim)),
        ]

    @property
    def record_bytes(self) -> int:
        """Bytes of one record."""
        return sum(_size(dtype, shape) for _, dtype, shape in self._fields)

    def shard_bytes(self, records: int) -> int:
        """Bytes of a shard of so many records, at most a block too many."""
        if not records:
            return 0
        content = records * (self.record_bytes + _RECORD_OVERHEAD)
        blocks = -(-content // (_BLOCK - _BLOCK_HEADER))
        return (blocks + 1) * _BLOCK

    def encode(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Records from arrays.

        Args:
            arrays: "token_ids", "logits", "tails" and, with a width,
                "states", each (sequences, ...).

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
        """Arrays from records, in the types they are stored in.

        Args:
            records: uint8, (sequences, record_bytes).

        Returns:
            The arrays that `encode` was given; "states" only with a width.
        """
        found, start = {}, 0
        count = tf.shape(records)[0]
        for name, dtype, shape in self._fields:
            if name == "states" and not self.hidden_dim:
                continue
            size = _size(dtype, shape)
            part = records[:, start : start + size]
            start += size
            # `bitcast` makes one value of the bytes of the last axis, in the
            # order of this machine.
            part = tf.reshape(part, [count, *shape, np.dtype(dtype).itemsize])
            found[name] = tf.bitcast(part, dtype)
        return found


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
