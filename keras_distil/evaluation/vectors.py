"""Vectors of texts from whatever makes them, and their exact search."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import keras
import numpy as np
from keras_hub.models import TextEmbedder

from keras_distil.utils.checks import check_count

# A function from texts to their vectors, (texts, dimension).
VectorFunction: TypeAlias = Callable[[list[str]], np.ndarray]
Role: TypeAlias = Literal["text", "query", "documents"]

# The products of a block take 32 MB, and the places of the best 64 MB.
_BLOCK_QUERIES = 512
BLOCK_DOCUMENTS = 16_384


def encode(
    model: TextEmbedder | VectorFunction,
    texts: Sequence[str],
    *,
    role: Role,
    batch_size: int,
) -> np.ndarray:
    """Returns the vectors of texts, float32, (texts, dimension).

    Args:
        model: an embedding model, which puts its own prompts before texts, or
            a function of a list of texts, for example of an exported model.
        texts: the texts.
        role: what the texts are, for the prompt.
        batch_size: int, texts per batch of an embedding model.

    Raises:
        TypeError: if `model` is neither.
        ValueError: if the vectors are not finite numbers, one row per text.
    """
    if isinstance(model, TextEmbedder):
        # KerasHub's own classes have no words for some roles.
        method = getattr(model, f"encode_{role}", model.encode_text)
        # Texts of a batch are padded to the longest: alike ones go together.
        order = np.argsort([len(text) for text in texts], kind="stable")
        ordered = [texts[place] for place in order]
        vectors = np.asarray(method(ordered, batch_size=batch_size, verbose=0))
        vectors[order] = vectors.copy()
    elif callable(model) and not isinstance(model, keras.Model):
        vectors = model(list(texts))
    else:
        raise TypeError(
            "`model` must be an embedding model or a function from texts to "
            f"vectors. Received: {type(model).__name__}."
        )
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise ValueError(
            f"`model` must return one vector per text, ({len(texts)}, "
            f"dimension). Received: shape {vectors.shape}."
        )
    if not np.isfinite(vectors).all():
        raise ValueError(
            "`model` must return finite vectors. Received: NaN or infinity "
            f"for {texts[int(np.argmin(np.isfinite(vectors).all(1)))]!r:.60}."
        )
    return vectors


class Found(NamedTuple):
    """The nearest documents of each query, the nearest first.

    Attributes:
        documents: int64, (queries, count), their places.
        scores: float32, (queries, count), their cosines.
    """

    documents: np.ndarray
    scores: np.ndarray


def search(
    queries: np.ndarray, blocks: Iterator[np.ndarray], count: int
) -> Found:
    """Finds the documents whose vectors have the largest cosine, exactly.

    Of equal cosines, the earlier document is nearer. Memory depends on the
    size of a block, not on the number of documents.

    Args:
        queries: float, (queries, dimension).
        blocks: vectors of consecutive documents, (documents, dimension) each.
        count: int >= 1, documents per query; fewer if there are fewer.

    Returns:
        The documents, counted from 0 over all blocks, and their cosines.
    """
    count = check_count("count", count)
    queries = unit_rows(queries)
    found = Found(
        np.zeros((len(queries), 0), np.int64),
        np.zeros((len(queries), 0), np.float32),
    )
    first = 0
    for block in blocks:
        block = unit_rows(block)
        parts = [
            _nearest(queries[begin : begin + _BLOCK_QUERIES] @ block.T, count)
            for begin in range(0, len(queries), _BLOCK_QUERIES)
        ]
        documents = np.concatenate([part.documents for part in parts]) + first
        scores = np.concatenate([part.scores for part in parts])
        # The earlier ones stand first, so a stable order keeps them first.
        found = _sorted(
            np.concatenate([found.documents, documents], axis=1),
            np.concatenate([found.scores, scores], axis=1),
            count,
        )
        first += len(block)
    return found


def blocks_of(
    vectors: np.ndarray, size: int = BLOCK_DOCUMENTS
) -> Iterator[np.ndarray]:
    """Yields consecutive rows of vectors, which may lie on disk."""
    for begin in range(0, len(vectors), size):
        yield vectors[begin : begin + size]


def unit_rows(vectors: Any) -> np.ndarray:
    """Returns vectors of length 1, float32; zero stays zero."""
    vectors = np.asarray(vectors, np.float32)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return vectors / np.where(norms > 0.0, norms, 1.0)[:, np.newaxis]


def _nearest(scores: np.ndarray, count: int) -> Found:
    """Returns the best documents of a block, earlier ones first if equal."""
    count = min(count, scores.shape[1])
    places = np.argpartition(scores, -count, axis=1)[:, -count:]
    best = np.take_along_axis(scores, places, axis=1)
    # Which of several equal ones the partition takes is arbitrary.
    least = best.min(axis=1, keepdims=True)
    ties = (scores == least).sum(axis=1) > (best == least).sum(axis=1)
    for row in np.flatnonzero(ties):
        places[row] = np.argsort(-scores[row], kind="stable")[:count]
    places = np.sort(places, axis=1)
    return _sorted(places, np.take_along_axis(scores, places, axis=1), count)


def _sorted(documents: np.ndarray, scores: np.ndarray, count: int) -> Found:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return Found(
        np.take_along_axis(documents, order, axis=1).astype(np.int64),
        np.take_along_axis(scores, order, axis=1),
    )
