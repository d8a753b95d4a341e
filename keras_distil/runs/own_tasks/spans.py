"""Tasks from files whose answers are parts of a context."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil import data
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.dev_split import (
    check_shared,
    choose_dev,
    digests_of,
)
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.span_rows import (
    question_digests,
    read_span_rows,
    scan_span_files,
)
from keras_distil.data.tasks.squad import SquadExample
from keras_distil.data.tokenize import token_dtype
from keras_distil.data.vocabulary import vocabulary_size
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.task_files import DEV, SpanTaskEvaluator
from keras_distil.runs.own_tasks.features import keep_examples
from keras_distil.runs.own_tasks.files import (
    TEST,
    TRAIN,
    Loader,
    OwnData,
    check_train,
)

# Increase it when the same questions would be encoded otherwise.
_VERSION = 1
# Questions that are encoded at a time.
_BATCH = 1024


class SpanLoader(Loader):
    """Questions whose answers are parts of a context."""

    def read(self) -> None:
        """Reads and checks all splits."""
        entry = self.entry
        self.train = scan_span_files(
            self.sources(entry.train), entry.columns, encoding=entry.encoding
        )
        self.held_out = np.zeros(len(self.train), bool)
        self.splits: dict[str, list[SquadExample]] = {}
        if entry.dev is None:
            # Questions on one text are held out together.
            self.held_out = choose_dev(self.train.contexts, entry.dev_fraction)
            self.splits[DEV] = self.train.chosen(self.held_out)
        check_train(entry.name, int((~self.held_out).sum()))
        for name, paths in ((DEV, entry.dev), (TEST, entry.test)):
            if paths is not None:
                rows = self._rows(paths)
                self.splits[name] = rows
                self.remarks += check_shared(
                    self.train.questions[~self.held_out],
                    question_digests(rows),
                    ("train", name),
                )
        self.count(len(self.splits[DEV]))

    def _rows(self, paths: Sequence[str]) -> list[SquadExample]:
        return read_span_rows(
            self.sources(paths),
            self.entry.columns,
            encoding=self.entry.encoding,
            is_training=False,
        )

    def load(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Reads and encodes all splits."""
        self.read()
        entry, settings = self.entry, self.settings
        lengths: dict[str, Any] = {
            "max_length": settings.max_length,
            "max_question": settings.max_question,
            "stride": entry.stride or settings.stride,
        }
        stored = keep_examples(
            self._parts(tokenizer, lengths),
            [TRAIN],
            folder,
            {
                **self.identity(tokenizer, self.train.ids, _VERSION),
                **lengths,
                "columns": entry.columns,
                "encoding": entry.encoding,
            },
            token_dtype=token_dtype(vocabulary_size(tokenizer)),
        )[TRAIN]
        answers = np.asanyarray(stored.labels)
        chosen = ~self.held_out
        keys = {
            TRAIN: RowKeys(
                TRAIN,
                self.train.questions[chosen],
                self.train.ids[chosen],
                owners=stored.owners,
            )
        }
        splits = {}
        for name, rows in self.splits.items():
            splits[name] = SpanEvaluator(rows, tokenizer, **lengths)
            keys[name] = _keys(name, rows, splits[name].windows)
        return OwnData(
            # Each window is an example of its own.
            train=dataclasses.replace(
                stored,
                labels={"start": answers[:, 0], "end": answers[:, 1]},
                owners=None,
            ),
            evaluator=SpanTaskEvaluator(entry.name, str(entry.metric), splits),
            labels=None,
            keys=keys,
            remarks=tuple(self.remarks),
        )

    def _parts(
        self, tokenizer: tokenizers.Tokenizer, lengths: dict[str, Any]
    ) -> Iterator[tuple[str, EncodedExamples]]:
        """Yields the windows of the training questions in parts.

        Labels are int32, (windows, 2), start and end of the answer.
        """
        pad_id = data.SpecialTokens.from_tokenizer(tokenizer).pad_id
        read = itertools.compress(self.train.examples(), ~self.held_out)
        while some := list(itertools.islice(read, _BATCH)):
            windows = data.make_squad_windows(some, tokenizer, **lengths)
            yield (
                TRAIN,
                dataclasses.replace(
                    data.encode_windows(
                        windows,
                        pad_id=pad_id,
                        max_length=self.settings.max_length,
                    ),
                    labels=np.stack([windows.start, windows.end], axis=1),
                    owners=windows.example,
                ),
            )


def _keys(
    name: str, rows: Sequence[SquadExample], windows: data.SquadWindows
) -> RowKeys:
    return RowKeys(
        name,
        question_digests(rows),
        digests_of([row.id for row in rows]),
        owners=windows.example,
    )
