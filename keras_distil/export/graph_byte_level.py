"""Byte-level BPE as TensorFlow operations, equal to the library's.

GPT-2's and RoBERTa's tokenizers split texts by a regular expression that looks
ahead, which TensorFlow's cannot. But all it asks of a character is whether it
is a letter, a number, white space or something else, and these classes are read
off the library; where words begin then follows from neighbouring characters.
Words are merged by a table of pairs, the pair of the lowest rank first, as the
library does.
"""

import functools
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers

from keras_distil.data import SpecialTokens
from keras_distil.export.graph_added_tokens import AddedTokens
from keras_distil.export.graph_characters import CODE_POINTS, PageTable
from keras_distil.export.graph_encoding import TextsInGraph, Tokens
from keras_distil.utils import token_roles

_SPACE, _APOSTROPHE = ord(" "), ord("'")
_LETTER, _NUMBER, _MARK, _WHITE = range(4)
# The words that the regular expression splits off at an apostrophe.
_ENDINGS = ("s", "t", "re", "ve", "m", "ll", "d")
_SURROGATES = range(0xD800, 0xE000)
# Characters that the library splits at a time.
_SPLIT_AT_A_TIME = 2**14
# A value of the table of pairs is the rank, then the id of the result.
_ID_BITS = 24
_NO_PAIR = np.iinfo(np.int64).max
# Settings of a model that changes nothing but by its merges.
_MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


