"""BERT's tokenizer as TensorFlow operations, equal to Hugging Face's.

TensorFlow Text's own `BertTokenizer` differs: it folds case where BERT's
lower-cases, and decomposes by compatibility. Here a table maps every code
point to its replacement. The table is read off the tokenizer to be matched, so
the graph follows the same version of Unicode. TensorFlow Text's WordPiece does
the rest.
"""

import json
import unicodedata
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers

from keras_distil.data import SpecialTokens
from keras_distil.data.vocabulary import normalized
from keras_distil.export.graph_byte_level import (
    ByteLevelGraphTokenizer,
    find_obstacle,
)
from keras_distil.export.graph_characters import (
    AddedTokens,
    Characters,
    CharacterTable,
)
from keras_distil.export.graph_encoding import TextsInGraph, Tokens
from keras_distil.utils import token_roles

# The first of the private characters that stand for added tokens in a text;
# BERT's tokenizer removes such characters from texts.
_FIRST_SENTINEL = 0x10F000
_MOST_ADDED = 1000


def make_graph_tokenizer(
    tokenizer: tokenizers.Tokenizer | None,
) -> TextsInGraph | None:
    """Makes the tokenizer of a graph; None if the graph takes token ids only.

    Raises:
        ValueError: as for `GraphTokenizer`.
    """
    if tokenizer is None or ids_only_note(tokenizer) is not None:
        return None
    if token_roles.is_byte_level(tokenizer):
        return ByteLevelGraphTokenizer(tokenizer)
    return GraphTokenizer(tokenizer)


def ids_only_note(tokenizer: tokenizers.Tokenizer | None) -> str | None:
    """Says why a byte-level tokenizer has no form inside the graph.

    Returns:
        A sentence or two; None if it has one, or is of another kind.
    """
    if tokenizer is None or not token_roles.is_byte_level(tokenizer):
        return None
    obstacle = find_obstacle(tokenizer)
    if obstacle is None:
        return None
    return (
        "This SavedModel takes token ids, not texts: its tokenizer has "
        f"{obstacle}, for which there is no form inside the graph. Tokenize "
        "with the `tokenizers` library."
    )


class GraphTokenizer(TextsInGraph):
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
        described = _check_bert(tokenizer)
        super().__init__(SpecialTokens.from_tokenizer(tokenizer))
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
