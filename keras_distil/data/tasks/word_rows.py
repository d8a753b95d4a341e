"""Sentences as words with a tag each, from CoNLL files and tables."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.data.tasks.columns import find_columns
from keras_distil.data.tasks.dev_split import text_digests
from keras_distil.data.tasks.label_columns import class_name
from keras_distil.data.tasks.tables import Table
from keras_distil.data.tasks.text_lines import read_lines

CONLL_SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".iobes", ".txt")
# Sentences that are in memory at a time.
_BATCH = 1024
# The word of the line between two documents in the files of CoNLL 2003.
_DOCUMENT = "-DOCSTART-"


@dataclasses.dataclass(frozen=True, slots=True)
class Sentence:
    """The words of a sentence.

    Attributes:
        words: none of them empty.
        tags: one per word; None without tags.
        where: its place in the file, for messages.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    where: str


@dataclasses.dataclass(frozen=True, eq=False)
class WordRows:
    """The usable sentences of some files.

    Attributes:
        name: the files, for messages.
        sentences: at least one.
        digests: uint64, (sentences,), hashes of their words.
        left_out: numbers of sentences that are not used, by reason.
    """

    name: str
    sentences: list[Sentence]
    digests: np.ndarray
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.sentences)

    def tags(self) -> tuple[str, ...]:
        """Returns all tags, sorted.

        Raises:
            ValueError: if there are fewer than two.
        """
        tags = {tag for each in self.sentences for tag in each.tags or ()}
        _check_several(self.name, sorted(tags))
        return tuple(sorted(tags))

    def chosen(self, rows: np.ndarray) -> "WordRows":
        """Returns the sentences where a bool of each is True."""
        kept = [self.sentences[i] for i in np.flatnonzero(rows)]
        return dataclasses.replace(
            self, sentences=kept, digests=self.digests[rows]
        )

    def remarks(self) -> list[str]:
        """Lines on sentences that are left out."""
        return _tell_left_out(self.name, len(self), self.left_out)


@dataclasses.dataclass(frozen=True, eq=False)
class WordFiles:
    """Sentences that are read again whenever they are used.

    Attributes:
        name: the files, for messages.
        digests: uint64, (sentences,), hashes of their words.
        counts: int64, (sentences,), their words.
        tags: all tags, sorted.
        left_out: numbers of sentences that are not used, by reason.
        sentences: yields the usable sentences, in the order of the files.
    """

    name: str
    digests: np.ndarray
    counts: np.ndarray
    tags: tuple[str, ...]
    left_out: Mapping[str, int]
    sentences: Callable[[], Iterator[Sentence]]

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.digests)

    def chosen(self, rows: np.ndarray) -> WordRows:
        """Returns the sentences where a bool of each is True, in memory."""
        read = zip(self.sentences(), rows, strict=True)
        return WordRows(
            name=self.name,
            sentences=[each for each, is_chosen in read if is_chosen],
            digests=self.digests[rows],
            left_out={},
        )

    def remarks(self) -> list[str]:
        """Lines on sentences that are left out."""
        return _tell_left_out(self.name, len(self), self.left_out)


def _check_several(name: str, tags: Sequence[str]) -> None:
    if len(tags) < 2:
        raise ValueError(
            f"{name}: a task must have two tags or more. Received: "
            f"{list(tags)}."
        )


def _tell_left_out(
    name: str, kept: int, left_out: Mapping[str, int]
) -> list[str]:
    total = kept + sum(left_out.values())
    return [
        f"{count:,} of the {total:,} sentences of {name} {reason} and "
        f"{'is' if count == 1 else 'are'} left out."
        for reason, count in left_out.items()
    ]


def read_word_rows(
    sources: Sequence[Path | Table],
    columns: Mapping[str, Any],
    *,
    encoding: str = "utf-8",
    needs_tags: bool = True,
) -> WordRows:
    """Reads sentences.

    Args:
        sources: CoNLL files: a line per word, of two columns or more, of which
            the first is the word and the last its tag, and a blank line after
            each sentence. Or tables with columns of words and tags.
        columns: names of a table's columns, as in a recipe.
        encoding: of CoNLL files.
        needs_tags: whether a table must have tags.

    Returns:
        The sentences; those without words are left out and counted.

    Raises:
        ValueError: if there are none, a line has another number of columns, or
            a sentence another number of tags than of words.
    """
    kept: list[Sentence] = []
    files = _scan(
        sources, columns, encoding, needs_tags=needs_tags, keep=kept.append
    )
    return WordRows(files.name, kept, files.digests, files.left_out)


