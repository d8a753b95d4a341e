"""Tasks of whole texts from files: classes, several labels, numbers."""

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.dev_split import check_shared, choose_dev
from keras_distil.data.tasks.encoding import TextEncoder, join_examples
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.text_rows import (
    RowForm,
    TextRows,
    Texts,
    read_text_rows,
)
from keras_distil.data.tokenize import token_dtype
from keras_distil.data.vocabulary import vocabulary_size
from keras_distil.evaluation.task_files import (
    DEV,
    TextSplit,
    TextTaskEvaluator,
)
from keras_distil.runs.own_tasks.features import keep_examples
from keras_distil.runs.own_tasks.files import (
    TEST,
    TRAIN,
    Loader,
    OwnData,
    check_train,
)

# Increase it when the same texts would be encoded otherwise.
_VERSION = 1


class TextLoader(Loader):
    """Texts, or pairs, with classes, labels or numbers."""

    def read(self) -> None:
        """Reads and checks all splits."""
        entry = self.entry
        self.train = self._rows(entry.train, entry.labels)
        self.names = self.train.label_names
        self.held_out = np.zeros(len(self.train), bool)
        self.others: dict[str, TextRows] = {}
        if entry.dev is None:
            strata = None
            if entry.kind == "classification":
                strata = self.train.labels
            self.held_out = choose_dev(
                self.train.digests, entry.dev_fraction, strata
            )
            self.count(int(self.held_out.sum()))
        for name, paths in ((DEV, entry.dev), (TEST, entry.test)):
            if paths is not None:
                self._add(name, paths)
        check_train(entry.name, int((~self.held_out).sum()))
        self._remark_labels()

    def _add(self, name: str, paths: Sequence[str]) -> None:
        rows = self._rows(paths, self.names, needs_labels=name == DEV)
        self.remarks += check_shared(
            self.train.digests[~self.held_out],
            rows.digests,
            (self.train.name, rows.name),
        )
        if rows.labels is None:
            return
        self.others[name] = rows
        if name == DEV:
            self.count(len(rows))

    def _rows(
        self,
        paths: Sequence[str],
        names: Sequence[str] | None,
        *,
        needs_labels: bool = True,
    ) -> TextRows:
        entry = self.entry
        own = "`labels` of the task"
        rows = read_text_rows(
            self.sources(paths),
            RowForm(entry.kind, entry.columns, entry.separator),
            label_names=names,
            origin=own if entry.labels else "the labels of the training rows",
            needs_labels=needs_labels,
        )
        self.remarks += rows.remarks()
        return rows

    def _remark_labels(self) -> None:
        """Counts labels that no training row has, and rows without any."""
        labels = self.train.labels
        if self.names is None or labels is None:
            return
        counts = _label_counts(labels[~self.held_out], len(self.names))
        absent = [
            name
            for name, count in zip(self.names, counts, strict=True)
            if not count
        ]
        if absent:
            self.remarks.append(
                f"{len(absent)} of the {len(self.names)} labels of "
                f"{self.entry.name} have no training row: "
                f"{', '.join(absent)[:200]}."
            )

    def load(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Reads and encodes all splits."""
        self.read()
        return self.encode(tokenizer, folder)

    def encode(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Encodes the rows that `read` has found."""
        entry = self.entry
        encoder = TextEncoder(
            tokenizer,
            max_length=self.settings.max_length,
            stride=entry.stride,
        )
        sets = keep_examples(
            self._parts(encoder),
            [TRAIN, DEV] if self.held_out.any() else [TRAIN],
            folder,
            self._identity(tokenizer) if folder is not None else {},
            token_dtype=token_dtype(vocabulary_size(tokenizer)),
        )
        examples = sets[TRAIN]
        labels = self._labels(self.train)
        texts = int((~self.held_out).sum())
        self.note_cut(examples, texts)
        splits = {
            name: TextSplit(_encoded(encoder, rows), self._labels(rows))
            for name, rows in self.others.items()
        }
        if DEV in sets:
            dev = TextSplit(sets[DEV], labels[self.held_out])
            splits = {DEV: dev, **splits}
        parts = {TRAIN: examples}
        parts |= {name: split.examples for name, split in splits.items()}
        return OwnData(
            train=self._with_labels(examples, labels[~self.held_out]),
            evaluator=TextTaskEvaluator(
                entry.name, entry.kind, str(entry.metric), splits, self.names
            ),
            labels=self.names,
            keys={x: self._keys(x, part) for x, part in parts.items()},
            remarks=tuple(self.remarks),
        )

    def _keys(self, name: str, examples: EncodedExamples) -> RowKeys:
        """Returns the keys of a part's rows."""
        rows = self.others.get(name, self.train)
        keys = RowKeys(name, rows.digests, rows.ids)
        if name not in self.others:
            keys = keys.chosen(self.held_out == (name == DEV), name)
        return dataclasses.replace(keys, owners=examples.owners)

    def _labels(self, rows: TextRows) -> np.ndarray:
        labels = np.asarray(rows.labels)
        if self.entry.kind == "multi_label":
            return labels.astype(np.int8)
        return labels

    def _identity(self, tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
        """Returns what the encoded texts depend on."""
        return {
            **self.identity(tokenizer, self.train.digests, _VERSION),
            "columns": [columns for _, columns, _ in self.train.tables],
            "max_length": self.settings.max_length,
            "stride": self.entry.stride,
        }

    def _parts(
        self, encoder: TextEncoder
    ) -> Iterator[tuple[str, EncodedExamples]]:
        """Yields the encoded training texts, and those held out, in parts."""
        begin = 0
        for texts in self.train.texts():
            chosen = self.held_out[begin : begin + len(texts[0])]
            begin += len(texts[0])
            for name, is_held_out in ((TRAIN, False), (DEV, True)):
                part = _choose(texts, chosen == is_held_out)
                if part[0]:
                    yield name, encoder.encode(*part)

    def _with_labels(
        self, examples: EncodedExamples, labels: np.ndarray
    ) -> EncodedExamples:
        """Adds labels and weights; all windows of a text count as one."""
        weights = self._weights(labels)
        if self.entry.kind == "multi_label":
            labels = labels.astype(np.float32)
        owners = examples.owners
        if owners is not None:
            counts = np.bincount(owners)
            if weights is None:
                weights = np.ones(len(labels), np.float32)
            labels, weights = labels[owners], (weights / counts)[owners]
        if weights is not None:
            weights = weights.astype(np.float32)
        return dataclasses.replace(examples, labels=labels, weights=weights)

    def _weights(self, labels: np.ndarray) -> np.ndarray | None:
        """Returns the factor of each text, float64, (texts,)."""
        given = self.entry.class_weights
        if given is None or self.names is None:
            return None
        counts = np.bincount(labels, minlength=len(self.names))
        if given == "balanced":
            factors = len(labels) / (len(counts) * np.maximum(counts, 1))
            return factors[labels]
        for name in given:
            if name not in self.names:
                near = difflib.get_close_matches(name, self.names, 1, 0.0)
                raise ValueError(
                    f"`class_weights` of the task {self.entry.name} must name "
                    f"labels of it. Received: {name!r}; the nearest is "
                    f"{near[0]!r}."
                )
        return np.array([given.get(name, 1.0) for name in self.names])[labels]


def _label_counts(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the number of rows with each label."""
    if labels.ndim == 2:
        return labels.sum(axis=0)
    return np.bincount(labels, minlength=count)


def _choose(texts: Texts, rows: np.ndarray) -> Texts:
    chosen = np.flatnonzero(rows)
    first, second = texts
    return (
        [first[i] for i in chosen],
        None if second is None else [second[i] for i in chosen],
    )


def _encoded(encoder: TextEncoder, rows: TextRows) -> EncodedExamples:
    """Encodes all texts in memory."""
    return join_examples(
        encoder.encode(*texts) for texts in rows.texts() if texts[0]
    )
