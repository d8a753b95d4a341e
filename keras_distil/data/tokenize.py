"""Bulk conversion of text to token ids with Hugging Face's tokenizers."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from keras_distil.data import tokenizer_folder
from keras_distil.data.preset_tokenizer import (
    build_preset_tokenizer,
    is_preset_tokenizer,
)
from keras_distil.data.special_tokens import SpecialTokens, unknown_token
from keras_distil.data.splitting import find_divider, find_splitter
from keras_distil.data.vocabulary import require_id, vocabulary_size

_BATCH = 1024  # paragraphs passed to the Rust library at once
_WORDS_KNOWN = 2**18  # about 40 MB
# A folder with one of these has a vocabulary.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")


def load_tokenizer(directory: str | os.PathLike) -> tokenizers.Tokenizer:
    """Loads the tokenizer of a local Hugging Face directory.

    It gives the same ids as Hugging Face's fast tokenizer of that directory,
    which may be WordPiece, as BERT's, or byte-level BPE, as RoBERTa's.
    `tokenizer.json` is read if present, otherwise `vocab.txt`, or `vocab.json`
    and `merges.txt`; `word_piece`, `byte_level_bpe` and `added_tokens` say
    what is used of `tokenizer_config.json`, `special_tokens_map.json` and
    `added_tokens.json`. Truncation and padding are off.

    The folder of a KerasHub preset has a tokenizer of its own, whose vocabulary
    is read instead; see `preset_tokenizer`.

    Args:
        directory: a folder that holds these files.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        FileNotFoundError: if the folder lacks the files.
        TypeError: if `directory` is not a path.
        ValueError: if a file is damaged or asks for something unsupported.
    """
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(
            "`directory` must be a folder with a tokenizer's files; a KerasHub "
            "preset that is given by its name has none. Received: "
            f"directory={directory!r:.60}."
        )
    path = Path(directory)
    if is_preset_tokenizer(path):
        return build_preset_tokenizer(path)
    return tokenizer_folder.build_tokenizer(path)


def token_dtype(vocabulary_size: int) -> np.dtype:
    """Returns the smallest type for token ids: uint16 if they fit, or int32."""
    return np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.int32)


def encode_texts(
    tokenizer: tokenizers.Tokenizer,
    texts: Sequence[str],
    max_length: int | None = None,
) -> dict[str, np.ndarray]:
    """Encodes some texts as a batch of inputs, padded to the longest.

    Each text is framed as [CLS] text [SEP]. "[MASK]" in a text is the mask.

    Args:
        tokenizer: as returned by `load_tokenizer`.
        texts: the texts.
        max_length: int >= 3, tokens at which a text is cut, with the two that
            frame it; None to cut nothing. A model takes no more than its
            `backbone.max_sequence_length`.

    Returns:
        "token_ids", and "padding_mask", 1 at tokens and 0 at padding; int32,
        (texts, length).

    Raises:
        TypeError: if `texts` is one string, or holds anything else.
        ValueError: if there are no texts, or `max_length` is below 3.
    """
    if isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
        raise TypeError(
            f"`texts` must be a list of strings. Received: texts={texts!r:.80}."
        )
    if not len(texts):
        raise ValueError(
            f"`texts` must hold at least one text. Received: texts={texts!r}."
        )
    if max_length is not None and max_length < 3:
        raise ValueError(
            "`max_length` must be at least 3, for [CLS], one token and [SEP]. "
            f"Received: max_length={max_length}."
        )
    special = SpecialTokens.from_tokenizer(tokenizer)
    body = None if max_length is None else max_length - 2
    rows = [
        [special.cls_id, *encoding.ids[:body], special.sep_id]
        for encoding in tokenizer.encode_batch(
            list(texts), add_special_tokens=False
        )
    ]
    shape = len(rows), max(map(len, rows))
    batch = {
        "token_ids": np.full(shape, special.pad_id, np.int32),
        "padding_mask": np.zeros(shape, np.int32),
    }
    for index, row in enumerate(rows):
        batch["token_ids"][index, : len(row)] = row
        batch["padding_mask"][index, : len(row)] = 1
    return batch


def encode_paragraphs(
    tokenizer: tokenizers.Tokenizer, texts: Iterable[str]
) -> Iterator[np.ndarray]:
    """Encodes paragraphs with a new `Encoder`, see there."""
    return Encoder(tokenizer).encode(texts)


class Encoder:
    """Encodes paragraphs in batches, lazily and in order.

    No special tokens are added. A text that spells an added token, such as
    "[E1]" or "[MASK]", gets the id of that token, as from Hugging Face's
    tokenizers and from an exported student.

    BERT's tokenizers never look across a space, and byte-level ones never
    from the end of a word across a single space. So the library encodes each
    stretch between two such places when it first occurs, and the result is
    remembered: prose takes a fraction of the time. BERT's are cut further, at
    punctuation marks of ASCII, so that a word is encoded once, whatever mark
    stands beside it. Tokenizers of other kinds,
    and those with added tokens that contain white space, get whole texts, on
    all cores; see `splitting`.

    Args:
        tokenizer: as returned by `load_tokenizer`.
        most_words: words that are remembered at a time, of 150 bytes each.
            Defaults to 262,144.

    Attributes:
        dtype: data type of the token ids.
        unknown_id: id of the unknown token; -1 if there is none.
        unknown_token: the unknown token; None if there is none.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        most_words: int | None = None,
    ) -> None:
        # If unset, the library warns at every later fork of the process.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self._tokenizer = tokenizer
        self.dtype = token_dtype(vocabulary_size(tokenizer))
        self.unknown_token = unknown_token(tokenizer)
        self.unknown_id = -1
        if self.unknown_token is not None:
            self.unknown_id = require_id(tokenizer, self.unknown_token)
        self._most_words = most_words
        self._known: dict[str, bytes] | None = None
        self._split = find_splitter(tokenizer)
        self._divide = find_divider(tokenizer)
        if self._split is not None:
            self._known = {}

    def encode(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Encodes paragraphs.

        Args:
            texts: paragraphs; consumed one batch at a time.

        Yields:
            One array of token ids per paragraph, uint16 if the vocabulary has
            at most 65,536 entries, else int32. It is empty if the text has
            no tokens.
        """
        texts = iter(texts)
        while batch := list(itertools.islice(texts, _BATCH)):
            if self._known is None or self._split is None:
                yield from map(self._array, self._encode_texts(batch))
                continue
            words = [self._split(text) for text in batch]
            self._learn(words)
            for of_text in words:
                joined = b"".join(map(self._known.__getitem__, of_text))
                yield np.frombuffer(joined, self.dtype)

    def _learn(self, texts: Iterable[list[str]]) -> None:
        if self._known is None or len(self._known) > (
            self._most_words or _WORDS_KNOWN
        ):
            self._known = {}
        # A difference of sets would go through all known words each time.
        found = set(itertools.chain.from_iterable(texts))
        new = [word for word in found if word not in self._known]
        if self._divide is None:
            self._read(new, self._known)
            return
        parts = [self._divide(word) for word in new]
        of_parts = set(itertools.chain.from_iterable(parts))
        unread = [part for part in of_parts if part not in self._known]
        self._read(unread, self._known)
        for word, own in zip(new, parts, strict=True):
            joined = b"".join(map(self._known.__getitem__, own))
            self._known[word] = joined

    def _read(self, new: list[str], known: dict[str, bytes]) -> None:
        """Has the library encode what is not known."""
        for word, encoding in zip(new, self._encode_texts(new), strict=True):
            known[word] = self._array(encoding).tobytes()

    def _encode_texts(self, batch: list[str]) -> list[tokenizers.Encoding]:
        return _encode_batch(self._tokenizer, batch)

    def _array(self, encoding: tokenizers.Encoding) -> np.ndarray:
        return np.array(encoding.ids, dtype=self.dtype)


def _encode_batch(
    tokenizer: tokenizers.Tokenizer, batch: list[str]
) -> list[tokenizers.Encoding]:
    return tokenizer.encode_batch_fast(batch, add_special_tokens=False)