class ByteLevelGraphTokenizer(TextsInGraph):
    """Turns strings into token ids of byte-level BPE inside a graph.

    The ids and the places of tokens equal those of `tokenizer.encode`,
    including added tokens spelled out in a text. A graph that holds it needs
    TensorFlow Text to run.

    Args:
        tokenizer: a tokenizer for which `find_obstacle` finds nothing.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        super().__init__(SpecialTokens.from_tokenizer(tokenizer))
        described = json.loads(tokenizer.to_str())
        vocabulary = described["model"]["vocab"]
        self._adds_space = described["pre_tokenizer"]["add_prefix_space"]
        self._classes = PageTable(_classes_of_characters())
        self._added = AddedTokens(described["added_tokens"])
        alphabet = _alphabet()
        self._id_of_byte = tf.constant(
            [vocabulary[character] for character in alphabet], tf.int32
        )
        self._pairs = _table_of_pairs(described["model"])
        words = tokenizer.get_vocab(with_added_tokens=True)
        self._trimmed = _trims(described["post_processor"])
        flags = _flags(described["post_processor"])
        self._first_has_space = bool(flags.get("add_prefix_space"))
        before, after = _spaces_of_words(words, alphabet[_SPACE])
        self._spaces_before = tf.constant(before, tf.int32)
        self._spaces_after = tf.constant(after, tf.int32)

    # A separate function is traced once for all signatures.
    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    def find_tokens(self, texts: tf.Tensor) -> Tokens:
        """Returns the tokens with their places, without what frames a text.

        Args:
            texts: strings, (batch,), UTF-8.
        """
        codes = tf.strings.unicode_decode(texts, "UTF-8")
        place = tf.cast(
            tf.ragged.range(codes.row_lengths()).flat_values, tf.int32
        )
        found = self._added.find(codes)
        piece, added, ends = found.number, found.token, found.end
        row = tf.cast(codes.value_rowids(), tf.int32)
        is_text = added < 0
        # Pieces beside each other are one text, unless one is a token.
        opens = _changes(row) | (
            _changes(piece) & ~(is_text & _shifted(is_text, False))
        )
        flat = codes.flat_values
        needs = tf.zeros_like(is_text)
        if self._adds_space:
            needs = opens & is_text & tf.not_equal(flat, _SPACE)
        # The space before a text is at the place of its first character.
        source = tf.repeat(
            tf.range(tf.size(flat)), 1 + tf.cast(needs, tf.int32)
        )
        is_first = _changes(source)
        opens = tf.gather(opens, source) & is_first
        is_space = tf.gather(needs, source) & is_first
        flat = tf.where(is_space, _SPACE, tf.gather(flat, source))
        added = tf.gather(added, source)
        starts = self._begins(flat, opens, added >= 0)
        word = tf.cumsum(tf.cast(starts, tf.int32)) - 1
        # A token is one symbol, at its first character.
        width = tf.where(added >= 0, tf.cast(opens, tf.int32), _bytes_of(flat))
        character = tf.repeat(tf.range(tf.size(flat)), width)
        byte = _byte(flat, width, character)
        of_text = tf.gather(added, character)
        ids = tf.where(of_text >= 0, of_text, tf.gather(self._id_of_byte, byte))
        origin = tf.gather(source, character)
        first = tf.gather(place, origin)
        last = tf.where(of_text >= 0, tf.gather(ends, origin), first + 1)
        merged = self._merge(
            ids,
            tf.gather(word, character),
            first,
            last,
            tf.gather(row, origin),
        )
        before, after = (
            # The same for all characters of a word.
            tf.math.segment_max(tf.gather(each, source), word)
            for each in (found.before, found.after)
        )
        return self._tokens(
            *merged, before=before, after=after, rows=codes.nrows()
        )

    def _begins(
        self, codes: tf.Tensor, opens: tf.Tensor, is_token: tf.Tensor
    ) -> tf.Tensor:
        """Returns where words begin, as the regular expression finds them.

            's|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?[^ws L N]+|ws+(?!not ws)|ws+

        Args:
            codes: int32, (characters,), of all texts.
            opens: bool, where a text or an added token begins.
            is_token: bool, whether a character belongs to an added token.
        """
        kind = self._classes.gather(codes)
        before = _shifted(kind, _WHITE)
        white, white_before = tf.equal(kind, _WHITE), tf.equal(before, _WHITE)
        # A space belongs to the word after it.
        space_before = tf.equal(_shifted(codes, 0), _SPACE) & ~opens
        begins = tf.not_equal(kind, before) & ~space_before
        # The last white space before a word, of several.
        closes = tf.concat([opens[1:], tf.ones_like(opens[:1])], 0)
        white_after = tf.concat([white[1:], tf.zeros_like(white[:1])], 0)
        last = white & ~white_after & ~closes
        begins = tf.where(white, ~white_before | last, begins)
        begins |= opens
        # An apostrophe that begins a word of its own.
        alone = (
            tf.equal(codes, _APOSTROPHE)
            & ~is_token
            & (opens | (~space_before & tf.not_equal(before, _MARK)))
        )
        for ending in _ENDINGS:
            found = alone
            for step, letter in enumerate(ending, 1):
                same = tf.equal(codes, ord(letter)) & ~opens
                found &= _ahead(same, step)
            begins = tf.where(_shifted(found, False), False, begins)
            begins |= _behind(found, len(ending) + 1)
        return tf.where(is_token, opens, begins)

    def _merge(self, *symbols: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Merges the symbols of all words.

        Args:
            *symbols: int32, (symbols,) each: ids, words, first and last places,
                rows.

        Returns:
            The same of what is left.
        """

        def find(ids: tf.Tensor, word: tf.Tensor) -> tf.Tensor:
            """Returns where the best pair of each word begins."""
            count = tf.size(ids)
            left, right = ids[:-1], ids[1:]
            key = tf.bitcast(tf.stack([right, left], axis=1), tf.int64)
            rank = self._pairs.lookup(key)
            same = tf.equal(word[:-1], word[1:])
            rank = tf.where(same, rank, _NO_PAIR)
            owner = word[:-1]
            best = tf.math.segment_min(rank, owner)
            is_best = tf.equal(rank, tf.gather(best, owner)) & (rank < _NO_PAIR)
            # The first of several.
            places = tf.where(is_best, tf.range(count - 1), count)
            first = tf.gather(tf.math.segment_min(places, owner), owner)
            return is_best & tf.equal(first, tf.range(count - 1))

        def step(
            going: tf.Tensor,  # noqa: ARG001
            ids: tf.Tensor,
            word: tf.Tensor,
            first: tf.Tensor,
            last: tf.Tensor,
            row: tf.Tensor,
        ) -> tuple[tf.Tensor, ...]:
            pair = find(ids, word)
            none = tf.zeros([tf.minimum(tf.size(ids), 1)], tf.bool)
            is_left = tf.concat([pair, none], 0)
            is_right = tf.concat([none, pair], 0)
            after = tf.concat([ids[1:], ids[:1]], 0)
            key = tf.bitcast(tf.stack([after, ids], axis=1), tf.int64)
            made = tf.bitwise.bitwise_and(
                self._pairs.lookup(key), (1 << _ID_BITS) - 1
            )
            ids = tf.where(is_left, tf.cast(made, tf.int32), ids)
            last = tf.where(is_left, tf.concat([last[1:], last[:1]], 0), last)
            kept = (
                tf.boolean_mask(values, ~is_right)
                for values in (ids, word, first, last, row)
            )
            return tf.reduce_any(pair), *kept

        shapes = [tf.TensorShape([])] + 5 * [tf.TensorShape([None])]
        # Words of a single symbol and no text at all are done at once.
        going = tf.size(symbols[0]) > 1
        return tuple(
            tf.while_loop(
                lambda going, *_: going,
                step,
                [going, *symbols],
                shape_invariants=shapes,
            )[1:]
        )

    def _tokens(
        self,
        ids: tf.Tensor,
        word: tf.Tensor,
        first: tf.Tensor,
        last: tf.Tensor,
        row: tf.Tensor,
        *,
        before: tf.Tensor,
        after: tf.Tensor,
        rows: tf.Tensor,
    ) -> Tokens:
        """Returns the tokens, without the spaces at their ends if asked.

        Args:
            ids: int32, (tokens,).
            word: int32, (tokens,), the word that a token is of.
            first: int32, (tokens,), place of the first character.
            last: int32, (tokens,), place after the last character.
            row: int32, (tokens,), the text that a token is of.
            before: int32, (words,), spaces at the beginning of an added token;
                -1 for other words.
            after: int32, (words,), likewise, at its end.
            rows: the number of texts.
        """
        if self._trimmed:
            leading, trailing = (
                tf.where(of_word < 0, tf.gather(of_token, ids), of_word)
                for of_token, values in (
                    (self._spaces_before, before),
                    (self._spaces_after, after),
                )
                for of_word in [tf.gather(values, word)]
            )
            if self._first_has_space:
                # A single space is the one that was put there.
                is_first = _changes(row) | tf.equal(first, 0)
                leading = tf.where(is_first & tf.equal(leading, 1), 0, leading)
            first = tf.minimum(first + leading, last)
            trailing = tf.where(last >= trailing, trailing, 0)
            last = tf.maximum(last - trailing, first)

        def ragged(values: tf.Tensor) -> tf.RaggedTensor:
            return tf.RaggedTensor.from_value_rowids(
                values, tf.cast(row, tf.int64), rows
            )

        begins = tf.cast(_changes(word), tf.int32)
        return Tokens(*map(ragged, (ids, first, last, begins)))


