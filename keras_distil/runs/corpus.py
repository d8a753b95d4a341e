"""The text of a run: tokenizer, corpus and batches."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tokenizers

from keras_distil import config, data, models
from keras_distil.config import data_section
from keras_distil.models.presets import fetch_preset
from keras_distil.runs.run_folder import Run, find_run_of_model
from keras_distil.utils.machine import cache_folder
from keras_distil.utils.progress import Progress


def load_tokenizer(
    recipe: config.Recipe, *, model: Path | None = None
) -> tokenizers.Tokenizer:
    """Loads a model's own tokenizer, or else the teacher's.

    That of a file in another run's folder is the tokenizer of that run.

    Args:
        recipe: names the teacher.
        model: a file or a directory; None for the teacher itself.

    Raises:
        ValueError: if the teacher's source has no vocabulary beside it.
    """
    directory = model_directory(recipe.teacher.tokenizer_source)
    if model is not None and any(
        (model / name).is_file() for name in data.TOKENIZER_FILES
    ):
        directory = model
    if directory is None:
        run, _ = find_run_of_model(Path(recipe.teacher.tokenizer_source), None)
        if run is not None:
            # The model of a run has learned with the run's own tokenizer.
            return load_tokenizer(config.load_recipe(Path(run) / "recipe.yaml"))
        raise ValueError(
            f"The teacher {recipe.teacher.tokenizer_source!r} brings no "
            "vocabulary to prepare text with. Use a directory in Hugging "
            "Face's layout"
            + (
                "."
                if recipe.teacher.source
                else ", or name one as `teacher.source`, whose tokenizer it "
                "shares."
            )
        )
    return read_tokenizer(directory)


def model_directory(source: str) -> Path | None:
    """Returns the folder of a model, downloaded if needed; None for a file.

    Args:
        source: a folder, a file, `embedded`, or a model or preset by name.

    Raises:
        ValueError: if it is a preset of a family that is not supported.
        ConnectionError: if a download fails.
    """
    return fetch_preset(source) or models.checkpoint_directory(source)


def read_tokenizer(directory: Path) -> tokenizers.Tokenizer:
    """Loads the tokenizer of a model's folder.

    Raises:
        FileNotFoundError: if it has none.
        ValueError: if it cannot be used.
    """
    try:
        return data.load_tokenizer(directory)
    except FileNotFoundError:
        raise
    # Files that are not UTF-8, not JSON, or JSON of the wrong types; the
    # library itself raises bare Exception.
    except Exception as error:
        problem = " ".join(str(error).split())[:300].rstrip(".")
        raise ValueError(
            f"The tokenizer in {directory} cannot be used: {problem}."
        ) from error


def make_sources(recipe: config.Recipe) -> list[data.Source]:
    """Makes the text sources, in the recipe's order."""
    made: list[data.Source] = []
    for source in recipe.data.sources:
        if isinstance(source, data_section.DocumentationSource):
            made.append(data.InstalledDocumentation(tuple(source.packages)))
        elif isinstance(source, data_section.FilesSource):
            made.append(
                data.TextFiles(
                    source.pattern,
                    root=recipe.data.root,
                    field=source.field,
                    encoding=source.encoding,
                    allow_outside_root=recipe.data.allow_outside_root,
                )
            )
        else:
            made.append(data.TfdsText(source.name, source.split, source.field))
    return made


def prepare_corpus(run: Run) -> data.PreparedCorpus:
    """Turns text into token ids, or reuses an earlier result."""
    with run.progress.bar("Prepare corpus (units)") as bar:
        prepared = load_corpus(
            run.recipe, progress=bar.update_of, warn=run.progress.warn
        )
    run.progress.say(f"Corpus: {prepared.report}")
    return prepared


