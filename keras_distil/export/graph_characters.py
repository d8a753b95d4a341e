"""The characters of texts inside a graph, normalised as BERT's tokenizer does.

Every character knows where in the original text it comes from, so that tokens
and answers have places there.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text
import tokenizers

_SPACE = ord(" ")
CODE_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
_PAGE = 256
# In a replacement, stands for the code point that is replaced.
_ITSELF = -1
# Separates characters that are normalised in one call. It is its own normal
# form and appears in no other.
_BETWEEN = "|"
# `\w` of the library's regular expressions, as a character class of RE2.
_WORD_CHARACTERS = (
    r"\p{L}\p{Nl}\p{M}\p{Nd}\x{200C}\x{200D}\x{24B6}-\x{24E9}"
    r"\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189}"
)


@dataclasses.dataclass(frozen=True)
class Characters:
    """Characters, each with its place in the text that it comes from.

    Attributes:
        codes: int32, (batch, characters), code points.
        starts: int32, (all characters,), index of the original's first
            character that one stands for.
        ends: int32, (all characters,), index after the last one.
    """

    codes: tf.RaggedTensor
    starts: tf.Tensor
    ends: tf.Tensor

    @classmethod
    def of(cls, texts: tf.Tensor) -> "Characters":
        """Reads texts, strings, (batch,), UTF-8."""
        codes = tf.strings.unicode_decode(texts, "UTF-8")
        place = tf.cast(
            tf.ragged.range(codes.row_lengths()).flat_values, tf.int32
        )
        return cls(codes, place, place + 1)

    def texts(self) -> tf.Tensor:
        """Returns strings, (batch,), UTF-8."""
        return tf.strings.unicode_encode(self.codes, "UTF-8")

    def without(self, first: int, last: int) -> "Characters":
        """Leaves out the code points of a range."""
        flat = self.codes.flat_values
        kept = (flat < first) | (flat > last)
        return Characters(
            tf.ragged.boolean_mask(
                self.codes, self.codes.with_flat_values(kept)
            ),
            tf.boolean_mask(self.starts, kept),
            tf.boolean_mask(self.ends, kept),
        )

    def words(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds what stands between spaces.

        Returns:
            Indices of the first and of the last character of each word,
            counted through all texts, int64, (all words,).
        """
        flat = self.codes.flat_values
        is_space = tf.equal(flat, _SPACE)
        row = self.codes.value_rowids()
        changes = tf.not_equal(row[1:], row[:-1])
        # One value for the end of all texts; none if they have no characters.
        end = tf.ones([tf.minimum(tf.size(flat), 1)], tf.bool)
        before = tf.concat([end, is_space[:-1] | changes], 0)
        after = tf.concat([is_space[1:] | changes, end], 0)
        first, last = (
            tf.where(~is_space & edge)[:, 0] for edge in (before, after)
        )
        return first, last

    def bytes_before(self) -> tf.Tensor:
        """Returns the bytes before each character, int64, in UTF-8."""
        flat = self.codes.flat_values
        width = tf.ones_like(flat, tf.int64)
        for least in (0x80, 0x800, 0x10000):
            width += tf.cast(flat >= least, tf.int64)
        return tf.cumsum(width, exclusive=True)


