"""Texts as the inputs of a model inside a graph, whatever the tokenizer."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from keras_distil.data import SpecialTokens

# Of what frames and pads a text.
_NOWHERE = -1


class Tokens(NamedTuple):
    """The tokens of texts, ragged, (batch, tokens).

    Attributes:
        ids: int32, token ids.
        starts: int32, index of a token's first character in its text.
        ends: int32, index after its last character.
        begins: int32, 1 where a word begins, else 0.
    """

    ids: tf.RaggedTensor
    starts: tf.RaggedTensor
    ends: tf.RaggedTensor
    begins: tf.RaggedTensor


class TextsInGraph(tf.Module):
    """Turns strings into the inputs of a model inside a graph.

    Args:
        special: the special tokens.
    """

    def __init__(self, special: SpecialTokens) -> None:
        super().__init__(name="tokenizer")
        self.special = special

    def find_tokens(self, texts: tf.Tensor) -> Tokens:
        """Returns the tokens with their places, without what frames a text.

        Args:
            texts: strings, (batch,), UTF-8.
        """
        raise NotImplementedError

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns token ids without [CLS] and [SEP], int32, (batch, tokens).

        Args:
            texts: strings, (batch,), UTF-8.
        """
        return self.find_tokens(texts).ids

    def encode(
        self, texts: tf.Tensor, *, max_length: int
    ) -> dict[str, tf.Tensor]:
        """Returns the padded inputs of a model, and where its tokens are.

        Args:
            texts: strings, (batch,), UTF-8.
            max_length: int; longer texts are cut.

        Returns:
            "token_ids", "padding_mask" and "segment_ids", int32, (batch,
            length), padded to the longest text; and "starts", "ends" and
            "begins" as in `Tokens`, -1 where there is no token of a text.
        """
        found = self.find_tokens(texts)
        cut = Tokens(*(each[:, : max_length - 2] for each in found))
        return self._padded([cut.ids]) | self._places([cut])

    def encode_pairs(
        self,
        first: tf.Tensor,
        second: tf.Tensor,
        *,
        max_length: int,
    ) -> dict[str, tf.Tensor]:
        """Returns the padded inputs of a model that reads two texts.

        Args:
            first: strings, (batch,), UTF-8.
            second: strings, (batch,), UTF-8.
            max_length: int; the longer text of a pair is cut first, as
                Hugging Face's `longest_first` does.

        Returns:
            As `encode`, with the places of the second text's tokens.
        """
        one, other = self.find_tokens(first), self.find_tokens(second)
        kept_one, kept_other = _longest_first(
            one.ids.row_lengths(),
            other.ids.row_lengths(),
            max_length - self.special.in_pair,
        )
        cut, cut_other = (
            Tokens(*(_cut(each, kept) for each in found))
            for found, kept in ((one, kept_one), (other, kept_other))
        )
        nowhere = tf.fill(tf.shape(cut.ids.flat_values), _NOWHERE)
        hidden = cut.ids.with_flat_values(nowhere)
        return self._padded([cut.ids, cut_other.ids]) | self._places(
            [Tokens(cut.ids, hidden, hidden, hidden), cut_other]
        )

    def _padded(self, parts: Sequence[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        special = self.special
        ones = [tf.ones_like(part) for part in parts]
        zeros = [tf.zeros_like(part) for part in parts]
        # Segments after the first one, and its last token.
        segments = self._framed([zeros[0], *ones[1:]], 0, 1, 0)
        length = 2 + parts[0].row_lengths()[:, tf.newaxis]
        place = tf.range(tf.shape(segments, tf.int64)[1])
        segments = tf.where(place < length, 0, segments)
        return {
            "token_ids": self._framed(
                parts, special.cls_id, special.sep_id, special.pad_id
            ),
            "padding_mask": self._framed(ones, 1, 1, 0),
            "segment_ids": special.second_segment * segments,
        }

    def _places(self, parts: Sequence[Tokens]) -> dict[str, tf.Tensor]:
        """Returns the padded places of tokens."""
        return {
            name: self._framed(
                [getattr(part, name) for part in parts],
                _NOWHERE,
                _NOWHERE,
                _NOWHERE,
            )
            for name in ("starts", "ends", "begins")
        }

    def _framed(
        self,
        parts: Sequence[tf.RaggedTensor],
        first: int,
        last: int,
        padding: int,
    ) -> tf.Tensor:
        """Puts a value before the first part and one after each, and pads.

        Between two parts there are as many as the tokenizer has separators.
        """
        rows = parts[0].nrows()
        row = [tf.fill([rows, 1], first)]
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            count = 1 if is_last else self.special.separators
            row += [part, tf.fill([rows, count], last)]
        return tf.concat(row, axis=1).to_tensor(padding)


def _cut(pieces: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """Returns the first `kept` tokens of each row."""
    place = tf.ragged.range(pieces.row_lengths())
    return tf.ragged.boolean_mask(
        pieces, place < tf.cast(kept, place.dtype)[:, tf.newaxis]
    )


def _longest_first(
    one: tf.Tensor, other: tf.Tensor, available: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Numbers of tokens to keep of the two texts of each pair."""
    shorter, longer = tf.minimum(one, other), tf.maximum(one, other)
    half = tf.constant(available // 2, one.dtype)
    longer = tf.where(
        shorter > available, shorter, tf.maximum(shorter, available - shorter)
    )
    too_long = shorter + longer > available
    shorter = tf.where(too_long, half, shorter)
    longer = tf.where(too_long, available - half, longer)
    swap = one > other
    fits = one + other <= available
    return (
        tf.where(fits, one, tf.where(swap, longer, shorter)),
        tf.where(fits, other, tf.where(swap, shorter, longer)),
    )