def scan_word_files(
    sources: Sequence[Path | Table],
    columns: Mapping[str, Any],
    *,
    encoding: str = "utf-8",
    labels: Sequence[str] | None = None,
) -> WordFiles:
    """Reads sentences once, to check them; see `read_word_rows`.

    Memory grows by some bytes per sentence.

    Args:
        sources: as for `read_word_rows`.
        columns: names of a table's columns, as in a recipe.
        encoding: of CoNLL files.
        labels: the only tags that are allowed; None allows all.

    Raises:
        ValueError: as for `read_word_rows`; or if a tag is not allowed, or
            there are fewer than two.
    """
    check = check_tags_of(labels)
    files = _scan(sources, columns, encoding, needs_tags=True, keep=check)
    _check_several(files.name, files.tags)
    return files


def check_tags_of(
    labels: Sequence[str] | None,
) -> Callable[[Sentence], None]:
    """Returns a function that refuses a sentence with another tag."""
    known = None if labels is None else set(labels)

    def check(sentence: Sentence) -> None:
        for tag in sentence.tags or ():
            if known is not None and tag not in known:
                raise ValueError(
                    f"{sentence.where}: the tag must be one of "
                    f"{list(labels or ())!r:.200}. Received: {tag!r:.60}."
                )

    return check


def _scan(
    sources: Sequence[Path | Table],
    columns: Mapping[str, Any],
    encoding: str,
    *,
    needs_tags: bool,
    keep: Callable[[Sentence], None],
) -> WordFiles:
    """Reads all sentences, and calls a function with each usable one."""

    def sentences() -> Iterator[Sentence]:
        for source in sources:
            if isinstance(source, Table):
                yield from _from_table(source, columns, needs_tags)
            else:
                yield from _from_conll(source, encoding)

    digests, counts, empty = [], [], 0
    tags: set[str] = set()
    read = sentences()
    while some := list(itertools.islice(read, _BATCH)):
        kept = [each for each in some if each.words]
        empty += len(some) - len(kept)
        for each in kept:
            keep(each)
            tags.update(each.tags or ())
        digests.append(text_digests([" ".join(each.words) for each in kept]))
        counts += [len(each.words) for each in kept]
    name = ", ".join(
        source.name if isinstance(source, Table) else f"'{source}'"
        for source in sources
    )
    if not counts:
        raise ValueError(
            f"{name}: there must be a sentence or more. Received: none."
        )
    return WordFiles(
        name=name,
        digests=np.concatenate(digests),
        counts=np.array(counts),
        tags=tuple(sorted(tags)),
        left_out={"have no words": empty} if empty else {},
        sentences=lambda: (each for each in sentences() if each.words),
    )


def _from_conll(path: Path, encoding: str) -> Iterator[Sentence]:
    words: list[str] = []
    tags: list[str] = []
    width, begin = 0, 1
    for place, line in enumerate(read_lines(path, encoding), 1):
        fields = _split(line)
        if not fields or fields[0] == _DOCUMENT:
            if words:
                yield Sentence(
                    tuple(words), tuple(tags), f"'{path}', line {begin}"
                )
            words, tags, begin = [], [], place + 1
            continue
        width = width or len(fields)
        if len(fields) != width or width < 2:
            expected = f"{width} columns, as the first line has"
            raise ValueError(
                f"'{path}', line {place}: a word must have "
                f"{expected if width > 1 else 'two columns or more'}: the word "
                f"first and its tag last. Received: {line.strip()!r:.80}."
            )
        # Most words and tags are there many times; each is kept once.
        words.append(sys.intern(fields[0]))
        tags.append(sys.intern(fields[-1]))
    if words:
        yield Sentence(tuple(words), tuple(tags), f"'{path}', line {begin}")


def _split(line: str) -> list[str]:
    """Splits a line at tabs, if it has any, else at white space."""
    line = line.strip()
    if "\t" in line:
        return [field.strip() for field in line.split("\t")]
    return line.split()


def _from_table(
    table: Table, given: Mapping[str, Any], needs_tags: bool
) -> Iterator[Sentence]:
    columns = find_columns(
        table,
        ("tokens", "tags"),
        {key: x for key, x in given.items() if key != "id"},
        optional=() if needs_tags else ("tags",),
    )
    names = columns["tokens"] + columns.get("tags", [])
    for places, values in table.batches(names):
        for place, *row in zip(places, *values, strict=True):
            where = table.where(place)
            words = items(row[0], "words", where)
            if len(row) == 1:
                yield Sentence(tuple(map(str, words)), None, where)
                continue
            tags = [class_name(x, where) for x in items(row[1], "tags", where)]
            if len(tags) != len(words) or None in tags or "" in words:
                raise ValueError(
                    f"{where}: each word must have one tag. Received: "
                    f"{len(words)} words and {len(tags)} tags, "
                    f"{list(zip(words, tags, strict=False))!r:.120}."
                )
            yield Sentence(tuple(map(str, words)), tuple(map(str, tags)), where)


def items(value: Any, what: str, where: str) -> list[Any]:
    """Returns a list, from a list of JSON or from words between spaces."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = value.split()
    elif isinstance(value, str):
        value = value.split()
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(
            f"{where}: the {what} must be a list, or texts with spaces between "
            f"them. Received: {value!r:.80}."
        )
    return value
