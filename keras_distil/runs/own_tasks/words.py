"""Tasks of words with tags from files, such as finding entities."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.dev_split import check_shared, choose_dev
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.word_rows import (
    WordRows,
    check_tags_of,
    read_word_rows,
    scan_word_files,
)
from keras_distil.data.tasks.words import EncodedWords, encode_words
from keras_distil.data.tokenize import token_dtype
from keras_distil.data.vocabulary import vocabulary_size
from keras_distil.evaluation.entities import check_entity_tags
from keras_distil.evaluation.task_files import (
    DEV,
    WordSplit,
    WordTaskEvaluator,
)
from keras_distil.runs.own_tasks.features import keep_examples
from keras_distil.runs.own_tasks.files import (
    TEST,
    TRAIN,
    Loader,
    OwnData,
    check_train,
)

# Increase it when the same sentences would be encoded otherwise.
_VERSION = 1
# Sentences that are encoded at a time.
_BATCH = 1024


class WordLoader(Loader):
    """Sentences of words with tags."""

    def read(self) -> None:
        """Reads and checks all splits."""
        entry = self.entry
        self.train = scan_word_files(
            self.sources(entry.train),
            entry.columns,
            encoding=entry.encoding,
            labels=entry.labels,
        )
        self.remarks += self.train.remarks()
        self.names = tuple(entry.labels or self.train.tags)
        if entry.metric == "entity_f1":
            check_entity_tags(self.names, entry.name)
        self.held_out = np.zeros(len(self.train), bool)
        self.splits: dict[str, WordRows] = {}
        if entry.dev is None:
            self.held_out = choose_dev(self.train.digests, entry.dev_fraction)
            self.splits[DEV] = self.train.chosen(self.held_out)
        check_train(entry.name, int((~self.held_out).sum()))
        for name, paths in ((DEV, entry.dev), (TEST, entry.test)):
            if paths is not None:
                self.splits[name] = self._rows(paths)
                self.remarks += check_shared(
                    self.train.digests[~self.held_out],
                    self.splits[name].digests,
                    (self.train.name, self.splits[name].name),
                )
        self.count(len(self.splits[DEV]), "sentences")

    def _rows(self, paths: Sequence[str]) -> WordRows:
        entry = self.entry
        rows = read_word_rows(
            self.sources(paths), entry.columns, encoding=entry.encoding
        )
        self.remarks += rows.remarks()
        check = check_tags_of(self.names)
        for sentence in rows.sentences:
            check(sentence)
        return rows

    def load(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Reads and encodes all splits."""
        self.read()
        entry = self.entry
        sizes: dict[str, Any] = {
            "max_length": self.settings.max_length,
            "stride": entry.stride,
        }
        stored = keep_examples(
            self._parts(tokenizer, sizes),
            [TRAIN],
            folder,
            {
                **self.identity(tokenizer, self.train.digests, _VERSION),
                **sizes,
                "columns": entry.columns,
                "encoding": entry.encoding,
                "labels": list(self.names),
            },
            token_dtype=token_dtype(vocabulary_size(tokenizer)),
        )[TRAIN]
        labels = np.asanyarray(stored.labels)
        examples = dataclasses.replace(stored, labels=labels[:, 0])
        self.note_cut(examples, int((~self.held_out).sum()))
        if examples.without_pieces:
            self.remarks.append(
                f"{examples.without_pieces:,} words of {entry.name} have no "
                "word piece, so what begins there is not learnt."
            )
        keys = {
            TRAIN: RowKeys(
                TRAIN,
                self.train.digests[~self.held_out],
                owners=examples.owners,
                places=functools.partial(_places, examples, labels[:, 1]),
                counts=self.train.counts[~self.held_out],
            )
        }
        splits = {}
        for name, rows in self.splits.items():
            words = [each.words for each in rows.sentences]
            splits[name] = WordSplit(
                encode_words(tokenizer, words, **sizes),
                [each.tags or () for each in rows.sentences],
            )
            keys[name] = _keys(name, rows, splits[name].encoded)
        return OwnData(
            train=examples,
            evaluator=WordTaskEvaluator(
                entry.name, str(entry.metric), splits, self.names
            ),
            labels=self.names,
            keys=keys,
            remarks=tuple(self.remarks),
        )

    def _parts(
        self, tokenizer: tokenizers.Tokenizer, sizes: dict[str, Any]
    ) -> Iterator[tuple[str, EncodedExamples]]:
        """Yields the encoded training sentences in parts.

        A token has two labels: its class, and the word that begins there,
        counted through all training sentences; -1 if none does.
        """
        place = {name: i for i, name in enumerate(self.names)}
        before = 0
        read = itertools.compress(self.train.sentences(), ~self.held_out)
        while some := list(itertools.islice(read, _BATCH)):
            encoded = encode_words(
                tokenizer,
                [each.words for each in some],
                [[place[tag] for tag in each.tags or ()] for each in some],
                **sizes,
            )
            examples = encoded.examples
            word, window, position = encoded.places
            words = np.full(len(examples.token_ids), -1, np.int32)
            words[examples.starts[window] + position] = word + before
            before += int(encoded.counts.sum())
            labels = np.stack([np.asarray(examples.labels), words], axis=1)
            yield TRAIN, dataclasses.replace(examples, labels=labels)


def _places(examples: EncodedExamples, words: np.ndarray) -> np.ndarray:
    """Returns word, example and position of all first pieces; see `RowKeys`."""
    tokens = np.flatnonzero(words >= 0)
    example = np.searchsorted(examples.starts, tokens, side="right") - 1
    position = tokens - examples.starts[example]
    return np.stack([words[tokens].astype(np.int64), example, position])


def _keys(name: str, rows: WordRows, encoded: EncodedWords) -> RowKeys:
    return RowKeys(
        name,
        rows.digests,
        owners=encoded.examples.owners,
        places=encoded.places,
        counts=encoded.counts,
    )
