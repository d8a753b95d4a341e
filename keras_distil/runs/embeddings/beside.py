"""Other embedders, which a run scores and times beside its own."""

import dataclasses
from pathlib import Path

from keras_hub.models import TextEmbedder

from keras_distil import config, edge, models
from keras_distil.evaluation.vectors import VectorFunction
from keras_distil.runs.embeddings.measures import Contestant

_HUB = "hf://"


@dataclasses.dataclass(frozen=True)
class Beside:
    """An embedder of `evaluate.beside`.

    Attributes:
        scored: what makes its vectors.
        contestant: the same to be timed, in float32 or as a table.
    """

    scored: TextEmbedder | VectorFunction
    contestant: Contestant


def list_missing(recipe: config.Recipe) -> list[str]:
    """Returns a line for each model that is not there."""
    return [
        f"`evaluate.beside` has {source} for {row!r}, which is not there: the "
        "table has no such row."
        for row, source in recipe.evaluate.beside.items()
        if _is_missing(source)
    ]


def open_beside(recipe: config.Recipe) -> dict[str, Beside]:
    """Loads the models of `evaluate.beside` that are there, by row.

    Raises:
        ValueError: if one is damaged, or no embedder.
    """
    return {
        row: _open(source)
        for row, source in recipe.evaluate.beside.items()
        if not _is_missing(source)
    }


def _open(source: str) -> Beside:
    if Path(source, edge.TABLE_FILE).is_file():
        table = edge.StaticStudent(source)
        return Beside(table.embed, Contestant.of_table(table))
    model = models.load_embedding_model(source, dtype="float32")
    return Beside(model, Contestant.of_model(model))


def _is_missing(source: str) -> bool:
    """Whether this is a path of nothing; presets have no slash."""
    is_path = "/" in source or source.endswith(".keras")
    is_local = is_path and not source.startswith(_HUB)
    return is_local and not Path(source).exists()
