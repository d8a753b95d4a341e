"""Words as word pieces, and what a model says of pieces as words again."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
import tokenizers

from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tasks.batches import IGNORED, EncodedExamples
from keras_distil.data.tasks.squad_windows import (
    leave_out_spaces,
    window_starts,
)

# Sentences that are encoded at a time.
_BATCH = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedWords:
    """Sentences as examples of a token classifier, and where their words are.

    A word stands at its first piece: this has its label, and is what a model's
    answer for the word is read from.

    Attributes:
        examples: sentences, or windows of them.
        counts: int64, (sentences,), words of each.
        words: int64, (places,), index of a word, counted through all sentences.
        windows: int64, (places,), index of the example that it is read from.
        positions: int64, (places,), position of its first piece there.
        places: int64, (3, pieces), word, example and position of all first
            pieces; more than `words` if windows share some.
        without_pieces: words of which the tokenizer makes nothing.
        unread: words beyond `max_length`, without windows.
    """

    examples: EncodedExamples
    counts: np.ndarray
    words: np.ndarray
    windows: np.ndarray
    positions: np.ndarray
    places: np.ndarray
    without_pieces: int
    unread: int


def encode_words(
    tokenizer: tokenizers.Tokenizer,
    sentences: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int]] | None = None,
    *,
    max_length: int,
    stride: int | None = None,
) -> EncodedWords:
    """Encodes the words of sentences, with a space between them.

    Args:
        tokenizer: the teacher's tokenizer.
        sentences: words, one or more per sentence.
        labels: class of each word; None without labels.
        max_length: int >= 8, maximum tokens per example.
        stride: pieces that consecutive windows of a sentence share; None to cut
            off the ends of longer ones.

    Returns:
        Examples with labels of tokens: -100 at pieces that do not begin a word.
        Where a word is in several windows, it is read from the one where it is
        farthest from both ends.

    Raises:
        ValueError: if a window has no space for more than `stride`.
    """
    if stride is not None and not 0 < stride < max_length - 2:
        raise ValueError(
            f"`stride` must be from 1 to {max_length - 3}, less than the "
            f"tokens in a window. Received: stride={stride}, "
            f"max_length={max_length}."
        )
    builder = _Builder(tokenizer, max_length, stride)
    for begin in range(0, len(sentences), _BATCH):
        some = sentences[begin : begin + _BATCH]
        texts = [" ".join(words) for words in some]
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
        for i, (words, text, encoding) in enumerate(
            zip(some, texts, encoded, strict=True), begin
        ):
            own = None if labels is None else np.array(labels[i], np.int32)
            builder.add(words, text, encoding, own)
    return builder.finish(with_labels=labels is not None)


class _Builder:
    """Collects the windows of sentences."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, length: int, stride: int | None
    ) -> None:
        self._special = SpecialTokens.from_tokenizer(tokenizer)
        self._length, self._stride = length, stride
        self._ids: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._owners: list[int] = []
        self._counts: list[int] = []
        # Word, window, position and distance from the nearer end.
        self._places: list[np.ndarray] = []
        self._words, self._cut, self._without = 0, 0, 0

    def add(
        self,
        words: Sequence[str],
        text: str,
        encoding: tokenizers.Encoding,
        labels: np.ndarray | None,
    ) -> None:
        """Adds a sentence."""
        ids = np.array(encoding.ids, np.int32)
        first = _first_pieces(words, text, encoding)
        self._without += int((first < 0).sum())
        room = self._length - 2
        starts = [0]
        if self._stride is not None:
            starts = list(window_starts(len(ids), room, self._stride))
        elif len(ids) > room:
            self._cut += 1
        for start in starts:
            self._add_window(ids[start : start + room], start, first, labels)
        self._counts.append(len(words))
        self._words += len(words)

    def _add_window(
        self,
        ids: np.ndarray,
        start: int,
        first: np.ndarray,
        labels: np.ndarray | None,
    ) -> None:
        inside = np.flatnonzero((first >= start) & (first < start + len(ids)))
        position = first[inside] - start
        own = np.full(len(ids) + 2, IGNORED, np.int32)
        if labels is not None:
            own[position + 1] = labels[inside]
        nearest = np.minimum(position, len(ids) - 1 - position)
        window = np.full(len(inside), len(self._ids))
        self._places.append(
            np.stack([inside + self._words, window, position + 1, nearest])
        )
        cls, sep = self._special.cls_id, self._special.sep_id
        self._ids.append(np.array([cls, *ids, sep], np.int32))
        self._labels.append(own)
        self._owners.append(len(self._counts))

    def finish(self, *, with_labels: bool) -> EncodedWords:
        """Returns all windows, and the best place of each word."""
        word, window, position, nearest = np.concatenate(self._places, axis=1)
        # The last of equal words is the one farthest from the ends, and of
        # several such the first.
        order = np.lexsort((-window, nearest, word))
        last = np.append(np.diff(word[order]) != 0, [True] * bool(len(word)))
        best = order[last]
        lengths = [len(ids) for ids in self._ids]
        return EncodedWords(
            examples=EncodedExamples(
                token_ids=np.concatenate(self._ids),
                starts=np.cumsum([0, *lengths], dtype=np.int64),
                first_lengths=np.array(lengths, np.int32),
                labels=np.concatenate(self._labels) if with_labels else None,
                pad_id=self._special.pad_id,
                max_length=self._length,
                owners=np.array(self._owners, np.int32),
                cut=self._cut,
                without_pieces=self._without,
            ),
            counts=np.array(self._counts, np.int64),
            words=word[best],
            windows=window[best],
            positions=position[best],
            places=np.stack([word, window, position]),
            without_pieces=self._without,
            unread=self._words - self._without - len(best),
        )


def _first_pieces(
    words: Sequence[str], text: str, encoding: tokenizers.Encoding
) -> np.ndarray:
    """Returns the index of each word's first piece, -1 if it has none."""
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    leave_out_spaces(text, offsets)
    lengths = np.array([len(word) for word in words])
    begins = np.cumsum(lengths + 1) - lengths - 1
    # The first piece that ends inside of the word or after it. A space may be
    # a piece of its own, which is then empty.
    piece = np.searchsorted(offsets[:, 1], begins, side="right")
    starts = np.append(offsets[:, 0], np.iinfo(np.int32).max)[piece]
    return np.where(starts < begins + lengths, piece, -1)