def find_obstacle(tokenizer: tokenizers.Tokenizer) -> str | None:
    """Says what of a byte-level tokenizer has no form inside a graph.

    Returns:
        The setting; None if the whole tokenizer has one.
    """
    described = json.loads(tokenizer.to_str())
    if described["normalizer"] is not None:
        return "a normalizer"
    splitter = described["pre_tokenizer"]
    if splitter["type"] != "ByteLevel" or not splitter.get("use_regex", True):
        return "another pre-tokenizer than ByteLevel with use_regex"
    model = described["model"]
    for name, value in _MODEL.items():
        if (model[name] or value) != value:
            return f"`{name}` of its model"
    if max(tokenizer.get_vocab().values()) >= 1 << _ID_BITS:
        return "an id above 16 million"
    if not set(_alphabet()) <= set(model["vocab"]):
        return "a vocabulary without some bytes"
    made = ["".join(_pair(each)) for each in model["merges"]]
    if len(set(made)) < len(made):
        return "two merges with one result"
    contents = [token["content"] for token in described["added_tokens"]]
    if any(token["single_word"] for token in described["added_tokens"]):
        return "an added token that must be a whole word"
    if any(set(map(str.isspace, text)) - {False} for text in contents):
        return "an added token with white space in it"
    for one, other in itertools.permutations(contents, 2):
        ends = (one.endswith(other[:size]) for size in range(1, len(other)))
        if other in one or any(ends):
            return f"added tokens that overlap, {one!r} and {other!r}"
    return None


def _pair(merge: str | Sequence[str]) -> Sequence[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _flags(post_processor: dict[str, Any] | None) -> dict[str, Any]:
    """The flags of the part that trims offsets; empty without one."""
    for part in token_roles.parts(post_processor):
        if "trim_offsets" in part:
            return part
    return {}


def _trims(post_processor: dict[str, Any] | None) -> bool:
    return bool(_flags(post_processor).get("trim_offsets"))


def _table_of_pairs(model: dict[str, Any]) -> tf.lookup.StaticHashTable:
    """The table from two ids to the rank of their merge, and its result."""
    vocabulary = model["vocab"]
    pairs = [_pair(each) for each in model["merges"]]
    ids = np.array(
        [[vocabulary[one], vocabulary[other]] for one, other in pairs], np.int64
    ).reshape(-1, 2)
    made = [vocabulary["".join(pair)] for pair in pairs]
    keys = (ids[:, 0] << 32) + ids[:, 1]
    values = (np.arange(len(pairs)) << _ID_BITS) + np.array(made, np.int64)
    # A table may not be empty.
    found = {
        -1: _NO_PAIR,
        **dict(zip(keys.tolist(), values.tolist(), strict=True)),
    }
    return tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(found), tf.int64),
            tf.constant(list(found.values()), tf.int64),
        ),
        default_value=_NO_PAIR,
    )