def load_corpus(
    recipe: config.Recipe,
    *,
    progress: Callable[[int, int], None] | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> data.PreparedCorpus:
    """Opens the recipe's corpus, takes it from the cache, or makes it.

    Args:
        recipe: the recipe.
        progress: called with the number of steps done and their total.
        warn: called with one line for each oddity in the text.
    """
    if recipe.data.prepared is not None:
        folder = Path(recipe.data.root or ".") / recipe.data.prepared
        opened = data.open_corpus(folder, expected=corpus_settings(recipe))
        opened.report.lost.check(recipe.data.max_skipped_fraction)
        for line in opened.report.warnings():
            warn(line)
        return opened
    return data.prepare_corpus(
        make_sources(recipe),
        load_tokenizer(recipe),
        **_sequence_settings(recipe),
        max_skipped_fraction=recipe.data.max_skipped_fraction,
        cache_dir=cache_folder() / "corpora",
        workers=os.cpu_count() or 1,
        progress=progress,
        warn=warn,
    )


def make_corpus(
    recipe: config.Recipe,
    progress: Progress,
    *,
    output: Path | None,
    workers: int | None,
) -> data.PreparedCorpus:
    """Makes the recipe's corpus, or verifies an existing one completely.

    Args:
        recipe: the recipe.
        progress: where to report to.
        output: folder for the corpus; None for the cache.
        workers: number of processes; None for one per core.
    """
    with progress.bar("Prepare corpus (units)") as bar:
        prepared = data.prepare_corpus(
            make_sources(recipe),
            load_tokenizer(recipe),
            **_sequence_settings(recipe),
            max_skipped_fraction=recipe.data.max_skipped_fraction,
            cache_dir=None if output else cache_folder() / "corpora",
            output=output,
            workers=workers or os.cpu_count() or 1,
            progress=bar.update_of,
            warn=progress.warn,
            verify=True,
        )
    progress.say(f"Corpus: {prepared.report}")
    return prepared


def make_corpus_with_beam(
    recipe: config.Recipe,
    progress: Progress,
    *,
    output: str,
    options: Sequence[str],
) -> None:
    """Makes the recipe's corpus with an Apache Beam pipeline.

    Args:
        recipe: the recipe.
        progress: where to report to.
        output: folder for the corpus, visible to all workers.
        options: Beam's pipeline options, as on a command line.
    """
    progress.say("Preparing the corpus on Apache Beam")
    from keras_distil.data.corpus import beam

    report = beam.prepare_with_beam(
        make_sources(recipe),
        load_tokenizer(recipe),
        corpus_settings(recipe),
        output=output,
        max_skipped_fraction=recipe.data.max_skipped_fraction,
        options=options,
    )
    progress.say(f"Corpus: {report}")
    for line in report.warnings():
        progress.warn(line)


def corpus_settings(recipe: config.Recipe) -> dict[str, Any]:
    """Settings that the manifest of the recipe's corpus must contain."""
    return data.corpus_settings(
        load_tokenizer(recipe), **_sequence_settings(recipe)
    )


def _sequence_settings(recipe: config.Recipe) -> dict[str, Any]:
    return {
        "sequence_length": recipe.data.sequence_length,
        "held_out_fraction": recipe.data.held_out_fraction,
        "layout": recipe.data.layout,
    }


def make_training_batches(
    recipe: config.Recipe,
    prepared: data.PreparedCorpus,
    *,
    batch_size: int,
    maskings: int | None = None,
) -> tf.data.Dataset:
    """Makes an endless stream of training batches.

    Args:
        recipe: the recipe.
        prepared: its corpus.
        batch_size: sequences per batch.
        maskings: masks per sequence; None masks anew every epoch.
    """
    tokenizer = load_tokenizer(recipe)
    exponent = recipe.data.masking.rare_token_exponent
    weights: np.ndarray | None = None
    if exponent:
        weights = data.rare_token_weights(
            prepared.token_counts, exponent=exponent
        )
    return data.masked_lm_dataset(
        prepared.train,
        special=data.SpecialTokens.from_tokenizer(tokenizer),
        vocabulary_size=data.vocabulary_size(tokenizer),
        batch_size=batch_size,
        seed=recipe.seed,
        rate=recipe.data.masking.rate,
        token_weights=weights,
        maskings=maskings,
    )


def make_held_out_batches(
    recipe: config.Recipe, prepared: data.PreparedCorpus
) -> tf.data.Dataset:
    """Makes batches of held-out sequences, with masks that never change.

    They are masked uniformly at BERT's rate, whatever the recipe does in
    training, so that the scores of different recipes can be compared.
    """
    tokenizer = load_tokenizer(recipe)
    count = recipe.evaluate.sequences
    held_out = prepared.held_out
    return data.held_out_dataset(
        held_out if count is None else held_out[:count],
        special=data.SpecialTokens.from_tokenizer(tokenizer),
        vocabulary_size=data.vocabulary_size(tokenizer),
        batch_size=recipe.evaluate.batch_size,
        seed=0,
        rate=0.15,
    )


def take_held_out(
    recipe: config.Recipe, prepared: data.PreparedCorpus, count: int
) -> Any:
    """Takes the first masked sequences, at most one batch."""
    return take_examples(make_held_out_batches(recipe, prepared), count)


def take_examples(batches: tf.data.Dataset, count: int) -> Any:
    """Takes the first examples of the first batch, as NumPy arrays."""
    batch = next(iter(batches.take(1).as_numpy_iterator()))
    return tf.nest.map_structure(lambda rows: rows[:count], batch)
