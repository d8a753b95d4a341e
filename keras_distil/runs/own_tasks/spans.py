"""Tasks from files whose answers are parts of a context."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil import data
from keras_distil.data.tasks.dev_split import (
    check_shared,
    choose_dev,
    digests_of,
    text_digests,
)
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.span_rows import read_span_rows
from keras_distil.data.tasks.squad import SquadExample
from keras_distil.evaluation.spans import SpanEvaluator
from keras_distil.evaluation.task_files import DEV, SpanTaskEvaluator
from keras_distil.runs.own_tasks.files import (
    TEST,
    TRAIN,
    Loader,
    OwnData,
    check_train,
)


class SpanLoader(Loader):
    """Questions whose answers are parts of a context."""

    def read(self) -> None:
        """Reads and checks all splits."""
        entry = self.entry
        train = self._rows(entry.train, is_training=True)
        self.splits = {"train": train}
        if entry.dev is None:
            held_out = choose_dev(_contexts(train), entry.dev_fraction)
            self.splits = {
                name: [train[i] for i in np.flatnonzero(held_out == is_dev)]
                for name, is_dev in (("train", False), (DEV, True))
            }
        check_train(entry.name, len(self.splits["train"]))
        for name, paths in ((DEV, entry.dev), (TEST, entry.test)):
            if paths is not None:
                rows = self._rows(paths, is_training=False)
                self.splits[name] = rows
                self.remarks += check_shared(
                    _questions(self.splits["train"]),
                    _questions(rows),
                    ("train", name),
                )
        self.count(len(self.splits[DEV]))

    def _rows(
        self, paths: Sequence[str], *, is_training: bool
    ) -> list[SquadExample]:
        return read_span_rows(
            self.sources(paths),
            self.entry.columns,
            encoding=self.entry.encoding,
            is_training=is_training,
        )

    def load(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Reads and encodes all splits."""
        self.read()
        settings = self.settings
        lengths: dict[str, Any] = {
            "max_length": settings.max_length,
            "max_question": settings.max_question,
            "stride": self.entry.stride or settings.stride,
        }
        train = self.splits.pop("train")
        windows = data.make_squad_windows(train, tokenizer, **lengths)
        keys, splits = {TRAIN: _keys(TRAIN, train, windows)}, {}
        for name, rows in self.splits.items():
            splits[name] = SpanEvaluator(rows, tokenizer, **lengths)
            keys[name] = _keys(name, rows, splits[name].windows)
        return OwnData(
            train=data.encode_windows(
                windows,
                pad_id=data.SpecialTokens.from_tokenizer(tokenizer).pad_id,
                max_length=settings.max_length,
            ),
            evaluator=SpanTaskEvaluator(
                self.entry.name, str(self.entry.metric), splits
            ),
            labels=None,
            keys=keys,
            remarks=tuple(self.remarks),
        )


def _keys(
    name: str, rows: Sequence[SquadExample], windows: data.SquadWindows
) -> RowKeys:
    return RowKeys(
        name,
        _questions(rows),
        digests_of([row.id for row in rows]),
        owners=windows.example,
    )


def _contexts(examples: Sequence[SquadExample]) -> np.ndarray:
    """Hashes of contexts: questions on one text are held out together."""
    return text_digests([example.context for example in examples])


def _questions(examples: Sequence[SquadExample]) -> np.ndarray:
    return text_digests(
        [example.question for example in examples],
        [example.context for example in examples],
    )
