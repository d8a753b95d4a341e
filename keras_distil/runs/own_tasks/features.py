"""Encoded rows of a task, on disk if there is a folder for them."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.data.corpus.shards import CorpusError
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.encoding import join_examples
from keras_distil.data.tasks.stored_examples import (
    ExampleWriter,
    open_examples,
)
from keras_distil.utils import disk

# Tokens that are in memory before they are written.
_TOKENS = 2**22


def keep_examples(
    parts: Iterable[tuple[str, EncodedExamples]],
    names: Sequence[str],
    folder: Path | None,
    settings: Mapping[str, Any],
    *,
    token_dtype: np.dtype,
) -> dict[str, EncodedExamples]:
    """Writes sets of examples to disk, unless they are there already.

    Args:
        parts: a set's name and some of its examples, perhaps with an array of
            labels; read only if they are not on disk. Owners count the texts
            of a part.
        names: names of the sets, each of which has a part or more.
        folder: where the sets are kept; None for memory.
        settings: JSON data on which the examples depend.
        token_dtype: data type of the token ids on disk.

    Returns:
        The sets by name, read from disk when they are used.

    Raises:
        OSError: if the disk is full or may not be written.
    """
    if folder is None:
        return _join(parts)
    try:
        return {name: open_examples(folder / name, settings) for name in names}
    except CorpusError:
        # Missing, of other files or settings, or damaged: made again.
        with disk.writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
    writers = {}
    for name, some in _by_size(parts):
        if name not in writers:
            writers[name] = ExampleWriter(
                folder / f".{name}.partial",
                settings,
                like=some[0],
                token_dtype=token_dtype,
            )
        writers[name].write(some)
    for name, writer in writers.items():
        writer.finish(folder / name)
    return {name: open_examples(folder / name, settings) for name in names}


def _join(
    parts: Iterable[tuple[str, EncodedExamples]],
) -> dict[str, EncodedExamples]:
    """Joins the parts of each set in memory."""
    sets: dict[str, list[EncodedExamples]] = {}
    for name, part in parts:
        sets.setdefault(name, []).append(part)
    return {name: join_examples(each) for name, each in sets.items()}


def _by_size(
    parts: Iterable[tuple[str, EncodedExamples]],
) -> Iterator[tuple[str, list[EncodedExamples]]]:
    """Yields several parts of a set at a time, with their owners in it."""
    waiting: dict[str, list[EncodedExamples]] = {}
    tokens: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for name, part in parts:
        if part.owners is not None:
            owners = part.owners + texts[name]
            texts[name] = int(owners[-1]) + 1
            part = dataclasses.replace(part, owners=owners)
        waiting.setdefault(name, []).append(part)
        tokens[name] += len(part.token_ids)
        if tokens[name] >= _TOKENS:
            del tokens[name]
            yield name, waiting.pop(name)
    yield from waiting.items()
