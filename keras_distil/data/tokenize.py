"""Bulk conversion of text to token ids with Hugging Face's tokenizers."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers

from keras_distil.data import tokenizer_folder

_BATCH = 1024  # paragraphs passed to the Rust library at once
_WORDS_KNOWN = 2**18  # about 40 MB
# A folder with one of these has a vocabulary.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Ids of the five BERT tokens that do not represent text.

    Attributes:
        pad_id: fills a sequence up to its length.
        unknown_id: represents a word that the vocabulary cannot spell.
        cls_id: starts a sequence.
        sep_id: ends a sequence and separates paragraphs.
        mask_id: hides a token that is to be predicted.
    """

    pad_id: int
    unknown_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids, ascending, without repeats."""
        return tuple(sorted(set(dataclasses.astuple(self))))

    @classmethod
    def from_tokenizer(cls, tokenizer: tokenizers.Tokenizer) -> "SpecialTokens":
        """Looks up the five tokens in a tokenizer's vocabulary.

        Raises:
            ValueError: if the vocabulary lacks one of them.
        """
        names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        missing = [name for name in names if name not in vocabulary]
        if missing:
            raise ValueError(
                f"The vocabulary lacks {', '.join(missing)}. Only BERT-style "
                "vocabularies with [PAD], [UNK], [CLS], [SEP] and [MASK] are "
                "supported."
            )
        return cls(*(vocabulary[name] for name in names))


def load_tokenizer(directory: str | os.PathLike) -> tokenizers.Tokenizer:
    """Loads the tokenizer of a local Hugging Face directory.

    It gives the same ids as Hugging Face's fast tokenizer of that directory.
    `tokenizer.json` is read if present, otherwise `vocab.txt`;
    `tokenizer_folder` says what is used of `tokenizer_config.json`,
    `special_tokens_map.json` and `added_tokens.json`. Truncation and padding
    are off.

    Args:
        directory: a folder that holds one of the two files.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        FileNotFoundError: if the folder holds neither file.
        ValueError: if a file is damaged or asks for something unsupported.
    """
    directory = Path(directory)
    tokenizer = tokenizer_folder.build_tokenizer(directory)
    try:
        special = SpecialTokens.from_tokenizer(tokenizer)
    except ValueError as error:
        raise ValueError(f"'{directory}': {error}") from None
    if tokenizer.post_processor is None:
        tokenizer.post_processor = tokenizers.processors.BertProcessing(
            ("[SEP]", special.sep_id), ("[CLS]", special.cls_id)
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    _check_frame(directory, tokenizer, special)
    return tokenizer


def _check_frame(
    directory: Path, tokenizer: tokenizers.Tokenizer, special: SpecialTokens
) -> None:
    """Refuses a tokenizer that does not frame texts as BERT's does."""
    text = "[MASK]"
    try:
        encoding = tokenizer.encode(text, text)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"The tokenizer in '{directory}' cannot encode: {error!s:.200}."
        ) from error
    cls, sep, mask = special.cls_id, special.sep_id, special.mask_id
    if encoding.ids != [cls, mask, sep, mask, sep] or (
        encoding.type_ids != [0, 0, 0, 1, 1]
    ):
        raise ValueError(
            f"`post_processor` in '{directory / 'tokenizer.json'}' must turn "
            "two texts into `[CLS] A [SEP] B [SEP]`, with segments 0 and 1. "
            f"Received: {' '.join(encoding.tokens)}."
        )


