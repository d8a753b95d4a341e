"""Texts on which a sentence embedder's exports are compared and fitted."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from keras_hub.models import TextEmbedder

from keras_distil import config, data, evaluation, export
from keras_distil.export.parity import OutputFunction
from keras_distil.models.text_preprocessor import TextPreprocessor
from keras_distil.runs.embeddings.measures import open_measures
from keras_distil.runs.embeddings.texts import open_corpus
from keras_distil.utils.progress import Progress


def make_examples(
    recipe: config.Recipe,
    model: TextEmbedder,
    progress: Progress,
    *,
    compared: int,
    fitted: int,
) -> tuple[export.Examples | None, export.Examples | None]:
    """Returns held-out texts, with a score, and training texts.

    Args:
        recipe: names the texts, and pairs of sentences with a similarity.
        model: the embedder, which reads the texts.
        progress: where to report to.
        compared: int >= 1, held-out texts on which vectors are compared.
        fitted: int >= 1, training texts that 8-bit weights are fitted to.

    Returns:
        The two; None each if the recipe has no such texts, or the model reads
        none.
    """
    embeds = recipe.distill is not None and recipe.distill.embeds
    if not embeds or not isinstance(model.preprocessor, TextPreprocessor):
        return None, None
    corpus = open_corpus(recipe, progress)
    sts = open_measures(recipe).sts
    held_out = _examples(model, corpus.held_out.spaced(compared)[:])
    if sts is not None:
        held_out = dataclasses.replace(held_out, score=_score(model, sts))
    return held_out, _examples(model, corpus.train.spaced(fitted)[:])


def _examples(model: TextEmbedder, texts: Sequence[str]) -> export.Examples:
    batches = data.padded_batches(
        model.preprocessor.encode(texts), batch_size=len(texts)
    )
    made = export.Examples.from_inputs(
        (inputs for _, inputs in batches), len(texts)
    )
    return dataclasses.replace(made, texts=texts)


def _score(
    model: TextEmbedder, sts: evaluation.STSEvaluator
) -> Callable[[OutputFunction], float]:
    """Returns a function from a runner to its correlation, 0 to 1."""

    def score(run: OutputFunction) -> float:
        def embed(texts: Sequence[str]) -> np.ndarray:
            places, vectors = [], []
            for rows, inputs in data.padded_batches(
                model.preprocessor.encode(list(texts)),
                batch_size=sts.batch_size,
            ):
                places.append(rows)
                vectors.append(run(inputs))
            return np.concatenate(vectors)[np.argsort(np.concatenate(places))]

        return sts.evaluate(embed)["spearman"]

    return score
