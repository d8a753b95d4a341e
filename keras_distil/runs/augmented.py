"""Copies of a task's examples with other words, made once and kept on disk."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tokenizers
from keras_hub.models import MaskedLM

from keras_distil import data
from keras_distil.data.tasks.stored_examples import (
    ExampleWriter,
    open_examples,
)
from keras_distil.data.tokenize import token_dtype
from keras_distil.models import augmentation
from keras_distil.teachers.identity import weights_digest
from keras_distil.utils import disk
from keras_distil.utils.progress import duration

# Increase it when the same examples and model would give other copies.
_VERSION = 1


def write_copies(
    examples: data.EncodedExamples,
    model: MaskedLM,
    tokenizer: tokenizers.Tokenizer,
    *,
    cache_dir: Path,
    name: str,
    copies: int,
    seed: int,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> data.EncodedExamples:
    """Makes copies of examples with some words replaced, unless they exist.

    Everything that they depend on is part of their folder's name. An
    interrupted call is continued by the next, part by part, and leaves the
    same bytes as one that was not interrupted. Memory holds one part, however
    many examples and copies there are.

    Args:
        examples: examples of a classification or a regression.
        model: a masked-LM model over the vocabulary of the examples.
        tokenizer: the tokenizer of the examples.
        cache_dir: folder for such copies; created if missing.
        name: name of the task, for messages.
        copies: int >= 1, copies of each example.
        seed: int >= 0, determines which words are replaced by which.
        say: called with one line that states size and time before the work
            begins.
        progress: called with the number of words done and in total.

    Returns:
        The copies, with the labels of the originals, read from disk as they
        are used.

    Raises:
        CorpusError: if the copies on disk are damaged.
        OSError: if the disk is too small, full or may not be written.
        ValueError: as `models.augmentation.Augmenter` and its functions.
    """
    augmentation.check_labels(examples)
    settings = {
        "version": _VERSION,
        "examples": _digest(examples),
        "model": weights_digest(model),
        "precision": model.backbone.dtype_policy.name,
        "tokenizer": data.tokenizer_hash(tokenizer),
        "copies": copies,
        "seed": seed,
    }
    folder = cache_dir / disk.sha256(disk.canonical(settings))[:32]
    with disk.writing(folder):
        cache_dir.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with disk.locked(lock, f"augments {name}"):
        if folder.is_dir():
            say(f"Augmented {name}: found in {folder}")
        else:
            augmenter = augmentation.Augmenter(
                model, tokenizer, copies=copies, seed=seed
            )
            writer = ExampleWriter(
                folder.with_name(f".{folder.name}.partial"),
                settings,
                like=examples,
                token_dtype=token_dtype(data.vocabulary_size(tokenizer)),
            )
            _write(writer, examples, augmenter, folder, name, say, progress)
    return open_examples(folder, settings)


def _digest(examples: data.EncodedExamples) -> str:
    """Returns a hash of examples and their labels."""
    found = hashlib.sha256()
    for array in (
        examples.token_ids,
        examples.starts,
        examples.first_lengths,
        np.asarray(examples.labels),
    ):
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    found.update(f"{examples.pad_id} {examples.max_length}".encode())
    return found.hexdigest()


def _write(
    writer: ExampleWriter,
    examples: data.EncodedExamples,
    augmenter: augmentation.Augmenter,
    folder: Path,
    name: str,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> None:
    """Writes the parts that are missing, and moves the whole to its folder."""
    words = augmenter.count_words(examples)
    done = sum(words[: writer.shards])
    left = sum(words) - done
    size = writer.most_bytes(examples, augmenter.copies)
    seconds = augmenter.estimate_seconds(examples, left)
    written = f", {_mb(writer.bytes)} of it written" if done else ""
    say(
        f"Augment {name}: {augmenter.copies:,} copies of {len(examples):,} "
        f"examples, at most {_mb(size)} in {folder}{written}; {left:,} words "
        f"to predict, about {duration(seconds)} here"
    )
    _check_disk(name, folder, size - writer.bytes)

    def count(words_of_part: int) -> None:
        progress(done + words_of_part, sum(words))

    for number in range(writer.shards, len(words)):
        writer.write(augmenter.copies_of(examples, number, count))
        done += words[number]
        count(0)
    writer.finish(folder)


def _check_disk(name: str, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise OSError(
            f"The copies of {name} need up to {_mb(needed)} more, and "
            f"{folder.parent} has {_mb(free)} free. Lower "
            "`finetune.augment_copies`, or use another disk."
        )


def _mb(count: int) -> str:
    """Formats a number of bytes."""
    return f"{count / 1e6:,.1f} MB"
