"""The records of a store: named arrays to bytes and back."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Overhead of ArrayRecord per record and per file; files are padded to blocks.
_RECORD_OVERHEAD = 64
_BLOCK = 2**16
_BLOCK_HEADER = 24


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a record.

    Attributes:
        name: its name.
        dtype: the type in which it is stored.
        shape: its shape, without the tokens.
        per_token: whether it has such a shape for each token of the record.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    per_token: bool = False

    @property
    def stored(self) -> np.dtype:
        """The type in which it is stored, in the store's byte order."""
        return np.dtype(self.dtype).newbyteorder("<")

    def full_shape(self, tokens: int) -> tuple[int, ...]:
        """Its shape in a record, or in a padded batch, of some tokens."""
        return (tokens, *self.shape) if self.per_token else self.shape


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """The arrays of a record, in order.

    A record has as many tokens as its sequence, so it takes no more bytes than
    its arrays.

    Attributes:
        fields: the arrays.
    """

    fields: tuple[Field, ...]

    def record_bytes(self, tokens: Any) -> Any:
        """Returns the bytes of a record.

        Args:
            tokens: int, the tokens of the record, or an array of such numbers.
        """
        total = 0 * tokens
        for field in self.fields:
            size = math.prod(field.shape) * field.stored.itemsize
            total = total + (size * tokens if field.per_token else size)
        return total

    def encode(
        self, arrays: Mapping[str, np.ndarray], lengths: Sequence[int]
    ) -> list[bytes]:
        """Converts arrays to records.

        Args:
            arrays: the arrays by name, each (records, ...), those per token
                padded to one length.
            lengths: ints, (records,), the tokens of each record.

        Raises:
            ValueError: if a value is not finite in the stored type.
        """
        stored = [
            _stored(field, np.asarray(arrays[field.name]))
            for field in self.fields
        ]
        return [
            b"".join(
                (
                    array[row, :length] if field.per_token else array[row]
                ).tobytes()
                for field, array in zip(self.fields, stored, strict=True)
            )
            for row, length in enumerate(lengths)
        ]

    def decode(
        self, records: Sequence[bytes], lengths: Sequence[int], longest: int
    ) -> dict[str, np.ndarray]:
        """Converts records to arrays, in the types they are stored in.

        Args:
            records: bytes, each of `record_bytes` of its tokens.
            lengths: ints, (records,), the tokens of each record.
            longest: int, the length that arrays per token are padded to, with
                zeros.

        Returns:
            The arrays given to `encode`.
        """
        count = len(records)
        arrays = {
            field.name: np.zeros(
                (count, *field.full_shape(longest)), field.dtype
            )
            for field in self.fields
        }
        for row, (record, length) in enumerate(
            zip(records, lengths, strict=True)
        ):
            start = 0
            for field in self.fields:
                shape = field.full_shape(length)
                size = math.prod(shape)
                if not size:
                    continue
                values = np.frombuffer(record, field.stored, size, start)
                start += values.nbytes
                target = arrays[field.name][row]
                if field.per_token:
                    target[:length] = values.reshape(shape)
                else:
                    target[...] = values.reshape(shape)
        return arrays


def _stored(field: Field, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array.astype(field.stored))
    if not np.isfinite(stored).all():
        bits = 8 * field.stored.itemsize
        raise ValueError(
            f"The teacher's outputs ({field.name}) are not finite, or too "
            f"large for {bits} bits. Check the teacher."
        )
    return stored


def shard_bytes(records: int, content_bytes: int) -> int:
    """Estimates the bytes of a shard; at most one block too high.

    Args:
        records: int, number of its records.
        content_bytes: int, their bytes in all.
    """
    if not records:
        return 0
    content = content_bytes + records * _RECORD_OVERHEAD
    blocks = -(-content // (_BLOCK - _BLOCK_HEADER))
    return (blocks + 1) * _BLOCK
