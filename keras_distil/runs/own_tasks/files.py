"""What the tasks of all kinds that are read from files have in common."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil import config
from keras_distil.config.own_task import OwnTask
from keras_distil.data.corpus.find_files import find_files
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.span_rows import SPAN_SUFFIXES
from keras_distil.data.tasks.tables import (
    TABLE_SUFFIXES,
    Table,
    open_table,
    open_tfds,
    suffix_of,
)
from keras_distil.data.tasks.word_rows import CONLL_SUFFIXES
from keras_distil.data.vocabulary import tokenizer_hash
from keras_distil.evaluation.task_files import TaskEvaluator
from keras_distil.runs.sections import finetune_section

TRAIN, TEST = "train", "test"
# Fewer development rows than this say little.
_FEW_ROWS = 50
# Endings of the files of a kind, besides those of tables.
_SUFFIXES = {"token_classification": CONLL_SUFFIXES, "span": SPAN_SUFFIXES}


@dataclasses.dataclass(frozen=True, eq=False)
class OwnData:
    """A task from files, ready for training.

    Attributes:
        train: the training set.
        evaluator: scores models on the development set.
        labels: class names; None if the task has no classes.
        keys: by part, what predictions name its rows by.
        remarks: what the user should know of the data, one line each.
    """

    train: EncodedExamples
    evaluator: TaskEvaluator
    labels: tuple[str, ...] | None
    keys: Mapping[str, RowKeys]
    remarks: tuple[str, ...]


class Loader:
    """Reads the splits of a task.

    Args:
        recipe: the recipe.
        entry: the task.

    Attributes:
        remarks: what the user should know of the data.
        held_out: bool, (rows,), the rows of `train` that are development rows;
            set by `read`.
    """

    held_out: np.ndarray

    def __init__(self, recipe: config.Recipe, entry: OwnTask) -> None:
        self.entry = entry
        self.settings = finetune_section(recipe)
        self.data = recipe.data
        self.remarks: list[str] = []

    def read(self) -> None:
        """Reads and checks all splits."""
        raise NotImplementedError

    def load(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Reads and encodes all splits."""
        raise NotImplementedError

    def sources(self, paths: Sequence[str]) -> list[Any]:
        """Opens the files or splits of a list: tables, or paths of others."""
        entry = self.entry
        if entry.tfds is not None:
            return [open_tfds(entry.tfds, split) for split in paths]
        others = _SUFFIXES.get(entry.kind, ())
        sources: list[Path | Table] = []
        for path in self._files(paths):
            suffix = suffix_of(path)
            if suffix in others:
                sources.append(path)
            elif suffix in TABLE_SUFFIXES:
                sources.append(open_table(path, entry.encoding))
            else:
                allowed = ", ".join((*TABLE_SUFFIXES, *others))
                raise ValueError(
                    f"The task {entry.name}: a file of a {entry.kind} must end "
                    f"in {allowed}, each also with .gz. Received: '{path}'."
                )
        return sources

    def _files(self, paths: Sequence[str]) -> Iterator[Path]:
        """Yields the files of paths and patterns below `data.root`."""
        for pattern in paths:
            try:
                files = find_files(
                    pattern,
                    self.data.root,
                    allow_outside_root=self.data.allow_outside_root,
                )
            except (FileNotFoundError, ValueError) as error:
                text = f"The task {self.entry.name}: {error}"
                raise type(error)(text) from error
            yield from files

    def stamps(self, paths: Sequence[str]) -> list[list[Any]]:
        """Returns name, size and time of the files of a list."""
        if self.entry.tfds is not None:
            return [[self.entry.tfds, split, 0] for split in paths]
        found = [(path, path.stat()) for path in self._files(paths)]
        return [[str(x), stat.st_size, stat.st_mtime_ns] for x, stat in found]

    def identity(
        self, tokenizer: tokenizers.Tokenizer, rows: np.ndarray, version: int
    ) -> dict[str, Any]:
        """Returns what encoded training rows of every kind depend on.

        Args:
            tokenizer: tokenizer of the models.
            rows: hashes of the rows, those held out among them.
            version: of the code that encodes.
        """
        digest = hashlib.sha256(rows.tobytes())
        digest.update(np.packbits(self.held_out).tobytes())
        return {
            "version": version,
            "files": self.stamps(self.entry.train),
            "rows": digest.hexdigest(),
            "tokenizer": tokenizer_hash(tokenizer),
        }

    def count(self, rows: int, what: str = "rows") -> None:
        """Remarks that a part is small."""
        if rows < _FEW_ROWS:
            self.remarks.append(
                f"The task {self.entry.name} has only {rows} development "
                f"{what}: a score on so few says little."
            )

    def note_cut(self, examples: EncodedExamples, texts: int) -> None:
        """Remarks how many texts are longer than the models read."""
        length = self.settings.max_length
        if examples.owners is not None and not examples.cut:
            longer = len(examples) - texts
            if longer:
                several = int((np.bincount(examples.owners) > 1).sum())
                self.remarks.append(
                    f"{several / texts:.1%} of the training texts of "
                    f"{self.entry.name} are longer than {length} tokens and "
                    f"are read in windows: {longer:,} more examples."
                )
        elif examples.cut:
            self.remarks.append(
                f"{examples.cut / texts:.1%} of the training texts of "
                f"{self.entry.name} are longer than {length} tokens "
                "(`finetune.max_length`) and lose their ends; `stride` reads "
                "them in windows."
            )


def check_train(name: str, rows: int) -> None:
    """Raises ValueError if there is too little to train on."""
    if rows < 2:
        raise ValueError(
            f"The task {name} must have two training rows or more. Received: "
            f"{rows}, besides those held out. Give it more, or a `dev` file."
        )
