"""BERT's tokenizer as TensorFlow operations, equal to Hugging Face's.

TensorFlow Text's own `BertTokenizer` differs: it folds case where BERT's
lower-cases, and decomposes by compatibility. Here a table maps every code
point to its replacement. The table is read off the tokenizer to be matched, so
the graph follows the same version of Unicode. TensorFlow Text's WordPiece does
the rest.
"""

import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers

from keras_distil.data import SpecialTokens
from keras_distil.data.vocabulary import normalized
from keras_distil.export.graph_characters import (
    AddedTokens,
    Characters,
    CharacterTable,
)
from keras_distil.utils import token_roles

# The first of the private characters that stand for added tokens in a text;
# BERT's tokenizer removes such characters from texts.
_FIRST_SENTINEL = 0x10F000
_MOST_ADDED = 1000
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


def make_graph_tokenizer(
    tokenizer: tokenizers.Tokenizer | None,
) -> "GraphTokenizer | None":
    """Makes the tokenizer of a graph; None if the graph takes token ids only.

    Raises:
        ValueError: as for `GraphTokenizer`.
    """
    if tokenizer is None or ids_only_note(tokenizer) is not None:
        return None
    return GraphTokenizer(tokenizer)


def ids_only_note(tokenizer: tokenizers.Tokenizer | None) -> str | None:
    """Says why a tokenizer has no form inside the graph; None if it has one.

    KerasHub's `BytePairTokenizer` would be one for byte-level BPE, but it
    gives other ids: see `docs/export.md`.
    """
    if tokenizer is None or not token_roles.is_byte_level(tokenizer):
        return None
    return (
        "This SavedModel takes token ids, not texts: TensorFlow has no exact "
        "form of a byte-level BPE tokenizer. Tokenize with the `tokenizers` "
        "library."
    )


