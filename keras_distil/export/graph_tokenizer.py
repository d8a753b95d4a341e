"""BERT's tokenizer as TensorFlow operations, equal to Hugging Face's.

TensorFlow Text's own `BertTokenizer` is not: it folds case where BERT's
lower-cases, and decomposes by compatibility. Here a table says what becomes of
every code point. It is read off the tokenizer that is to be matched, so that
whatever version of Unicode that one follows, the graph follows it, too.
TensorFlow Text's WordPiece does the rest.
"""

import functools
import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers

from keras_distil.data import SpecialTokens

_CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
_PAGE = 256
_SPACE = ord(" ")
# In a replacement: the code point that is replaced.
_ITSELF = -1
# Stands between characters whose normal forms are asked for together. It is
# its own normal form, and part of no other.
_BETWEEN = "|"
# Stand for special tokens inside of a text: private characters, which BERT's
# tokenizer removes from texts.
_FIRST_SENTINEL = 0x10FF00


class GraphTokenizer(tf.Module):
    """Turns strings into token ids inside a graph.

    The ids are those of `tokenizer.encode`, special tokens that a text spells
    included. A graph that holds it needs TensorFlow Text to run.

    Args:
        tokenizer: as `data.load_tokenizer` returns it, a BERT one.

    Raises:
        ValueError: if the tokenizer is of another kind, or one whose ids
            could not be matched.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        super().__init__(name="tokenizer")
        described = _check_bert(tokenizer)
        self.special = SpecialTokens.from_tokenizer(tokenizer)
        self._longest_word = described["model"]["max_input_chars_per_word"]
        added = {
            token["content"]: token["id"] for token in described["added_tokens"]
        }
        self._sentinels = {
            token: chr(_FIRST_SENTINEL + index)
            for index, token in enumerate(added)
        }
        unknown = described["model"]["unk_token"]
        self._unknown = self._sentinels.get(unknown, unknown)
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        _check_order_of_marks(tokenizer, vocabulary)
        self._table = _CharacterTable(
            json.dumps(described["normalizer"]), list(self._sentinels.values())
        )
        words = self._word_list(vocabulary)
        self._vocabulary = tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer(
                words, np.arange(len(words), dtype=np.int64)
            ),
            num_oov_buckets=1,
        )
        self._word_piece = tf_text.WordpieceTokenizer(
            self._vocabulary,
            unknown_token=self._unknown,
            token_out_type=tf.int32,
            # Words are measured in characters, below.
            max_bytes_per_word=4 * self._longest_word,
        )

    def words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Normal forms of the words and marks of texts.

        Args:
            texts: strings, (batch,), UTF-8.

        Returns:
            Strings, (batch, words). A special token is a private character,
            a word that is too long the one of unknown words.
        """
        for sentinel in self._sentinels.values():
            texts = tf.strings.regex_replace(texts, sentinel, "")
        for token, sentinel in self._sentinels.items():
            texts = tf.strings.regex_replace(texts, _quoted(token), sentinel)
        code_points = tf.strings.unicode_decode(texts, "UTF-8")
        normal = tf.strings.unicode_encode(
            self._table.replace(code_points), "UTF-8"
        )
        words = tf.strings.split(normal, " ")
        # White space at the ends leaves empty words.
        words = tf.ragged.boolean_mask(words, words != "")
        length = tf.strings.length(words.flat_values, unit="UTF8_CHAR")
        return words.with_flat_values(
            tf.where(
                length > self._longest_word, self._unknown, words.flat_values
            )
        )

    # A function of its own is traced once for all signatures.
    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Token ids without [CLS] and [SEP], int32, (batch, tokens).

        Args:
            texts: strings, (batch,), UTF-8.
        """
        pieces = self._word_piece.tokenize(self.words(texts))
        return pieces.merge_dims(1, 2)

    def encode(
        self, texts: tf.Tensor, *, max_length: int
    ) -> dict[str, tf.Tensor]:
        """Padded inputs of a model.

        Args:
            texts: strings, (batch,), UTF-8.
            max_length: int; longer texts are cut.

        Returns:
            "token_ids", "padding_mask" and "segment_ids", int32, (batch,
            length), as long as the longest text.
        """
        pieces = self.tokenize(texts)[:, : max_length - 2]
        return self._padded([pieces])

    def encode_pairs(
        self,
        first: tf.Tensor,
        second: tf.Tensor,
        *,
        max_length: int,
    ) -> dict[str, tf.Tensor]:
        """Padded inputs of a model that reads two texts.

        Args:
            first: strings, (batch,), UTF-8.
            second: strings, (batch,), UTF-8.
            max_length: int; the longer text of a pair is cut first, as
                Hugging Face's `longest_first` does.

        Returns:
            As `encode`.
        """
        one, other = self.tokenize(first), self.tokenize(second)
        kept_one, kept_other = _longest_first(
            one.row_lengths(), other.row_lengths(), max_length - 3
        )
        return self._padded([_cut(one, kept_one), _cut(other, kept_other)])

    def _padded(self, parts: Sequence[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        rows = parts[0].nrows()
        cls_id = tf.fill([rows, 1], self.special.cls_id)
        sep_id = tf.fill([rows, 1], self.special.sep_id)
        pieces = [cls_id, parts[0], sep_id]
        segments = [tf.zeros_like(piece) for piece in pieces]
        if len(parts) == 2:
            pieces += [parts[1], sep_id]
            segments += [tf.ones_like(piece) for piece in pieces[3:]]
        token_ids = tf.concat(pieces, axis=1)
        return {
            "token_ids": token_ids.to_tensor(self.special.pad_id),
            "padding_mask": tf.ones_like(token_ids).to_tensor(0),
            "segment_ids": tf.concat(segments, axis=1).to_tensor(0),
        }

    def _word_list(self, vocabulary: dict[str, int]) -> list[str]:
        """The vocabulary by id, special tokens as their private characters."""
        # An id without a token gets one that is no word.
        words = [f" {index}" for index in range(max(vocabulary.values()) + 1)]
        for token, index in vocabulary.items():
            words[index] = self._sentinels.get(token, token)
        return words


class _CharacterTable(tf.Module):
    """What becomes of every code point: nothing, itself, or others.

    White space and what surrounds punctuation become spaces, so that words
    are what stands between spaces.
    """

    def __init__(self, normalizer: str, kept_apart: Sequence[str]) -> None:
        super().__init__(name="characters")
        number_of: dict[tuple[int, ...], int] = {(_ITSELF,): 0}
        numbers = np.zeros(_CODE_POINTS, np.int32)
        for code, replacement in _replacements(normalizer).items():
            numbers[code] = number_of.setdefault(replacement, len(number_of))
        for sentinel in kept_apart:
            alone = (_SPACE, _ITSELF, _SPACE)
            numbers[ord(sentinel)] = number_of.setdefault(alone, len(number_of))
        # Most pages are alike: unassigned, ideographs, private.
        pages, place = np.unique(
            numbers.reshape(-1, _PAGE), axis=0, return_inverse=True
        )
        self._page_of = tf.constant(place.reshape(-1), tf.int32)
        self._numbers = tf.constant(pages.reshape(-1), tf.int32)
        lengths = [len(replacement) for replacement in number_of]
        self._lengths = tf.constant(lengths, tf.int32)
        self._starts = tf.constant(np.cumsum([0, *lengths[:-1]]), tf.int32)
        flat = [code for replacement in number_of for code in replacement]
        self._values = tf.constant(flat, tf.int32)

    def replace(self, code_points: tf.RaggedTensor) -> tf.RaggedTensor:
        """Replaces code points, int32, (batch, characters)."""
        codes = code_points.flat_values
        page = tf.gather(self._page_of, codes // _PAGE)
        number = tf.gather(self._numbers, page * _PAGE + codes % _PAGE)
        length = tf.gather(self._lengths, number)
        ends = tf.cumsum(length)
        # For every code point of the result: where it came from, and which
        # one of its replacement it is.
        source = tf.repeat(tf.range(tf.size(codes)), length)
        within = tf.range(tf.size(source)) - tf.gather(ends - length, source)
        start = tf.gather(tf.gather(self._starts, number), source)
        value = tf.gather(self._values, start + within)
        value = tf.where(value == _ITSELF, tf.gather(codes, source), value)
        splits = tf.gather(
            tf.concat([[0], ends], axis=0), code_points.row_splits
        )
        return tf.RaggedTensor.from_row_splits(value, splits)


def _check_bert(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """The tokenizer's own description, once it is known to be BERT's."""
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
    for token in described["added_tokens"]:
        if not token["special"] or token["single_word"]:
            raise ValueError(
                "Of added tokens, only special ones have a form inside the "
                f"graph. Received: {token['content']!r:.60}."
            )
    return described


def _check_order_of_marks(
    tokenizer: tokenizers.Tokenizer, vocabulary: dict[str, int]
) -> None:
    """Refuses the one thing a table of characters cannot do.

    Where accents are stripped, the text is decomposed, which also sorts the
    combining marks of a letter. Hardly any mark is left afterwards, and none
    that is in the usual vocabularies: so their words are unknown in any order.
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


