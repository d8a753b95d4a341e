"""BERT's tokenizer as TensorFlow operations, equal to Hugging Face's.

TensorFlow Text's own `BertTokenizer` differs: it folds case where BERT's
lower-cases, and decomposes by compatibility. Here a table maps every code
point to its replacement. The table is read off the tokenizer to be matched, so
the graph follows the same version of Unicode. TensorFlow Text's WordPiece does
the rest.
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
from keras_distil.data.vocabulary import normalized
from keras_distil.utils import token_roles

_CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
_PAGE = 256
_SPACE = ord(" ")
# In a replacement, stands for the code point that is replaced.
_ITSELF = -1
# Separates characters that are normalised in one call. It is its own normal
# form and appears in no other.
_BETWEEN = "|"
# The first of the private characters that stand for added tokens in a text;
# BERT's tokenizer removes such characters from texts.
_FIRST_SENTINEL = 0x10F000
_MOST_ADDED = 1000
# `\w` of the library's regular expressions, as a character class of RE2.
_WORD_CHARACTERS = (
    r"\p{L}\p{Nl}\p{M}\p{Nd}\x{200C}\x{200D}\x{24B6}-\x{24E9}"
    r"\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}"
)


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
        self._table = _CharacterTable(
            json.dumps(described["normalizer"]), list(self._sentinels.values())
        )
        self._as_written = _AddedTokens(
            [
                (token["content"], self._sentinels[token["content"]], token)
                for token in added
                if not token["normalized"]
            ],
            beside="",
        )
        self._as_normalized = _AddedTokens(
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
        last = chr(_FIRST_SENTINEL + _MOST_ADDED)
        texts = tf.strings.regex_replace(
            texts, f"[{chr(_FIRST_SENTINEL)}-{last}]", ""
        )
        # Splitting stops at a zero byte. The table removes either byte.
        texts = tf.strings.regex_replace(texts, r"\x00", "\x01")
        texts = self._as_written.replace(texts)
        code_points = tf.strings.unicode_decode(texts, "UTF-8")
        normal = tf.strings.unicode_encode(
            self._table.replace(code_points), "UTF-8"
        )
        normal = self._as_normalized.replace(normal)
        words = tf.strings.split(normal, " ")
        # White space at the ends of a text leaves empty words.
        words = tf.ragged.boolean_mask(words, words != "")
        length = tf.strings.length(words.flat_values, unit="UTF8_CHAR")
        return words.with_flat_values(
            tf.where(
                length > self._longest_word, self._unknown, words.flat_values
            )
        )

    # A separate function is traced once for all signatures.
    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Returns token ids without [CLS] and [SEP], int32, (batch, tokens).

        Args:
            texts: strings, (batch,), UTF-8.
        """
        pieces = self._word_piece.tokenize(self.words(texts))
        return pieces.merge_dims(1, 2)

    def encode(
        self, texts: tf.Tensor, *, max_length: int
    ) -> dict[str, tf.Tensor]:
        """Returns the padded inputs of a model.

        Args:
            texts: strings, (batch,), UTF-8.
            max_length: int; longer texts are cut.

        Returns:
            "token_ids", "padding_mask" and "segment_ids", int32, (batch,
            length), padded to the longest text.
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
        """Returns the padded inputs of a model that reads two texts.

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


