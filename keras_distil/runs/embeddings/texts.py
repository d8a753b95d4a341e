"""The texts of a run of embeddings, and what models read of them."""

import dataclasses
from collections.abc import Iterator, Sequence

import tokenizers

from keras_distil import config, data
from keras_distil.data.corpus.texts import TextCorpus, prepare_texts
from keras_distil.data.tasks.encoding import TextEncoder, join_examples
from keras_distil.runs.corpus import make_sources
from keras_distil.runs.run_folder import Run
from keras_distil.utils.machine import cache_folder
from keras_distil.utils.progress import Progress

# Texts that are encoded at a time.
_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class RunTexts:
    """The texts of a run.

    Attributes:
        train: the training texts.
        held_out: the held-out texts that models are scored on.
        fingerprint: sha256 over the corpus.
    """

    train: Sequence[str]
    held_out: list[str]
    fingerprint: str


def read_texts(run: Run) -> RunTexts:
    """Reads the texts of a run, or finds them read.

    Raises:
        FileNotFoundError: if a source has no files.
        ValueError: if there is no text to train on, or none held out.
    """
    recipe = run.recipe
    corpus = open_corpus(recipe, run.progress)
    run.progress.say(f"Texts: {corpus}")
    for line in corpus.report.lost.warnings():
        run.progress.warn(line)
    if len(corpus.held_out) < 2:
        raise ValueError(
            "At least two held-out texts are needed to score models on. "
            f"Received: {len(corpus.held_out)}. Add text, or raise "
            "`data.held_out_fraction`."
        )
    return RunTexts(
        corpus.train.spaced(_count_used(recipe, corpus)),
        corpus.held_out.spaced(recipe.evaluate.sequences)[:],
        corpus.fingerprint,
    )


def open_corpus(recipe: config.Recipe, progress: Progress) -> TextCorpus:
    """Reads the recipe's texts, or finds them read.

    Raises:
        FileNotFoundError: if a source has no files.
        ValueError: if there is no text.
    """
    with progress.bar("Read texts (units)") as bar:
        return prepare_texts(
            make_sources(recipe),
            kind=recipe.data.texts,
            held_out_fraction=recipe.data.held_out_fraction,
            max_skipped_fraction=recipe.data.max_skipped_fraction,
            cache_dir=cache_folder() / "texts",
            progress=bar.update_of,
        )


def _count_used(recipe: config.Recipe, corpus: TextCorpus) -> int | None:
    """Returns how many texts the training reads; None for all."""
    settings = recipe.distill
    if settings is None or settings.steps is None:
        return recipe.data.max_texts
    read = settings.steps * settings.batch_size
    return min(read, recipe.data.max_texts or len(corpus.train))


def encode(
    tokenizer: tokenizers.Tokenizer,
    texts: Sequence[str],
    *,
    prompt: str,
    max_length: int,
) -> data.EncodedExamples:
    """Encodes texts, a few thousand at a time.

    Args:
        tokenizer: the model's tokenizer.
        texts: the texts.
        prompt: what is put before each.
        max_length: int, tokens at which a text is cut.
    """
    encoder = TextEncoder(tokenizer, max_length=max_length)

    def parts() -> Iterator[data.EncodedExamples]:
        for begin in range(0, len(texts), _AT_ONCE):
            some = texts[begin : begin + _AT_ONCE]
            yield encoder.encode([f"{prompt}{text}".strip() for text in some])

    return join_examples(parts())