@functools.lru_cache(maxsize=2)
def _replacements(normalizer: str) -> dict[int, tuple[int, ...]]:
    """What each code point becomes, where that is not itself.

    Args:
        normalizer: the settings of BERT's normalizer, JSON.
    """
    settings = json.loads(normalizer)
    del settings["type"]
    normalize = tokenizers.normalizers.BertNormalizer(**settings).normalize_str
    characters = [
        chr(code)
        for code in range(_CODE_POINTS)
        if code not in _SURROGATES and code != ord(_BETWEEN)
    ]
    parts = normalize(_BETWEEN.join(characters)).split(_BETWEEN)
    normal = dict(zip(characters, parts, strict=True)) | {_BETWEEN: _BETWEEN}
    spaces, marks = _spaces_and_marks("".join(set("".join(parts)) | {_BETWEEN}))
    found = {}
    for character, text in normal.items():
        replacement: list[int] = []
        for each in text:
            itself = _ITSELF if each == character else ord(each)
            if each in spaces:
                replacement.append(_SPACE)
            elif each in marks:
                replacement += [_SPACE, itself, _SPACE]
            else:
                replacement.append(itself)
        if replacement != [_ITSELF]:
            found[ord(character)] = tuple(replacement)
    return found


def _spaces_and_marks(characters: str) -> tuple[set[str], set[str]]:
    """What BERT's pre-tokenizer drops, and what it sets apart."""
    # Every character stands between two letters, at an odd place.
    text = "a" + "a".join(characters) + "a"
    spaces, marks = set(characters), set()
    split = tokenizers.pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for _, (start, end) in split(text):
        spaces.difference_update(text[start:end])
        if end == start + 1 and start % 2:
            marks.add(text[start])
    return spaces, marks


def _quoted(text: str) -> str:
    """A regular expression for a text, in the syntax of RE2."""
    return "".join(c if c.isalnum() else f"\\{c}" for c in text)


def _cut(pieces: tf.RaggedTensor, kept: tf.Tensor) -> tf.RaggedTensor:
    """The first `kept` tokens of each row."""
    place = tf.ragged.range(pieces.row_lengths())
    return tf.ragged.boolean_mask(
        pieces, place < tf.cast(kept, place.dtype)[:, tf.newaxis]
    )


def _longest_first(
    one: tf.Tensor, other: tf.Tensor, available: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """How many tokens of each text of a pair are kept."""
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