class AddedTokens(tf.Module):
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
        self._pattern = "|".join(quoted(written) for written, _, _ in tokens)
        letters = f"[{_WORD_CHARACTERS}]"
        self._touches_before = f"(?s).*(?:{letters}|\\p{{Pc}}{beside})"
        self._touches_after = f"(?s)(?:{letters}|{beside}\\p{{Pc}}).*"
        self._written = [written for written, _, _ in tokens]
        self._replacements = [replacement for _, replacement, _ in tokens]
        self._whole_words = [flags["single_word"] for _, _, flags in tokens]

    def replace(self, given: Characters) -> Characters:
        """Replaces the tokens in texts."""
        if not self._written:
            return given
        pieces = tf_text.regex_split(
            given.texts(), self._pattern, self._pattern
        )
        flat = pieces.flat_values
        number = self._number(flat)
        found = number >= 0
        number = tf.maximum(number, 0)
        if any(self._whole_words):
            alone = ~self._touched(pieces)
            found &= alone | ~tf.gather(self._whole_words, number)
        made = tf.where(found, tf.gather(self._replacements, number), flat)
        joined = tf.strings.reduce_join(pieces.with_flat_values(made), axis=-1)
        before, after = (
            tf.strings.length(each, unit="UTF8_CHAR") for each in (flat, made)
        )
        # For every character of the result: its piece, and its place in it.
        piece = tf.repeat(tf.range(tf.size(after)), after)
        within = tf.range(tf.size(piece)) - tf.gather(
            tf.cumsum(after, exclusive=True), piece
        )
        first = tf.gather(tf.cumsum(before, exclusive=True), piece)
        # All characters of a replacement stand for the whole token.
        is_token = tf.gather(found, piece)
        last = first + tf.where(is_token, tf.gather(before, piece) - 1, within)
        first += tf.where(is_token, 0, within)
        return Characters(
            tf.strings.unicode_decode(joined, "UTF-8"),
            tf.gather(given.starts, first),
            tf.gather(given.ends, last),
        )

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


class PageTable(tf.Module):
    """A number for every code point.

    Args:
        numbers: int32, (code points,).
    """

    def __init__(self, numbers: np.ndarray) -> None:
        super().__init__(name="pages")
        # Most pages are identical: unassigned, ideographs, private.
        pages, place = np.unique(
            numbers.reshape(-1, _PAGE), axis=0, return_inverse=True
        )
        self._page_of = tf.constant(place.reshape(-1), tf.int32)
        self._numbers = tf.constant(pages.reshape(-1), tf.int32)

    def gather(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns the numbers of code points."""
        page = tf.gather(self._page_of, codes // _PAGE)
        return tf.gather(self._numbers, page * _PAGE + codes % _PAGE)


class CharacterTable(tf.Module):
    """Maps every code point to nothing, itself, or other code points.

    White space becomes spaces, and punctuation is surrounded by spaces, so
    that words are whatever stands between spaces.
    """

    def __init__(self, normalizer: str, kept_apart: Sequence[str]) -> None:
        super().__init__(name="characters")
        number_of: dict[tuple[int, ...], int] = {(_ITSELF,): 0}
        numbers = np.zeros(CODE_POINTS, np.int32)
        for code, replacement in _replacements(normalizer).items():
            numbers[code] = number_of.setdefault(replacement, len(number_of))
        for sentinel in kept_apart:
            alone = (_SPACE, _ITSELF, _SPACE)
            numbers[ord(sentinel)] = number_of.setdefault(alone, len(number_of))
        self._numbers = PageTable(numbers)
        lengths = [len(replacement) for replacement in number_of]
        self._lengths = tf.constant(lengths, tf.int32)
        self._starts = tf.constant(np.cumsum([0, *lengths[:-1]]), tf.int32)
        flat = [code for replacement in number_of for code in replacement]
        self._values = tf.constant(flat, tf.int32)

    def of(self, text: str) -> str:
        """Returns a text after the replacements."""
        replaced = self.replace(Characters.of(tf.constant([text])))
        return "".join(map(chr, replaced.codes.flat_values.numpy()))

    def replace(self, given: Characters) -> Characters:
        """Replaces code points."""
        codes = given.codes.flat_values
        number = self._numbers.gather(codes)
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
            tf.concat([[0], ends], axis=0), given.codes.row_splits
        )
        return Characters(
            tf.RaggedTensor.from_row_splits(value, splits),
            tf.gather(given.starts, source),
            tf.gather(given.ends, source),
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
        for code in range(CODE_POINTS)
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


def quoted(text: str) -> str:
    """Quotes a text for a regular expression of RE2."""
    return "".join(c if c.isalnum() else f"\\{c}" for c in text)