class _AddedTokens(tf.Module):
    """Finds added tokens in texts, as the library does.

    The first match counts, and the longest of several at one place. A token
    that must be a whole word is skipped where a letter or digit touches it.

    Args:
        tokens: the spelling, replacement and flags of each token.
        beside: the text between a punctuation mark and its neighbours. `_`
            counts as a letter.
    """

    def __init__(
        self, tokens: Sequence[tuple[str, str, dict]], beside: str
    ) -> None:
        super().__init__(name="added_tokens")
        # A regular expression tries its alternatives in order.
        tokens = sorted(tokens, key=lambda token: -len(token[0]))
        self._pattern = "|".join(_quoted(written) for written, _, _ in tokens)
        letters = f"[{_WORD_CHARACTERS}]"
        self._touches_before = f"(?s).*(?:{letters}|\\p{{Pc}}{beside})"
        self._touches_after = f"(?s)(?:{letters}|{beside}\\p{{Pc}}).*"
        self._written = [written for written, _, _ in tokens]
        self._replacements = [replacement for _, replacement, _ in tokens]
        self._whole_words = [flags["single_word"] for _, _, flags in tokens]

    def replace(self, texts: tf.Tensor) -> tf.Tensor:
        """Replaces the tokens in texts, strings, (batch,)."""
        if not self._written:
            return texts
        pieces = tf_text.regex_split(texts, self._pattern, self._pattern)
        flat = pieces.flat_values
        number = self._number(flat)
        found = number >= 0
        number = tf.maximum(number, 0)
        if any(self._whole_words):
            alone = ~self._touched(pieces)
            found &= alone | ~tf.gather(self._whole_words, number)
        flat = tf.where(found, tf.gather(self._replacements, number), flat)
        return tf.strings.reduce_join(pieces.with_flat_values(flat), axis=-1)

    def _number(self, pieces: tf.Tensor) -> tf.Tensor:
        """The number of the token that each piece is; -1 for none."""
        same = tf.equal(pieces[:, tf.newaxis], tf.constant(self._written))
        number = tf.argmax(tf.cast(same, tf.int32), axis=1)
        return tf.where(tf.reduce_any(same, axis=1), number, -1)

    def _touched(self, pieces: tf.RaggedTensor) -> tf.Tensor:
        """Whether a letter stands right before or after each piece."""
        flat = pieces.flat_values
        row = pieces.value_rowids()
        next_is_near = tf.equal(row[1:], row[:-1])
        before = tf.strings.regex_full_match(flat[:-1], self._touches_before)
        after = tf.strings.regex_full_match(flat[1:], self._touches_after)
        # Nothing touches a piece at the ends of a text.
        nothing = tf.zeros([tf.minimum(tf.size(flat), 1)], tf.bool)
        return tf.concat([nothing, before & next_is_near], 0) | tf.concat(
            [after & next_is_near, nothing], 0
        )


class _CharacterTable(tf.Module):
    """Maps every code point to nothing, itself, or other code points.

    White space becomes spaces, and punctuation is surrounded by spaces, so
    that words are whatever stands between spaces.
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
        # Most pages are identical: unassigned, ideographs, private.
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

    def of(self, text: str) -> str:
        """Returns a text after the replacements."""
        codes = tf.ragged.constant([list(map(ord, text))], tf.int32)
        return "".join(map(chr, self.replace(codes).flat_values.numpy()))

    def replace(self, code_points: tf.RaggedTensor) -> tf.RaggedTensor:
        """Replaces code points, int32, (batch, characters)."""
        codes = code_points.flat_values
        page = tf.gather(self._page_of, codes // _PAGE)
        number = tf.gather(self._numbers, page * _PAGE + codes % _PAGE)
        length = tf.gather(self._lengths, number)
        ends = tf.cumsum(length)
        # For every code point of the result: its source, and its place in
        # the replacement of that source.
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


@functools.lru_cache(maxsize=2)
def _replacements(normalizer: str) -> dict[int, tuple[int, ...]]:
    """The replacements of the code points that do not stay as they are.

    Args:
        normalizer: the settings of BERT's normalizer, as JSON.
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
    """Characters that BERT's pre-tokenizer drops, and those it splits off."""
    # Every character stands between two letters, at an odd index.
    text = "a" + "a".join(characters) + "a"
    spaces, marks = set(characters), set()
    split = tokenizers.pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for _, (start, end) in split(text):
        spaces.difference_update(text[start:end])
        if end == start + 1 and start % 2:
            marks.add(text[start])
    return spaces, marks


def _quoted(text: str) -> str:
    """Quotes a text for a regular expression of RE2."""
    return "".join(c if c.isalnum() else f"\\{c}" for c in text)


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