def _alphabet() -> list[str]:
    """The characters that stand for the bytes 0 to 255 in vocabularies."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(b if b in kept else next(others)) for b in range(256)]


def _spaces_of_words(
    words: dict[str, int], space: str
) -> tuple[np.ndarray, np.ndarray]:
    """The spaces at both ends of each token, by id."""
    size = 1 + max(words.values())
    before, after = np.zeros(size, np.int32), np.zeros(size, np.int32)

    def is_space(character: str) -> bool:
        return character == space or character.isspace()

    for word, number in words.items():
        before[number] = len([*itertools.takewhile(is_space, word)])
        after[number] = len([*itertools.takewhile(is_space, word[::-1])])
    return before, after


@functools.lru_cache(maxsize=1)
def _classes_of_characters() -> np.ndarray:
    """The class of each code point, read off the library, int32.

    Neighbouring characters of one class are one word, so one of each such run
    says the class of all.
    """
    split = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=True
    ).pre_tokenize_str
    # A space would belong to the word after it.
    codes = np.array(
        [
            code
            for code in range(CODE_POINTS)
            if code not in _SURROGATES and code != _SPACE
        ]
    )
    runs = []
    for begin in range(0, len(codes), _SPLIT_AT_A_TIME):
        some = codes[begin : begin + _SPLIT_AT_A_TIME]
        for _, (first, last) in split("".join(map(chr, some))):
            runs.append(some[first:last])
    classes = np.full(CODE_POINTS, _WHITE, np.int32)
    for kind, beside in ((_LETTER, "x"), (_NUMBER, "1"), (_MARK, "!")):
        lines = [f"{beside}{chr(run[0])}{beside}\n" for run in runs]
        starts = {start for _, (start, _) in split("".join(lines))}
        for number, run in enumerate(runs):
            # No word begins at the character between the two.
            if 4 * number + 1 not in starts:
                classes[run] = kind
    return classes


def _shifted(values: tf.Tensor, first: Any) -> tf.Tensor:
    """Returns the value before each one."""
    start = tf.fill([tf.minimum(tf.size(values), 1)], first)
    return tf.concat([tf.cast(start, values.dtype), values[:-1]], 0)


def _changes(values: tf.Tensor) -> tf.Tensor:
    """Returns where a value differs from the one before, or has none."""
    first = tf.ones([tf.minimum(tf.size(values), 1)], tf.bool)
    return tf.concat([first, tf.not_equal(values[1:], values[:-1])], 0)


def _ahead(flags: tf.Tensor, step: int) -> tf.Tensor:
    """Returns the flag `step` places after each; False beyond the end."""
    none = tf.zeros([tf.minimum(tf.size(flags), step)], tf.bool)
    return tf.concat([flags[step:], none], 0)


def _behind(flags: tf.Tensor, step: int) -> tf.Tensor:
    """Returns the flag `step` places before each; False before the start."""
    size = tf.size(flags)
    none = tf.zeros([tf.minimum(size, step)], tf.bool)
    return tf.concat([none, flags[: tf.maximum(size - step, 0)]], 0)


def _bytes_of(codes: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of each code point in UTF-8, int32."""
    width = tf.ones_like(codes)
    for least in (0x80, 0x800, 0x10000):
        width += tf.cast(codes >= least, tf.int32)
    return width


def _byte(
    codes: tf.Tensor, width: tf.Tensor, character: tf.Tensor
) -> tf.Tensor:
    """Returns the bytes of characters in UTF-8, int32.

    Args:
        codes: code points.
        width: bytes of each that are wanted.
        character: the character of each byte.
    """
    starts = tf.cumsum(width, exclusive=True)
    within = tf.range(tf.size(character)) - tf.gather(starts, character)
    size = tf.gather(_bytes_of(codes), character)
    shift = 6 * (size - 1 - within)
    bits = tf.bitwise.right_shift(tf.gather(codes, character), shift)
    lead = tf.gather(tf.constant([0, 0, 0xC0, 0xE0, 0xF0]), size)
    return tf.where(
        within > 0,
        tf.bitwise.bitwise_or(0x80, tf.bitwise.bitwise_and(bits, 0x3F)),
        tf.bitwise.bitwise_or(lead, bits),
    )
