"""How well an embedding model finds the documents that answer a query."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from keras_hub.models import TextEmbedder

from keras_distil.data import RetrievalSet, load_retrieval, squad_retrieval
from keras_distil.evaluation.vectors import (
    BLOCK_DOCUMENTS,
    Found,
    VectorFunction,
    encode,
    search,
)
from keras_distil.utils.checks import check_count

_RANKED = 10
_RECALLS = (1, 10, 100)


class RetrievalEvaluator:
    """Scores embedding models on finding documents by cosine.

    The search is exact and goes through the documents in blocks, whose
    vectors are dropped after it.

    Args:
        source: a folder in the layout of BEIR, see `data.load_retrieval`, or
            a `data.RetrievalSet`.
        qrels: name of the file of relevances in the folder.
        batch_size: int >= 1, texts per batch.

    Attributes:
        texts: the `RetrievalSet`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: as for `data.load_retrieval`.

    Example:
        >>> evaluator = RetrievalEvaluator("scifact")       # doctest: +SKIP
        >>> evaluator.evaluate(model)["ndcg@10"]            # doctest: +SKIP
        0.645

    Reference:
        Thakur et al. 2021, arXiv:2104.08663.
        Differs: queries without a relevant document count nowhere.
    """

    def __init__(
        self,
        source: str | os.PathLike | RetrievalSet,
        *,
        qrels: str = "qrels.tsv",
        batch_size: int = 64,
    ) -> None:
        self.batch_size = check_count("batch_size", batch_size)
        if not isinstance(source, RetrievalSet):
            source = load_retrieval(source, qrels=qrels)
        self.texts = source

    @classmethod
    def from_squad(
        cls,
        questions: str | os.PathLike,
        paragraphs: Sequence[str | os.PathLike] = (),
        **options: Any,
    ) -> "RetrievalEvaluator":
        """Makes an evaluator of SQuAD: from a question to its paragraph.

        Args:
            questions: see `data.squad_retrieval`.
            paragraphs: see `data.squad_retrieval`.
            **options: arguments of the class.
        """
        return cls(squad_retrieval(questions, paragraphs), **options)

    def find(
        self, model: TextEmbedder | VectorFunction, count: int = 100
    ) -> Found:
        """Returns the nearest documents of each query.

        Args:
            model: an embedding model, which puts its prompts before queries
                and documents, or a function from a list of texts to vectors.
            count: int >= 1, documents per query.

        Returns:
            Places of documents and their cosines, in the order of
            `texts.queries`.
        """
        queries = encode(
            model,
            list(self.texts.queries.values()),
            role="query",
            batch_size=self.batch_size,
        )
        return search(queries, self._blocks(model), count)

    def evaluate(
        self, model: TextEmbedder | VectorFunction
    ) -> dict[str, float]:
        """Returns the scores of a model, 0 to 1, means over the queries.

        Args:
            model: as for `find`.

        Returns:
            "ndcg@10", whose gains are the relevances; "recall@1", "recall@10"
            and "recall@100", the share of a query's relevant documents that
            are among the nearest; "mrr@10", one over the rank of the first
            relevant document, 0 if it is not among the nearest 10.
        """
        found = self.find(model, max(_RECALLS)).documents
        names = list(self.texts.documents)
        scores = [
            score_query(relevant, [names[place] for place in places])
            for relevant, places in zip(
                self.texts.relevant.values(), found, strict=True
            )
        ]
        return {
            name: float(np.mean([each[name] for each in scores]))
            for name in scores[0]
        }

    def _blocks(
        self, model: TextEmbedder | VectorFunction
    ) -> Iterator[np.ndarray]:
        texts = iter(self.texts.documents.values())
        while block := list(itertools.islice(texts, BLOCK_DOCUMENTS)):
            yield encode(
                model, block, role="documents", batch_size=self.batch_size
            )


def score_query(
    relevant: dict[str, float], found: Sequence[str]
) -> dict[str, float]:
    """Returns the scores of one query.

    Formula:
        dcg = sum over ranks i from 1 to 10 of relevance_i / log2(i + 1)
        ndcg@10 = dcg / dcg of the best order

    Args:
        relevant: the relevance of documents, above 0, by their ids.
        found: ids of the nearest documents, the nearest first.

    Returns:
        The scores as from `RetrievalEvaluator.evaluate`.

    Reference:
        Jarvelin and Kekalainen 2002, doi:10.1145/582415.582418, with linear
        gains as in trec_eval. With relevances of 1 also the measure of
        sentence-transformers.
    """
    gains = [relevant.get(document, 0.0) for document in found]
    best = sorted(relevant.values(), reverse=True)
    ranks = [rank for rank, gain in enumerate(gains[:_RANKED], 1) if gain]
    return {
        "ndcg@10": _gain(gains) / _gain(best),
        **{
            f"recall@{count}": float(np.count_nonzero(gains[:count]))
            / len(relevant)
            for count in _RECALLS
        },
        "mrr@10": 1.0 / ranks[0] if ranks else 0.0,
    }


def _gain(gains: Sequence[float]) -> float:
    """Returns the discounted cumulative gain of the first ten."""
    return sum(
        gain / np.log2(rank + 1) for rank, gain in enumerate(gains[:_RANKED], 1)
    )
