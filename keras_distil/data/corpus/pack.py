"""Packing of paragraphs into full sequences of one length."""

from collections.abc import Iterable

import numpy as np

from keras_distil.data.special_tokens import SpecialTokens


def packed_count(stream_length: int, sequence_length: int) -> int:
    """Returns how many sequences a stream of tokens fills, the last partly.

    Raises:
        ValueError: if `sequence_length` is below 3.
    """
    if sequence_length < 3:
        raise ValueError(
            "`sequence_length` must be at least 3, for [CLS], one token and "
            f"[SEP]. Received: sequence_length={sequence_length}."
        )
    body = sequence_length - 2
    return -(-stream_length // body)


def pack(
    paragraph_ids: Iterable[np.ndarray],
    sequence_length: int,
    special: SpecialTokens,
) -> np.ndarray:
    """Joins paragraphs with [SEP] and cuts them into framed sequences.

    Each sequence is [CLS], `sequence_length - 2` consecutive tokens of the
    joined stream, [SEP]. The whole stream is used; the last sequence is
    closed by [SEP] and filled with [PAD]. Paragraphs without tokens add
    nothing.

    Args:
        paragraph_ids: arrays of token ids without special tokens.
        sequence_length: int >= 3, tokens per sequence.
        special: the ids of the special tokens.

    Returns:
        int32, (sequences, sequence_length).

    Raises:
        ValueError: if `sequence_length` is below 3.

    Example:
        >>> special = SpecialTokens(0, 1, 2, 3, 4)
        >>> pack([np.array([7, 8]), np.array([9])], 5, special)
        array([[2, 7, 8, 3, 3],
               [2, 9, 3, 0, 0]], dtype=int32)
    """
    pieces: list[np.ndarray] = []
    separator = np.array([special.sep_id], np.int32)
    for ids in paragraph_ids:
        if len(ids):
            pieces += [separator, np.asarray(ids, np.int32)]
    # The first piece is a separator with nothing before it.
    stream = np.concatenate(pieces[1:] or [separator[:0]])
    shape = (packed_count(len(stream), sequence_length), sequence_length)
    sequences = np.empty(shape, np.int32)
    pack_stream(stream, special, out=sequences)
    return sequences


def pack_stream(
    stream: np.ndarray, special: SpecialTokens, *, out: np.ndarray
) -> None:
    """Writes the sequences of a joined stream into `out`.

    Args:
        stream: token ids, (tokens,). May be memory-mapped.
        special: the ids of the special tokens.
        out: integers, (`packed_count` sequences, sequence_length). May be
            memory-mapped: it is filled in blocks, to hold little in memory.
    """
    body = out.shape[1] - 2
    block = max(1, 2**22 // body)  # sequences
    for start in range(0, len(out), block):
        rows = out[start : start + block]
        tokens = stream[start * body : (start + len(rows)) * body]
        rows[:, 0] = special.cls_id
        rows[:, -1] = special.sep_id
        full = len(tokens) // body
        rows[:full, 1:-1] = tokens[: full * body].reshape(full, body)
        rest = tokens[full * body :]
        if len(rest):
            rows[full, 1 : 1 + len(rest)] = rest
            rows[full, 1 + len(rest)] = special.sep_id
            rows[full, 2 + len(rest) :] = special.pad_id
