"""Many texts as token ids, a few thousand at a time."""

from collections.abc import Iterable, Sequence

import numpy as np
import tokenizers

from keras_distil.data.special_tokens import SpecialTokens
from keras_distil.data.tasks.batches import EncodedExamples, encode_examples
from keras_distil.data.tasks.squad_windows import window_starts
from keras_distil.data.tokenize import Encoder

# A large table has more words than are worth forgetting: some 150 MB.
_WORDS_KNOWN = 2**20


class TextEncoder:
    """Encodes texts, or pairs, in parts, whole or in windows.

    Args:
        tokenizer: the teacher's tokenizer.
        max_length: int >= 8, maximum tokens per example.
        stride: tokens that consecutive windows of a text share; None to cut off
            the ends of longer texts.

    Raises:
        ValueError: if a window has no space for more than `stride`.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        max_length: int,
        stride: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._stride = stride
        self._encoder = Encoder(tokenizer, most_words=_WORDS_KNOWN)
        self._special = SpecialTokens.from_tokenizer(tokenizer)
        if stride is not None and not 0 < stride < max_length - 2:
            raise ValueError(
                f"`stride` must be from 1 to {max_length - 3}, less than the "
                f"tokens in a window. Received: stride={stride}, "
                f"max_length={max_length}."
            )

    def encode(
        self, first: Sequence[str], second: Sequence[str] | None = None
    ) -> EncodedExamples:
        """Encodes some texts; without labels.

        Args:
            first: the texts, one or more.
            second: the other text of each pair, or None.

        Raises:
            ValueError: if pairs are to be read in windows.
        """
        if self._stride is None:
            return encode_examples(
                self._tokenizer,
                first,
                second,
                max_length=self._max_length,
                encoder=self._encoder,
            )
        if second is not None:
            raise ValueError(
                "`stride` is for single texts: leave it out of a task of pairs."
                f" Received: stride={self._stride}."
            )
        return self._windows(first, self._stride)

    def _windows(self, texts: Sequence[str], stride: int) -> EncodedExamples:
        room = self._max_length - 2
        parts, owners = [], []
        cls, sep = [
            np.array([i], np.int32)
            for i in (self._special.cls_id, self._special.sep_id)
        ]
        for owner, ids in enumerate(self._encoder.encode(texts)):
            for begin in window_starts(len(ids), room, stride):
                parts.append(
                    np.concatenate([cls, ids[begin : begin + room], sep])
                )
                owners.append(owner)
        lengths = [len(part) for part in parts]
        return EncodedExamples(
            token_ids=np.concatenate(parts).astype(np.int32),
            starts=np.cumsum([0, *lengths], dtype=np.int64),
            first_lengths=np.array(lengths, np.int32),
            labels=None,
            pad_id=self._special.pad_id,
            max_length=self._max_length,
            owners=np.array(owners, np.int32),
        )


def join_examples(parts: Iterable[EncodedExamples]) -> EncodedExamples:
    """Joins parts of a data set.

    Args:
        parts: one or more, without weights; all with labels, an array, or
            none.

    Raises:
        ValueError: if there are no parts.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("There must be a text or more. Received: none.")
    lengths = np.concatenate([part.lengths for part in parts])
    texts, owners = 0, []
    for part in parts:
        if part.owners is not None:
            owners.append(part.owners + texts)
            texts += int(part.owners[-1]) + 1
    return EncodedExamples(
        token_ids=np.concatenate([part.token_ids for part in parts]),
        starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        first_lengths=np.concatenate([part.first_lengths for part in parts]),
        labels=_joined_labels(parts),
        pad_id=parts[0].pad_id,
        max_length=parts[0].max_length,
        owners=np.concatenate(owners).astype(np.int32) if owners else None,
        cut=sum(part.cut for part in parts),
        without_pieces=sum(part.without_pieces for part in parts),
    )


def _joined_labels(parts: Sequence[EncodedExamples]) -> np.ndarray | None:
    labels = [
        part.labels for part in parts if isinstance(part.labels, np.ndarray)
    ]
    return np.concatenate(labels) if labels else None
