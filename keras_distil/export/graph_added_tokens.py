"""Added tokens of byte-level tokenizers, found as TensorFlow operations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_text as tf_text

from keras_distil.export.graph_characters import quoted

# White space beside added tokens, as Unicode defines it.
_SPACES = (
    r"[\x{9}-\x{D} \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}"
    r"\x{202F}\x{205F}\x{3000}]"
)


class Pieces(NamedTuple):
    """The pieces of texts between added tokens, and these themselves.

    Attributes:
        number: int32, (all characters,), the piece of each character.
        token: int32, the id of the token that this is, or -1.
        end: int32, the place after the piece in its text.
        before: int32, the spaces that a token has taken before it, or -1.
        after: int32, those after it, or -1.
    """

    number: tf.Tensor
    token: tf.Tensor
    end: tf.Tensor
    before: tf.Tensor
    after: tf.Tensor


class AddedTokens(tf.Module):
    """Finds added tokens in texts, as the library does.

    Args:
        tokens: descriptions of the tokens, none of which can overlap.
    """

    def __init__(self, tokens: Sequence[dict[str, Any]]) -> None:
        super().__init__(name="added_tokens")
        tokens = sorted(tokens, key=lambda token: -len(token["content"]))
        self._pattern = "|".join(
            (f"{_SPACES}*" if token["lstrip"] else "")
            + quoted(token["content"])
            + (f"{_SPACES}*" if token["rstrip"] else "")
            for token in tokens
        )
        self._written = [token["content"] for token in tokens]
        self._ids = [token["id"] for token in tokens]

    def find(self, codes: tf.RaggedTensor) -> Pieces:
        """Splits texts at the tokens.

        Args:
            codes: int32, (batch, characters), code points.
        """
        flat = codes.flat_values
        if not self._written:
            row = tf.cast(codes.value_rowids(), tf.int32)
            none = tf.fill(tf.shape(flat), -1)
            return Pieces(row, none, none, none, none)
        # Splitting stops at a zero byte.
        safe = codes.with_flat_values(tf.where(tf.equal(flat, 0), 1, flat))
        pieces = tf_text.regex_split(
            tf.strings.unicode_encode(safe, "UTF-8"),
            self._pattern,
            self._pattern,
        )
        written = pieces.flat_values
        inner, without_first, without_last = (
            tf.strings.regex_replace(written, pattern, "")
            for pattern in (
                f"^{_SPACES}+|{_SPACES}+$",
                f"^{_SPACES}+",
                f"{_SPACES}+$",
            )
        )
        same = tf.equal(inner[:, tf.newaxis], tf.constant(self._written))
        number = tf.argmax(tf.cast(same, tf.int32), axis=1)
        ids = tf.where(
            tf.reduce_any(same, axis=1), tf.gather(self._ids, number), -1
        )
        size, after_first, before_last = (
            tf.strings.length(texts, unit="UTF8_CHAR")
            for texts in (written, without_first, without_last)
        )
        # From the ends in all texts to those in each text.
        end = tf.cumsum(size) - tf.gather(
            tf.cast(codes.row_splits, tf.int32), pieces.value_rowids()
        )
        piece = tf.repeat(tf.range(tf.size(size)), size)
        of_pieces = (
            ids,
            end,
            tf.where(ids < 0, -1, size - after_first),
            tf.where(ids < 0, -1, size - before_last),
        )
        return Pieces(piece, *(tf.gather(each, piece) for each in of_pieces))
