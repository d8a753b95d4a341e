"""Tasks of parts of texts: words with tags, answers in contexts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_distil.data.tasks.columns import OBVIOUS, obvious_columns
from keras_distil.data.tasks.span_rows import read_span_rows
from keras_distil.data.tasks.tables import Table
from keras_distil.data.tasks.word_rows import items, read_word_rows
from keras_distil.planning.proposal.found import FoundTask
from keras_distil.planning.proposal.rows import SAMPLE, Sample

_SPAN = ("question", "context", "answers")
_WORDS = ("tokens", "tags")
_TAG = re.compile(r"O|[BIES](-.+)?")


def part_columns(sample: Sample) -> tuple[str, dict[str, str]] | None:
    """Finds the columns of a table that holds spans or tags.

    Returns:
        The kind and the names of the columns; None for another table.
    """
    for kind, keys in (("span", _SPAN), ("token_classification", _WORDS)):
        named = {
            key: obvious_columns(sample.table, OBVIOUS[key]) for key in keys
        }
        if all(len(names) == 1 for names in named.values()):
            columns = {key: names[0] for key, names in named.items()}
            if kind == "span" or _are_tagged(sample, *columns.values()):
                return kind, columns
    for words in sample.values:
        for tags in sample.values:
            if words != tags and _are_marked(sample, words, tags):
                columns = {"tokens": words, "tags": tags}
                return "token_classification", columns
    return None


def _are_marked(sample: Sample, words: str, tags: str) -> bool:
    """Whether a column has entity tags for the words of another one."""
    found = {tag for x in sample.values[tags] for tag in _items(x) or ["?"]}
    marked = all(isinstance(x, str) and _TAG.fullmatch(x) for x in found)
    return marked and len(found) > 1 and _are_tagged(sample, words, tags)


def _are_tagged(sample: Sample, words: str, tags: str) -> bool:
    """Whether two columns have lists of the same lengths."""
    counts = [
        [len(_items(x) or ()) for x in sample.values[name]]
        for name in (words, tags)
    ]
    return counts[0] == counts[1] and max(counts[0]) > 1


def _items(value: Any) -> list[Any] | None:
    try:
        return items(value, "words", "")
    except ValueError:
        return None


def find_word_task(
    source: Path | Table, columns: dict[str, str], encoding: str
) -> FoundTask:
    """Reads sentences with tags.

    Args:
        source: a CoNLL file, or a table.
        columns: names of a table's columns by what they hold.
        encoding: of a CoNLL file.

    Raises:
        ValueError: if a sentence is invalid, or there is a single tag.
    """
    rows = read_word_rows([source], columns, encoding=encoding)
    labels = rows.tags()
    marked = all(_TAG.fullmatch(tag) for tag in labels)
    notes = {}
    if not marked:
        notes["metric"] = "of words: the tags do not mark entities"
    return FoundTask(
        kind="token_classification",
        rows=len(rows),
        texts=[(x.words,) for x in _some(rows.sentences)],
        columns=dict(columns),
        labels=labels,
        metric="entity_f1" if marked else "accuracy",
        encoding=encoding,
        notes=notes,
    )


def find_span_task(
    source: Path | Table, columns: dict[str, str], encoding: str
) -> FoundTask:
    """Reads questions with answers.

    Args:
        source: a file of SQuAD's JSON, or a table.
        columns: names of a table's columns by what they hold.
        encoding: of SQuAD's file.

    Raises:
        ValueError: if a question or an answer is invalid.
    """
    rows = read_span_rows(
        [source], columns, encoding=encoding, is_training=True
    )
    return FoundTask(
        kind="span",
        rows=len(rows),
        texts=[(x.question, x.context) for x in _some(rows)],
        columns=dict(columns),
        metric="f1",
        encoding=encoding,
    )


def _some(rows: Sequence[Any]) -> Sequence[Any]:
    """Returns some rows, evenly spread."""
    return rows[:: max(1, len(rows) // SAMPLE)]