class GraphTokenizer(tf.Module):
    """Turns strings into token ids inside a graph.

    The ids equal those of `tokenizer.encode`, including added tokens spelled
    out in a text. A graph that holds it needs TensorFlow Text to run.

    Args:
        tokenizer: a BERT tokenizer, as `data.load_tokenizer` returns it.

    Raises:
        ValueError: if the tokenizer is of another kind, or its ids could not
            be matched.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        super().__init__(name="tokenizer")
        described = _check_bert(tokenizer)
        self.special = SpecialTokens.from_tokenizer(tokenizer)
        self._longest_word = described["model"]["max_input_chars_per_word"]
        added = described["added_tokens"]
        self._sentinels = {
            token["content"]: chr(_FIRST_SENTINEL + index)
            for index, token in enumerate(added)
        }
        unknown = described["model"]["unk_token"]
        self._unknown = self._sentinels.get(unknown, unknown)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        _check_order_of_marks(tokenizer, vocabulary)
        self._table = CharacterTable(
            json.dumps(described["normalizer"]), list(self._sentinels.values())
        )
        self._as_written = AddedTokens(
            [
                (token["content"], self._sentinels[token["content"]], token)
                for token in added
                if not token["normalized"]
            ],
            beside="",
        )
        self._as_normalized = AddedTokens(
            [
                (self._table.of(token["content"]), f" {sentinel} ", token)
                for token in added
                if token["normalized"]
                for sentinel in [self._sentinels[token["content"]]]
            ],
            beside=" ",
        )
        self._vocabulary = tf.lookup.StaticVocabularyTable(
            self._initializer(described["model"]["vocab"], vocabulary),
            num_oov_buckets=1,
        )
        self._word_piece = tf_text.WordpieceTokenizer(
            self._vocabulary,
            unknown_token=self._unknown,
            token_out_type=tf.int32,
            # The limit in characters is applied below.
            max_bytes_per_word=4 * self._longest_word,
        )

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Splits texts into normalised words and punctuation marks.

        Args:
            texts: strings, (batch,), UTF-8.

        Returns:
            Strings, (batch, words). An added token becomes a private
            character, a word that is too long the unknown token.
        """
        return self._words(self._characters(texts))[0]

    def _characters(self, texts: tf.Tensor) -> Characters:
        """Returns the normalised characters, with spaces between words."""
        last = _FIRST_SENTINEL + _MOST_ADDED
        found = Characters.of(texts).without(_FIRST_SENTINEL, last)
        # Splitting stops at a zero byte. The table removes either byte.
        codes = found.codes.flat_values
        codes = tf.where(tf.equal(codes, 0), 1, codes)
        found = Characters(
            found.codes.with_flat_values(codes), found.starts, found.ends
        )
        found = self._table.replace(self._as_written.replace(found))
        return self._as_normalized.replace(found)

    def _words(self, found: Characters) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Returns the words, and which of all are too long."""
        words = tf.strings.split(found.texts(), " ")
        # White space at the ends of a text leaves empty words.
        words = tf.ragged.boolean_mask(words, words != "")
        length = tf.strings.length(words.flat_values, unit="UTF8_CHAR")
        too_long = length > self._longest_word
        flat = tf.where(too_long, self._unknown, words.flat_values)
        return words.with_flat_values(flat), too_long

    # A separate function is traced once for all signatures.
    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    def find_tokens(self, texts: tf.Tensor) -> Tokens:
        """Returns the tokens with their places, without [CLS] and [SEP].

        Args:
            texts: strings, (batch,), UTF-8.
        """
        found = self._characters(texts)
        words, too_long = self._words(found)
        ids, begin, end = self._word_piece.tokenize_with_offsets(words)
        word = ids.values.value_rowids()
        first, last = found.words()
        # From bytes of a word to characters of all texts.
        before = found.bytes_before()
        shift = tf.gather(before, tf.gather(first, word))
        starts, ends = (
            tf.searchsorted(before, shift + byte, side="right") - 1
            for byte in (begin.flat_values, end.flat_values - 1)
        )
        ends = tf.where(
            tf.gather(too_long, word),
            tf.cast(tf.gather(last, word), tf.int32),
            ends,
        )
        ids = ids.merge_dims(1, 2)
        return Tokens(
            ids,
            ids.with_flat_values(tf.gather(found.starts, starts)),
            ids.with_flat_values(tf.gather(found.ends, ends)),
            ids.with_flat_values(
                tf.cast(tf.equal(begin.flat_values, 0), tf.int32)
            ),
        )

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
        return self._padded([cut.ids]) | _places([cut])

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
            one.ids.row_lengths(), other.ids.row_lengths(), max_length - 3
        )
        cut, cut_other = (
            Tokens(*(_cut(each, kept) for each in found))
            for found, kept in ((one, kept_one), (other, kept_other))
        )
        nowhere = tf.fill(tf.shape(cut.ids.flat_values), _NOWHERE)
        hidden = cut.ids.with_flat_values(nowhere)
        return self._padded([cut.ids, cut_other.ids]) | _places(
            [Tokens(cut.ids, hidden, hidden, hidden), cut_other]
        )

    def _padded(self, parts: Sequence[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        special = self.special
        ones = [tf.ones_like(part) for part in parts]
        zeros = [tf.zeros_like(part) for part in parts]
        # Segments after the first one, and its last token.
        segments = _framed([zeros[0], *ones[1:]], 0, 1, 0)
        length = 2 + parts[0].row_lengths()[:, tf.newaxis]
        place = tf.range(tf.shape(segments, tf.int64)[1])
        return {
            "token_ids": _framed(
                parts, special.cls_id, special.sep_id, special.pad_id
            ),
            "padding_mask": _framed(ones, 1, 1, 0),
            "segment_ids": tf.where(place < length, 0, segments),
        }

    def _initializer(
        self, of_model: dict[str, int], vocabulary: dict[str, int]
    ) -> tf.lookup.KeyValueTensorInitializer:
        """The table from words and private characters to ids."""
        ids = {word: index for word, index in of_model.items() if word}
        for token, sentinel in self._sentinels.items():
            ids[sentinel] = vocabulary[token]
        # Ids without a token are given one that is not a word.
        for index in set(range(max(ids.values()) + 1)) - set(ids.values()):
            ids[f" {index}"] = index
        return tf.lookup.KeyValueTensorInitializer(
            list(ids), np.array(list(ids.values()), np.int64)
        )


def _check_bert(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """Returns the tokenizer's description, after checking it is BERT's."""
    described = json.loads(tokenizer.to_str())
    found = [
        (described[part] or {}).get("type")
        for part in ("normalizer", "pre_tokenizer", "model")
    ]
    if found != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or not (
        described["normalizer"]["clean_text"]
        and described["model"]["continuing_subword_prefix"] == "##"
    ):
        raise ValueError(
            "Only BERT's tokenizers have a form inside the graph: "
            "BertNormalizer with clean_text, BertPreTokenizer and WordPiece "
            f"with `##`. Received: {', '.join(map(str, found))}."
        )
    added = described["added_tokens"]
    if len(added) > _MOST_ADDED:
        raise ValueError(
            f"A graph can hold {_MOST_ADDED:,} added tokens. "
            f"Received: {len(added):,}."
        )
    for token in added:
        content = token["content"]
        if content != content.strip() or not (
            normalized(tokenizer, content) or not token["normalized"]
        ):
            raise ValueError(
                "Added tokens that begin or end with white space, or that the "
                "normalizer removes, have no form inside the graph. "
                f"Received: {content!r:.60}."
            )
    return described


def _check_order_of_marks(
    tokenizer: tokenizers.Tokenizer, vocabulary: dict[str, int]
) -> None:
    """Rejects the one case that a table of characters cannot express.

    Stripping accents decomposes the text, which also sorts the combining
    marks of a letter. Hardly any mark is left afterwards, and none is in the
    usual vocabularies, so words with one are unknown in any order.
    """
    if tokenizer.normalizer.normalize_str("e\u0301") == "e\u0301":
        return
    characters = set("".join(vocabulary))
    for character in sorted(characters):
        if unicodedata.combining(character) and (
            tokenizer.normalizer.normalize_str(character)
        ):
            raise ValueError(
                "The vocabulary spells words with the combining mark "
                f"U+{ord(character):04X}, whose order among others the graph "
                "cannot restore. Use a tokenizer with strip_accents=False."
            )


def _framed(
    parts: Sequence[tf.RaggedTensor], first: int, last: int, padding: int
) -> tf.Tensor:
    """Puts a value before the first part and one after each, and pads."""
    rows = parts[0].nrows()
    begin, end = (tf.fill([rows, 1], value) for value in (first, last))
    row = [begin]
    for part in parts:
        row += [part, end]
    return tf.concat(row, axis=1).to_tensor(padding)


def _places(parts: Sequence[Tokens]) -> dict[str, tf.Tensor]:
    """Returns the padded places of tokens."""
    return {
        name: _framed(
            [getattr(part, name) for part in parts],
            _NOWHERE,
            _NOWHERE,
            _NOWHERE,
        )
        for name in ("starts", "ends", "begins")
    }


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
