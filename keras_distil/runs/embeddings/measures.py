"""Scores and costs of the models of a run of embeddings."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from keras_hub.models import TextEmbedder

from keras_distil import config, edge, evaluation, models
from keras_distil.benchmark import latency, size
from keras_distil.evaluation.neighbours import neighbour_agreement
from keras_distil.evaluation.vectors import VectorFunction, encode
from keras_distil.runs.run_folder import Run
from keras_distil.utils import disk

# Texts whose encoding is timed, in batches, and how often.
_TIMED_BATCH = 64
_TIMED_TEXTS = 256
_TIMES = 3


@dataclasses.dataclass(frozen=True)
class Measures:
    """The files that a recipe scores embedders on.

    Attributes:
        sts: sentence pairs with a similarity, if there are any.
        retrieval: queries and documents, if there are any.
        missing: a line for each that is not there.
    """

    sts: evaluation.STSEvaluator | None
    retrieval: evaluation.RetrievalEvaluator | None
    missing: list[str]


def open_measures(recipe: config.Recipe) -> Measures:
    """Reads the files of `evaluate.sts` and `evaluate.retrieval`.

    Raises:
        ValueError: if one is damaged.
    """
    missing = []
    root = Path(recipe.data.root or ".")
    paths: dict[str, Path | None] = {}
    for name in ("sts", "retrieval"):
        given = getattr(recipe.evaluate, name)
        paths[name] = None if given is None else root / given
        path = paths[name]
        if path is not None and not path.exists():
            missing.append(
                f"`evaluate.{name}` is {path}, which is not there: the table "
                "has no such columns."
            )
            paths[name] = None
    sts, retrieval = paths["sts"], paths["retrieval"]
    size = recipe.evaluate.batch_size
    return Measures(
        None if sts is None else evaluation.STSEvaluator(sts, batch_size=size),
        None
        if retrieval is None
        else evaluation.RetrievalEvaluator(retrieval, batch_size=size),
        missing,
    )


class Scorer:
    """Scores embedders on the same texts, the teacher first.

    Args:
        run: the run.
        held_out: held-out texts.
        measures: what else models are scored on.

    Attributes:
        vectors: by row, the vectors of the held-out texts.
    """

    def __init__(
        self, run: Run, held_out: Sequence[str], measures: Measures
    ) -> None:
        self._run = run
        self._held_out = held_out
        self._measures = measures
        self.vectors: dict[str, np.ndarray] = {}

    def score(
        self, row: str, model: TextEmbedder | VectorFunction
    ) -> dict[str, float]:
        """Returns the scores of a row of the table, 0 to 1, by metric."""
        self._run.progress.say(f"Score: {row}")
        found: dict[str, float] = {}
        if self._measures.sts is not None:
            scores = self._measures.sts.evaluate(model)
            found |= {f"sts_{name}": x for name, x in scores.items()}
        if self._measures.retrieval is not None:
            found |= self._measures.retrieval.evaluate(model)
        self.vectors[row] = encode(
            model,
            self._held_out,
            role="text",
            batch_size=self._run.recipe.evaluate.batch_size,
        )
        teacher = next(iter(self.vectors.values()))
        found["teacher_agreement"] = neighbour_agreement(
            teacher, self.vectors[row]
        )
        return found

    def typical_texts(self) -> list[str]:
        """Returns the texts whose encoding is timed."""
        sts = self._measures.sts
        texts = self._held_out if sts is None else [*sts.first, *sts.second]
        return list(texts[:_TIMED_TEXTS])


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A model whose costs are measured.

    Attributes:
        embed: from a list of texts to their vectors, in batches of 64.
        parameters: number of its weights.
        size_mb: their size, in 1e6 bytes.
    """

    embed: VectorFunction
    parameters: int
    size_mb: float

    @classmethod
    def of_model(cls, model: TextEmbedder) -> "Contestant":
        """Returns a model, which is timed in float32."""
        plain = models.with_dtype(model, "float32")
        return cls(
            functools.partial(plain.encode_text, batch_size=_TIMED_BATCH),
            size.parameter_count(model),
            size.size_mb(model),
        )

    @classmethod
    def of_table(cls, table: edge.StaticStudent) -> "Contestant":
        """Returns an exported table of token vectors."""
        file = table.folder / edge.TABLE_FILE
        return cls(table.embed, table.size, disk.file_size_mb(file))


def measure_costs(
    run: Run, contestants: Mapping[str, Contestant], texts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measures parameters, size, latency and speed, tokenization included.

    Args:
        run: the run.
        contestants: by row.
        texts: texts to encode. The latency is that of the one of median
            length.

    Returns:
        By row, values by metric.
    """
    run.progress.say("Measure latency and texts per second")
    typical = sorted(texts, key=len)[len(texts) // 2]
    alone = latency.measure_latency_ms(
        {
            row: functools.partial(model.embed, [typical])
            for row, model in contestants.items()
        }
    )
    together = latency.measure_latency_ms(
        {
            row: functools.partial(model.embed, list(texts))
            for row, model in contestants.items()
        },
        runs=_TIMES,
        warmup=1,
    )
    return {
        row: {
            "parameters": model.parameters,
            "size_mb": round(model.size_mb, 1),
            "latency_ms": round(alone[row], 3),
            "texts_per_second": round(1e3 * len(texts) / together[row], 1),
        }
        for row, model in contestants.items()
    }
