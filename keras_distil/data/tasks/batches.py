"""Examples of a task as token ids, of any length, and padded."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import tokenizers

from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tasks.squad_windows import SquadWindows
from keras_distil.data.tokenize import Encoder

Labels: TypeAlias = np.ndarray | dict[str, np.ndarray]

# Lengths are rounded up to multiples of this, to limit the shapes.
_LENGTH_STEP = 8
# The label of a token that has none.
IGNORED = -100
# Numbers that are hashed at a time.
_HASHED = 2**20


@dataclasses.dataclass(frozen=True)
class EncodedExamples:
    """The examples of a task as token ids, of any length.

    Attributes:
        token_ids: int32, (tokens,), all examples, concatenated.
        starts: int64, (examples + 1,), where each example begins.
        first_lengths: int32, (examples,), tokens of the first segment: all,
            if the tokenizer gives both texts of a pair the same segment.
        labels: (examples,), or (examples, labels) of 0 and 1; for spans a dict
            with "start" and "end"; for classes of tokens (tokens,), as
            `token_ids`, with -100 where there is none. None without labels.
        pad_id: int, the id that pads a batch.
        max_length: int, the upper limit on a batch's length.
        weights: float32, (examples,); None for equal ones.
        owners: int32, (examples,), the text that each window is of; None if
            every example is a whole text.
        cut: int, texts that were longer than `max_length` and lost their ends.
        without_pieces: int, words of which the tokenizer makes nothing.
    """

    token_ids: np.ndarray
    starts: np.ndarray
    first_lengths: np.ndarray
    labels: Labels | None
    pad_id: int
    max_length: int
    weights: np.ndarray | None = None
    owners: np.ndarray | None = None
    cut: int = 0
    without_pieces: int = 0

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """int64, (examples,), tokens of each example."""
        return np.diff(self.starts)

    @property
    def fingerprint(self) -> str:
        """A hash of the texts as token ids, in their order; not of labels."""
        digest = hashlib.sha256()
        for array in (self.starts, self.first_lengths, self.token_ids):
            # In pieces, since the arrays may be on disk.
            for begin in range(0, len(array), _HASHED):
                piece = array[begin : begin + _HASHED]
                digest.update(np.ascontiguousarray(piece, "<i8").tobytes())
        return digest.hexdigest()

    def part(self, begin: int, end: int) -> "EncodedExamples":
        """Returns the examples from one number to before another."""
        first, last = self.starts[begin], self.starts[end]
        labels, weights = self.labels, self.weights
        if isinstance(labels, dict):
            labels = {name: x[begin:end] for name, x in labels.items()}
        elif labels is not None:
            by_token = self.has_token_labels
            labels = labels[first:last] if by_token else labels[begin:end]
        return dataclasses.replace(
            self,
            token_ids=self.token_ids[first:last],
            starts=self.starts[begin : end + 1] - first,
            first_lengths=self.first_lengths[begin:end],
            labels=labels,
            weights=None if weights is None else weights[begin:end],
            owners=None,
            cut=0,
            without_pieces=0,
        )

    @property
    def has_token_labels(self) -> bool:
        """Whether the labels are those of tokens."""
        labels = self.labels
        # An example has two tokens or more.
        return isinstance(labels, np.ndarray) and len(labels) == len(
            self.token_ids
        )


def encode_examples(
    tokenizer: tokenizers.Tokenizer,
    first: Sequence[str],
    second: Sequence[str] | None = None,
    labels: Labels | None = None,
    *,
    max_length: int = 128,
    encoder: Encoder | None = None,
) -> EncodedExamples:
    """Encodes texts, or pairs of texts, in the form that an encoder reads.

    A text becomes `[CLS] first [SEP]`, a pair `[CLS] first [SEP] second
    [SEP]`, with the tokenizer's own special tokens, and as many of them
    between the two as it puts there. What is longer than `max_length` loses
    its end. In a pair, the longer text does, until both are equally long; for
    an odd token, the rule of the `tokenizers` library applies.

    Args:
        tokenizer: the teacher's tokenizer.
        first: the texts.
        second: the other text of each pair, or None.
        labels: labels of the examples, if known.
        max_length: int >= 8, maximum tokens per example.
        encoder: an encoder of this tokenizer that knows words already.

    Returns:
        The encoded examples, in the same order.

    Raises:
        ValueError: if there are no examples, the numbers of texts differ or
            `max_length` is too small.
    """
    if not len(first) or (second is not None and len(second) != len(first)):
        raise ValueError(
            "There must be at least one example, and as many second texts as "
            f"first ones. Received: {len(first)} and "
            f"{'none' if second is None else len(second)}."
        )
    if max_length < 8:
        raise ValueError(
            f"`max_length` must be at least 8. Received: {max_length}."
        )
    special = SpecialTokens.from_tokenizer(tokenizer)
    encoder = Encoder(tokenizer) if encoder is None else encoder
    # Lists, because the encoder may forget words between two calls.
    firsts = list(encoder.encode(first))
    seconds = None if second is None else iter(list(encoder.encode(second)))
    parts: list[np.ndarray] = []
    first_lengths, lengths, cut = [], [], 0
    cls, sep = [np.array([i]) for i in (special.cls_id, special.sep_id)]
    for first_ids in firsts:
        second_ids = None if seconds is None else next(seconds)
        room = max_length - (2 if second_ids is None else special.in_pair)
        whole = len(first_ids) + (0 if second_ids is None else len(second_ids))
        cut += whole > room
        first_ids, second_ids = _truncate(first_ids, second_ids, room)
        example = [cls, first_ids, sep]
        if second_ids is not None:
            example += [sep] * (special.separators - 1)
        in_first = sum(map(len, example))
        if second_ids is not None:
            example += [second_ids, sep]
        length = sum(map(len, example))
        lengths.append(length)
        first_lengths.append(in_first if special.second_segment else length)
        parts += example
    return EncodedExamples(
        token_ids=np.concatenate(parts).astype(np.int32),
        starts=np.cumsum([0, *lengths], dtype=np.int64),
        first_lengths=np.array(first_lengths, np.int32),
        labels=labels,
        pad_id=special.pad_id,
        max_length=max_length,
        cut=cut,
    )


def encode_windows(
    windows: SquadWindows, *, pad_id: int, max_length: int
) -> EncodedExamples:
    """Turns windows of SQuAD's questions into examples for a span model.

    Args:
        windows: as made by `make_squad_windows`.
        pad_id: int, the id that pads a batch.
        max_length: int, length of the longest window.

    Returns:
        Examples whose labels are "start" and "end", token positions.
    """
    return EncodedExamples(
        token_ids=np.concatenate(windows.token_ids).astype(np.int32),
        starts=np.cumsum([0, *map(len, windows.token_ids)], dtype=np.int64),
        first_lengths=np.array(
            [int((segments == 0).sum()) for segments in windows.segment_ids],
            np.int32,
        ),
        labels={"start": windows.start, "end": windows.end},
        pad_id=pad_id,
        max_length=max_length,
    )


def _truncate(
    one: np.ndarray, other: np.ndarray | None, room: int
) -> tuple[np.ndarray, np.ndarray | None]:
    if other is None:
        return one[:room], None
    smaller = room // 2
    # With an odd number of tokens, the longer text gets the odd one; of
    # equally long texts the second, as the `tokenizers` library cuts pairs.
    half, other_half = smaller, room - smaller
    if len(one) > len(other):
        half, other_half = other_half, half
    return (
        one[: max(room - len(other), half)],
        other[: max(room - len(one), other_half)],
    )


def padded_batches(
    examples: EncodedExamples, *, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yields all examples once, from the shortest to the longest.

    Args:
        examples: with or without labels.
        batch_size: int >= 1, examples per batch; the last may have fewer.

    Yields:
        The indices of the examples, int64 (batch,), and "token_ids",
        "padding_mask" and "segment_ids", int32 (batch, length).
    """
    order = np.argsort(examples.lengths, kind="stable")
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        yield rows, padded(examples, rows)


def padded(
    examples: EncodedExamples, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns some of the examples as a batch.

    Args:
        examples: all of them.
        rows: int, (batch,), indices of the examples; repeats are allowed.

    Returns:
        "token_ids", "padding_mask" and "segment_ids", int32, (batch, length).
    """
    starts = examples.starts[rows][:, np.newaxis]
    lengths = examples.starts[rows + 1][:, np.newaxis] - starts
    longest = -(-int(lengths.max()) // _LENGTH_STEP) * _LENGTH_STEP
    place = np.arange(min(longest, examples.max_length))[np.newaxis]
    real = place < lengths
    index = np.where(real, starts + place, 0)
    segment = real & (place >= examples.first_lengths[rows][:, np.newaxis])
    token_ids = np.where(real, examples.token_ids[index], examples.pad_id)
    return {
        "token_ids": token_ids.astype(np.int32),
        "padding_mask": real.astype(np.int32),
        "segment_ids": segment.astype(np.int32),
    }
