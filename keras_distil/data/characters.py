"""Words as the character ids that ELMo reads, with NumPy alone."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

MAX_CHARACTERS = 50
# Bytes are 0 to 255; these follow. The model's ids are one higher, so that 0
# remains for padding words.
_BEGIN_SENTENCE = 256
_END_SENTENCE = 257
_BEGIN_WORD = 258
_END_WORD = 259
_PADDING = 260
NUM_CHARACTERS = 262

_SENTENCE_MARKS = {"<S>": [_BEGIN_SENTENCE], "</S>": [_END_SENTENCE]}
_WORDS = re.compile(r"\w+|[^\w\s]")


def split_words(text: str) -> list[str]:
    r"""Splits text into words and single punctuation marks.

    Formula:
        every match of `\w+|[^\w\s]`: a run of letters, digits and
        underscores of any script, or one character that is none of these
        and not white space.

    Args:
        text: string.

    Returns:
        List of strings, without white space.

    Example:
        >>> split_words("Don't panic: it's 42.")
        ['Don', "'", 't', 'panic', ':', 'it', "'", 's', '42', '.']

    Reference:
        None. Differs: the tokenizers of ELMo's authors and of the GLUE
        baseline keep the two parts of a contraction ("do", "n't").
    """
    return _WORDS.findall(text)


def character_ids(words: Sequence[str]) -> np.ndarray:
    """Returns the ids of the characters of each word.

    A word is its UTF-8 bytes between a begin mark and an end mark, padded
    with padding characters to 50. What UTF-8 cannot encode is left out, and
    bytes after the first 48 are cut off, even within a character. The words
    `<S>` and `</S>` are the begin and the end of a sentence. `ElmoEncoder`
    adds them itself, so they need not be passed.

    Formula:
        id = 1 + byte, or 1 + 256 for the begin and 257 for the end of a
        sentence, 258 and 259 for those of a word, 260 for padding. 0 is
        reserved for padding words.

    Args:
        words: sequence of strings, such as `split_words` returns.

    Returns:
        int32, (words, 50), from 1 to 261.

    Raises:
        TypeError: if `words` is one string, or holds anything else.

    Example:
        >>> character_ids(["no", "</S>"])[:, :5].tolist()
        [[259, 111, 112, 260, 261], [259, 258, 260, 261, 261]]

    Reference:
        Peters et al. 2018, arXiv:1802.05365; the mapping of its released
        models, allennlp/data/token_indexers/elmo_indexer.py at
        https://github.com/allenai/allennlp.
        Differs: none.
    """
    if isinstance(words, str) or not all(isinstance(w, str) for w in words):
        raise TypeError(
            "`words` must be a sequence of strings; `split_words` makes one "
            f"of a text. Received: words={words!r}."
        )
    ids = np.full((len(words), MAX_CHARACTERS), _PADDING, "int32")
    for row, word in zip(ids, words, strict=True):
        code = _SENTENCE_MARKS.get(word)
        if code is None:
            code = list(word.encode("utf-8", "ignore")[: MAX_CHARACTERS - 2])
        code = [_BEGIN_WORD, *code, _END_WORD]
        row[: len(code)] = code
    return ids + 1


def character_inputs(
    sentences: Iterable[Sequence[str]], num_words: int | None = None
) -> dict[str, np.ndarray]:
    """Returns a batch of sentences in the form that ELMo models read.

    Args:
        sentences: each a sequence of words.
        num_words: int >= 1, the words in every row: shorter sentences are
            padded, and longer ones cut off at the end. Defaults to the
            length of the longest sentence.

    Returns:
        `{"character_ids": int32 (sentences, words, 50), "padding_mask":
        int32 (sentences, words)}`; both are 0 for padding.

    Raises:
        TypeError: as for `character_ids`.
        ValueError: if `num_words` is less than 1.

    Example:
        >>> inputs = character_inputs([["so", "short"], ["one"]])
        >>> inputs["character_ids"].shape
        (2, 2, 50)
        >>> inputs["padding_mask"].tolist()
        [[1, 1], [1, 0]]
    """
    if num_words is not None and num_words < 1:
        raise ValueError(
            f"`num_words` must be at least 1. Received: num_words={num_words}."
        )
    rows = [character_ids(words)[:num_words] for words in sentences]
    # A model cannot read rows without any words.
    width = num_words or max([1, *map(len, rows)])
    ids = np.zeros((len(rows), width, MAX_CHARACTERS), "int32")
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    padding_mask = (ids[:, :, 0] > 0).astype("int32")
    return {"character_ids": ids, "padding_mask": padding_mask}
