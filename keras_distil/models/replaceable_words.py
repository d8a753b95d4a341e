"""The words in token ids that another word may replace."""

from typing import NamedTuple

import numpy as np
import tokenizers

from keras_distil.data import (
    EncodedExamples,
    SpecialTokens,
    vocabulary_size,
    words_by_id,
)
from keras_distil.utils import token_roles

# A token of a byte-level tokenizer may end within a character.
_HALF = "\ufffd"


class Words(NamedTuple):
    """Words of some examples, in their order.

    Attributes:
        first: int64, (words,), place of a word's first token in `token_ids`.
        sizes: int64, (words,), number of its tokens.
        example: int64, (words,), the example it is in.
    """

    first: np.ndarray
    sizes: np.ndarray
    example: np.ndarray

    def __len__(self) -> int:
        """Number of words."""
        return len(self.first)


class WordFinder:
    """Finds whole words of letters, of one token or of several.

    A word is a token that begins one and all tokens that continue it: those
    with `##` of WordPiece; those without a space before them of a byte-level
    tokenizer, where a word without a space before it, as the first of a text,
    cannot be told from a part of one and is left out. A word with anything
    else than letters, such as a number, and special tokens are left out.

    Args:
        tokenizer: a tokenizer as `data.load_tokenizer` returns it.

    Attributes:
        whole: bool, (vocabulary,), the tokens that are a word by themselves.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = token_roles.is_byte_level(tokenizer)
        size = vocabulary_size(tokenizer)
        self._begins, self._continues, self._letters, self._halves = (
            np.zeros(size, bool) for _ in range(4)
        )
        for number, token in enumerate(words_by_id(tokenizer)):
            text = token
            if self._byte_level:
                text = token_roles.spell(tokenizer, number) or ""
                begins = text.startswith(" ")
                continues = text[:1].isalnum() or text[:1] == _HALF
                text = text.removeprefix(" ")
            else:
                continues = text.startswith("##")
                begins = not continues
                text = text.removeprefix("##")
            self._begins[number] = begins
            self._continues[number] = continues
            self._letters[number] = text.isalpha()
            self._halves[number] = _HALF in text
        special = list(SpecialTokens.from_tokenizer(tokenizer).ids)
        for flags in (self._begins, self._continues, self._letters):
            flags[special] = False
        self.whole = self._begins & self._letters

    def find(self, examples: EncodedExamples) -> Words:
        """Returns the words of some examples.

        Args:
            examples: of the same tokenizer.
        """
        ids = examples.token_ids
        first = np.flatnonzero(~self._continues[ids])
        sizes = np.diff(np.append(first, len(ids)))
        begins = self._begins[ids[first]]
        letters = np.logical_and.reduceat(self._letters[ids], first)
        if self._byte_level:
            halves = np.logical_or.reduceat(self._halves[ids], first)
            for word in np.flatnonzero(begins & halves):
                tokens = ids[first[word] : first[word] + sizes[word]]
                text = self._tokenizer.decode(tokens.tolist())
                letters[word] = text.removeprefix(" ").isalpha()
        words = begins & letters
        example = np.searchsorted(examples.starts, first[words], "right") - 1
        return Words(first[words], sizes[words], example)
