"""Text to token ids, in bulk, as Hugging Face's fast tokenizers do it."""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers

_BATCH = 1024  # paragraphs handed to the Rust library at once
_WORDS_KNOWN = 2**18  # some 40 MB
# A folder with one of them brings a vocabulary.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Ids of the five BERT tokens that stand for no text.

    Attributes:
        pad_id: fills a sequence up to its length.
        unknown_id: stands for a word that the vocabulary cannot spell.
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
        """Looks the five tokens up in a tokenizer's vocabulary.

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

    `tokenizer.json` is read if present. Otherwise `vocab.txt` is, together
    with `do_lower_case` (true if absent), `strip_accents` and
    `tokenize_chinese_chars` of `tokenizer_config.json`. Truncation and
    padding are off either way.

    Args:
        directory: a folder that holds one of the two files.

    Returns:
        A `tokenizers.Tokenizer`.

    Raises:
        FileNotFoundError: if the folder holds neither file.
        ValueError: if `tokenizer.json` or `vocab.txt` cannot be used.
    """
    directory = Path(directory)
    complete = directory / "tokenizer.json"
    vocabulary = directory / "vocab.txt"
    if complete.is_file():
        tokenizer = _from_json(complete)
    elif vocabulary.is_file():
        tokenizer = _from_vocabulary(
            vocabulary, directory / "tokenizer_config.json"
        )
    else:
        raise FileNotFoundError(
            f"No tokenizer in '{directory}': expected tokenizer.json or "
            "vocab.txt there."
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_json(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(
            f"'{path}' is not a readable tokenizer.json: {error}. Copy it "
            "again, or delete it if the folder also holds vocab.txt."
        ) from error


def _from_vocabulary(path: Path, config_path: Path) -> tokenizers.Tokenizer:
    config = {}
    if config_path.is_file():
        config = json.loads(config_path.read_text(encoding="utf-8"))
    with open(path, encoding="utf-8") as file:
        vocabulary = {line.rstrip("\n"): i for i, line in enumerate(file)}
    if "[UNK]" not in vocabulary:
        raise ValueError(
            f"'{path}' has no [UNK] line: it is not the vocabulary of a BERT "
            "WordPiece tokenizer."
        )
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(
            vocabulary, unk_token="[UNK]", max_input_chars_per_word=100
        )
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    special = SpecialTokens.from_tokenizer(tokenizer)
    tokenizer.add_special_tokens(
        [tokenizer.id_to_token(token_id) for token_id in special.ids]
    )
    tokenizer.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", special.sep_id), ("[CLS]", special.cls_id)
    )
    return tokenizer


def vocabulary_hash(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the sha256 of a vocabulary in id order, in hexadecimal.

    Two tokenizers with equal hashes give every id the same token; they may
    still split text differently.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    ordered = sorted((i, token) for token, i in vocabulary.items())
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()


def token_dtype(vocabulary_size: int) -> np.dtype:
    """The smallest type for token ids: uint16 if they fit, else int32."""
    return np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.int32)


def encode_paragraphs(
    tokenizer: tokenizers.Tokenizer, texts: Iterable[str]
) -> Iterator[np.ndarray]:
    """Encodes paragraphs with an `Encoder` of their own, see there."""
    return Encoder(tokenizer).encode(texts)


class Encoder:
    """Encodes paragraphs in batches, lazily and in order.

    No special tokens are added, and a text that spells one, such as a manual
    that explains "[MASK]", is read as ordinary text. (Left to itself the
    library would put the real mask id into the corpus.)

    BERT's tokenizers never look across a space. So what stands between two
    spaces is given to the library when it first comes up, and remembered:
    prose takes a tenth of the time. Tokenizers of other kinds get whole
    texts, on all cores.

    Args:
        tokenizer: as `load_tokenizer` returns it.

    Attributes:
        dtype: of the token ids.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        # Unset, the library warns at every later fork of the process.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self._tokenizer = tokenizer
        self.dtype = token_dtype(
            tokenizer.get_vocab_size(with_added_tokens=True)
        )
        self._known: dict[str, bytes] | None = None
        if _looks_at_words_alone(tokenizer):
            self._known = {}

    def encode(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Encodes paragraphs.

        Args:
            texts: paragraphs; consumed a batch at a time.

        Yields:
            One array of token ids a paragraph, uint16 if the vocabulary has
            at most 65,536 entries, else int32. It is empty if the text has
            no token.
        """
        texts = iter(texts)
        while batch := list(itertools.islice(texts, _BATCH)):
            if self._known is None:
                yield from map(self._array, self._encoded(batch))
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
        for word, encoding in zip(new, self._encoded(new), strict=True):
            self._known[word] = self._array(encoding).tobytes()

    def _encoded(self, batch: list[str]) -> list[tokenizers.Encoding]:
        return _encode_as_text(self._tokenizer, batch)

    def _array(self, encoding: tokenizers.Encoding) -> np.ndarray:
        return np.array(encoding.ids, dtype=self.dtype)


def _looks_at_words_alone(tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether a text's tokens are those of its words, set off by spaces.

    So it is with BERT's normalizer, which changes characters one by one, its
    pre-tokenizer and WordPiece. An added token may hold a space.
    """
    described = json.loads(tokenizer.to_str())
    types = [
        (described[part] or {}).get("type")
        for part in ("normalizer", "pre_tokenizer", "model")
    ]
    return types in (
        ["BertNormalizer", "BertPreTokenizer", "WordPiece"],
        [None, "BertPreTokenizer", "WordPiece"],
    ) and all(token["special"] for token in described["added_tokens"])


def _encode_as_text(
    tokenizer: tokenizers.Tokenizer, batch: list[str]
) -> list[tokenizers.Encoding]:
    previous = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        return tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    finally:
        tokenizer.encode_special_tokens = previous
