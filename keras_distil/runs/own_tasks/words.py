"""Tasks of words with tags from files, such as finding entities."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil.data.tasks.dev_split import check_shared, choose_dev
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.word_rows import WordRows, read_word_rows
from keras_distil.data.tasks.words import EncodedWords, encode_words
from keras_distil.evaluation.entities import check_entity_tags
from keras_distil.evaluation.task_files import (
    DEV,
    WordSplit,
    WordTaskEvaluator,
)
from keras_distil.runs.own_tasks.files import (
    TEST,
    TRAIN,
    Loader,
    OwnData,
    check_train,
)


class WordLoader(Loader):
    """Sentences of words with tags."""

    def read(self) -> None:
        """Reads and checks all splits."""
        entry = self.entry
        rows = self._rows(entry.train)
        self.names = tuple(entry.labels or rows.tags())
        if entry.metric == "entity_f1":
            check_entity_tags(self.names, entry.name)
        self.splits = {"train": rows}
        if entry.dev is None:
            held_out = choose_dev(rows.digests, entry.dev_fraction)
            self.splits = {
                "train": rows.chosen(~held_out),
                DEV: rows.chosen(held_out),
            }
        check_train(entry.name, len(self.splits["train"]))
        for name, paths in ((DEV, entry.dev), (TEST, entry.test)):
            if paths is not None:
                self.splits[name] = self._rows(paths)
                self.remarks += check_shared(
                    self.splits["train"].digests,
                    self.splits[name].digests,
                    (rows.name, self.splits[name].name),
                )
        self.count(len(self.splits[DEV]), "sentences")
        for split in self.splits.values():
            self._check_tags(split)

    def _rows(self, paths: Sequence[str]) -> WordRows:
        entry = self.entry
        rows = read_word_rows(
            self.sources(paths), entry.columns, encoding=entry.encoding
        )
        self.remarks += rows.remarks()
        return rows

    def _check_tags(self, rows: WordRows) -> None:
        known = set(self.names)
        for sentence in rows.sentences:
            for tag in sentence.tags or ():
                if tag not in known:
                    raise ValueError(
                        f"{sentence.where}: the tag must be one of "
                        f"{list(self.names)!r:.200}. Received: {tag!r:.60}."
                    )

    def load(
        self, tokenizer: tokenizers.Tokenizer, folder: Path | None
    ) -> OwnData:
        """Reads and encodes all splits."""
        self.read()
        entry = self.entry
        place = {name: i for i, name in enumerate(self.names)}
        sizes: dict[str, Any] = {
            "max_length": self.settings.max_length,
            "stride": entry.stride,
        }
        rows = self.splits.pop("train")
        train = rows.sentences
        encoded = encode_words(
            tokenizer,
            [each.words for each in train],
            [[place[tag] for tag in each.tags or ()] for each in train],
            **sizes,
        )
        self.note_cut(encoded.examples, len(train))
        if encoded.without_pieces:
            self.remarks.append(
                f"{encoded.without_pieces:,} words of {entry.name} have no "
                "word piece, so what begins there is not learnt."
            )
        keys, splits = {TRAIN: _keys(TRAIN, rows, encoded)}, {}
        for name, rows in self.splits.items():
            words = [each.words for each in rows.sentences]
            splits[name] = WordSplit(
                encode_words(tokenizer, words, **sizes),
                [each.tags or () for each in rows.sentences],
            )
            keys[name] = _keys(name, rows, splits[name].encoded)
        return OwnData(
            train=encoded.examples,
            evaluator=WordTaskEvaluator(
                entry.name, str(entry.metric), splits, self.names
            ),
            labels=self.names,
            keys=keys,
            remarks=tuple(self.remarks),
        )


def _keys(name: str, rows: WordRows, encoded: EncodedWords) -> RowKeys:
    return RowKeys(
        name,
        rows.digests,
        owners=encoded.examples.owners,
        places=encoded.places,
        counts=encoded.counts,
    )
