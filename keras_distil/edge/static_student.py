"""Runs a static table of token vectors, by NumPy and `tokenizers` alone."""

import functools
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.edge.files import (
    CARD_FILE,
    LITERT_KINDS,
    STATIC_KIND,
    TOKENIZER_FILE,
    Keys,
    Prompts,
    check_texts,
    load_tokenizer,
    name_file_in_errors,
    read_card,
)
from keras_distil.edge.known_words import KnownWords

TABLE_FILE = "vectors.bin"
_SCALE_BYTES = 4

_CARD: Keys = {
    "kind": (str, None),
    "precision": (str, None),
    "max_length": (int, None),
    "tokens": (int, None),
    "dimension": (int, None),
}
_OTHER_KINDS = dict.fromkeys(LITERT_KINDS, "edge.Student")
# Texts at a time. Their vectors fit a processor's cache.
_BATCH = 64


class StaticStudent:
    """A table of token vectors that `export.export_static_table` wrote.

    The table stays on disk and is mapped into memory, so only the rows that
    are read take memory.

    Formula:
        vector = unit(sum over the text's tokens of scale[token] * row[token])

    Args:
        folder: the export's folder.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, of a later version or of another
            kind of export.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        path = self.folder / CARD_FILE
        card = read_card(path, _CARD, (STATIC_KIND,), _OTHER_KINDS)
        self.max_length: int = card["max_length"]
        self.precision: str = card["precision"]
        self._prompts = Prompts.from_card(card, path)
        self.dimension: int = card["dimension"]
        self._table = _map_table(
            self.folder / TABLE_FILE, card["tokens"], self.dimension
        )

    @property
    def size(self) -> int:
        """How many numbers the table has, without its scales."""
        return len(self._table) * self.dimension

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The `tokenizers.Tokenizer` of the table's rows."""
        tokenizer = load_tokenizer(self.folder)
        tokenizer.no_padding()
        tokenizer.enable_truncation(self._most_tokens(tokenizer))
        return tokenizer

    @functools.cached_property
    def _words(self) -> KnownWords:
        return KnownWords(self.tokenizer, self._most_tokens(self.tokenizer))

    def _most_tokens(self, tokenizer: Any) -> int:
        # Those that frame a text are not asked for: their rows are zero.
        framing = tokenizer.num_special_tokens_to_add(False)
        return max(self.max_length - framing, 1)

    def embed(
        self, texts: str | Sequence[str], prompt_name: str | None = None
    ) -> np.ndarray:
        """Returns the vectors of texts.

        Args:
            texts: a text, or a list of them.
            prompt_name: which of the model's prompts is put before each; None
                for its default prompt, if there is one.

        Returns:
            float32, (texts, dimension); 0 for a text without a known token.

        Raises:
            TypeError: if a text is not a string.
            ValueError: if a text is empty, there are none, the prompt is
                unknown, or tokenizer and table do not belong together.
        """
        joined = self._prompts.join(check_texts(texts), prompt_name)
        words = self._words
        vectors = np.empty((len(joined), self.dimension), np.float32)
        for start in range(0, len(joined), _BATCH):
            batch = joined[start : start + _BATCH]
            with name_file_in_errors(self.folder / TOKENIZER_FILE):
                ids = words.ids(batch)
            vectors[start : start + _BATCH] = self.sum_rows(ids)
        return vectors

    def sum_rows(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        """Returns the vectors of texts that are token ids already.

        Args:
            texts: the ids of each text.

        Returns:
            float32, (texts, dimension).

        Raises:
            ValueError: if the table has no such rows, or is damaged.
        """
        flat = np.fromiter(itertools.chain.from_iterable(texts), np.int64)
        try:
            read = self._table.take(flat)
        except IndexError as error:
            raise ValueError(
                f"{self.folder / TABLE_FILE} has {len(self._table)} rows, "
                f"fewer than {TOKENIZER_FILE} has tokens: the two belong to "
                "different exports."
            ) from error
        rows, scales = read["row"].astype(np.float32), read["scale"]
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        start = 0
        for vector, ids in zip(vectors, texts, strict=True):
            place = slice(start, start + len(ids))
            # The sum of the scaled rows, without a copy of them.
            np.dot(scales[place], rows[place], out=vector)
            start += len(ids)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise ValueError(
                f"{self.folder / TABLE_FILE} is damaged: it has scales that "
                "are not numbers. Export it again."
            )
        vectors /= np.where(lengths == 0.0, 1.0, lengths)
        return vectors


def _map_table(path: Path, tokens: int, dimension: int) -> np.ndarray:
    """Maps a table into memory: one record of a scale and a row per token."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    size, expected = path.stat().st_size, tokens * (_SCALE_BYTES + dimension)
    if size != expected:
        raise ValueError(
            f"{path} must have {expected:,} bytes, of {tokens:,} tokens with "
            f"{dimension:,} numbers each, as {CARD_FILE} says. Received: "
            f"{size:,} bytes. It is damaged, or of another export."
        )
    # A plain array is faster to index than NumPy's map of a file.
    return np.memmap(path, row_type(dimension), "r").view(np.ndarray)


def row_type(dimension: int) -> np.dtype:
    """Returns the type of a record of the table."""
    return np.dtype([("scale", "<f4"), ("row", "i1", (dimension,))])