def vocabulary_size(tokenizer: tokenizers.Tokenizer) -> int:
    """Returns the number of ids that texts can have: the largest, plus 1.

    A vocabulary may have gaps (a repeated line in `vocab.txt` leaves one), so
    this is not its number of tokens. Empty lines represent no text and do not
    count.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    return 1 + max((i for token, i in vocabulary.items() if token), default=-1)


def vocabulary_hash(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the sha256 of a vocabulary in id order, in hexadecimal.

    Two tokenizers with equal hashes give every id the same token; they may
    still split text differently.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ordered = sorted((i, token) for token, i in vocabulary.items())
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()


def tokenizer_hash(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the sha256 of a vocabulary and its text normalization.

    Tokenizers with equal hashes give the same ids to the same text.
    """
    normalizer = json.loads(tokenizer.to_str())["normalizer"]
    described = [vocabulary_hash(tokenizer), normalizer]
    content = json.dumps(described, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def words_by_id(
    tokenizer: tokenizers.Tokenizer, missing: str = " {}"
) -> list[str]:
    """Returns the tokens in the order of their ids.

    Args:
        tokenizer: as returned by `load_tokenizer`.
        missing: used for ids without a token, with `{}` for the id. Defaults
            to a text that is not a word, different for each id.
    """
    words = [missing.format(i) for i in range(vocabulary_size(tokenizer))]
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        if token:
            words[i] = token
    return words


def token_dtype(vocabulary_size: int) -> np.dtype:
    """Returns the smallest type for token ids: uint16 if they fit, or int32."""
    return np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.int32)


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

    BERT's tokenizers never look across a space. So the library encodes each
    stretch between two spaces when it first occurs, and the result is
    remembered: prose takes a tenth of the time. Tokenizers of other kinds, and
    those with added tokens that contain white space, get whole texts, on all
    cores.

    Args:
        tokenizer: as returned by `load_tokenizer`.

    Attributes:
        dtype: data type of the token ids.
        unknown_id: id of [UNK]; -1 if the vocabulary lacks it.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        # If unset, the library warns at every later fork of the process.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self._tokenizer = tokenizer
        self.dtype = token_dtype(vocabulary_size(tokenizer))
        unknown_id = tokenizer.token_to_id("[UNK]")
        self.unknown_id = -1 if unknown_id is None else unknown_id
        self._known: dict[str, bytes] | None = None
        if _splits_at_spaces(tokenizer):
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
            if self._known is None:
                yield from map(self._array, self._encode_texts(batch))
                continue
            words = [text.split(" ") for text in batch]
            self._learn(words)
            for of_text in words:
                joined = b"".join(map(self._known.__getitem__, of_text))
                yield np.frombuffer(joined, self.dtype)

    def _learn(self, texts: Iterable[list[str]]) -> None:
        if self._known is None or len(self._known) > _WORDS_KNOWN:
            self._known = {}
        new = list({w for words in texts for w in words} - self._known.keys())
        for word, encoding in zip(new, self._encode_texts(new), strict=True):
            self._known[word] = self._array(encoding).tobytes()

    def _encode_texts(self, batch: list[str]) -> list[tokenizers.Encoding]:
        return _encode_batch(self._tokenizer, batch)

    def _array(self, encoding: tokenizers.Encoding) -> np.ndarray:
        return np.array(encoding.ids, dtype=self.dtype)


def _splits_at_spaces(tokenizer: tokenizers.Tokenizer) -> bool:
    """Checks whether a text's tokens are those of its single words.

    This holds for BERT's normalizer, which changes characters one by one, its
    pre-tokenizer and WordPiece, unless an added token contains white space,
    either as written or as normalized before the search for it.
    """
    described = json.loads(tokenizer.to_str())
    types = [
        (described[part] or {}).get("type")
        for part in ("normalizer", "pre_tokenizer", "model")
    ]
    return types in (
        ["BertNormalizer", "BertPreTokenizer", "WordPiece"],
        [None, "BertPreTokenizer", "WordPiece"],
    ) and not any(
        any(map(str.isspace, text))
        for token in described["added_tokens"]
        for text in (
            token["content"],
            normalized(tokenizer, token["content"]),
        )
    )


def normalized(tokenizer: tokenizers.Tokenizer, text: str) -> str:
    """Applies the tokenizer's normalizer, if it has one."""
    if tokenizer.normalizer is None:
        return text
    return tokenizer.normalizer.normalize_str(text)


def _encode_batch(
    tokenizer: tokenizers.Tokenizer, batch: list[str]
) -> list[tokenizers.Encoding]:
    return tokenizer.encode_batch_fast(batch, add_special_tokens=False)
