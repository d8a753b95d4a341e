"""Questions and contexts with answers, from SQuAD's JSON and from tables."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.data.tasks.columns import find_columns
from keras_distil.data.tasks.dev_split import digests_of, text_digests
from keras_distil.data.tasks.squad import (
    SquadAnswer,
    SquadExample,
    check_examples,
    read_squad,
    refuse_ids,
)
from keras_distil.data.tasks.tables import Table

SPAN_SUFFIXES = (".json",)
# Questions that are in memory at a time.
_BATCH = 1024


def read_span_rows(
    sources: Sequence[Path | Table],
    columns: Mapping[str, Any],
    *,
    encoding: str = "utf-8",
    is_training: bool,
) -> list[SquadExample]:
    """Reads questions with their answers.

    The answers of a table's row are an object of lists, `{"text": [...],
    "answer_start": [...]}`, a list of objects with `text` and `answer_start`,
    or a text that is in the context once. An empty list means that the context
    does not answer the question.

    Args:
        sources: files of SQuAD's JSON, or tables.
        columns: names of a table's columns, as in a recipe.
        encoding: of SQuAD's files.
        is_training: whether each question of SQuAD's files must have an answer
            or be marked impossible.

    Returns:
        The questions, in the order of the files.

    Raises:
        ValueError: if a file or a row is invalid, an answer is not in its
            context, or an id is there twice.
    """
    read = _read(sources, columns, encoding, is_training=is_training)
    examples, name = list(read), _name(sources)
    if not examples:
        raise _no_question(name)
    check_examples(examples, name, require_answers=is_training)
    return examples


@dataclasses.dataclass(frozen=True, eq=False)
class SpanFiles:
    """Training questions that are read again whenever they are used.

    Attributes:
        name: the files, for messages.
        questions: uint64, (questions,), hashes of question and context.
        contexts: uint64, (questions,), hashes of the contexts.
        ids: uint64, (questions,), hashes of the ids.
        examples: yields the questions, in the order of the files.
    """

    name: str
    questions: np.ndarray
    contexts: np.ndarray
    ids: np.ndarray
    examples: Callable[[], Iterator[SquadExample]]

    def __len__(self) -> int:
        """The number of questions."""
        return len(self.ids)

    def chosen(self, rows: np.ndarray) -> list[SquadExample]:
        """Returns the questions where a bool of each is True, in memory."""
        return list(itertools.compress(self.examples(), rows))


def scan_span_files(
    sources: Sequence[Path | Table],
    columns: Mapping[str, Any],
    *,
    encoding: str = "utf-8",
) -> SpanFiles:
    """Reads training questions once, to check them; see `read_span_rows`.

    Of tables, some questions at a time are in memory; SQuAD's files are there
    one at a time.

    Args:
        sources: files of SQuAD's JSON, or tables.
        columns: names of a table's columns, as in a recipe.
        encoding: of SQuAD's files.

    Raises:
        ValueError: as for `read_span_rows`.
    """

    def examples() -> Iterator[SquadExample]:
        return _read(sources, columns, encoding, is_training=True)

    name, read = _name(sources), examples()
    digests: list[tuple[np.ndarray, ...]] = []
    while some := list(itertools.islice(read, _BATCH)):
        check_examples(some, name, require_answers=True)
        digests.append(
            (
                question_digests(some),
                context_digests(some),
                digests_of([each.id for each in some]),
            )
        )
    if not digests:
        raise _no_question(name)
    questions, contexts, ids = map(np.concatenate, zip(*digests, strict=True))
    order = np.argsort(ids, kind="stable")
    repeated = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(repeated):
        first = int(order[repeated].min())
        example = next(itertools.islice(examples(), first, None))
        refuse_ids([example.id] * len(repeated), f"{name}: ids are repeated")
    return SpanFiles(name, questions, contexts, ids, examples)


def question_digests(examples: Sequence[SquadExample]) -> np.ndarray:
    """Returns hashes of question and context, uint64, (questions,)."""
    return text_digests(
        [example.question for example in examples],
        [example.context for example in examples],
    )


def context_digests(examples: Sequence[SquadExample]) -> np.ndarray:
    """Returns hashes of the contexts, uint64, (questions,)."""
    return text_digests([example.context for example in examples])


def _name(sources: Sequence[Path | Table]) -> str:
    return ", ".join(
        source.name if isinstance(source, Table) else f"'{source}'"
        for source in sources
    )


def _no_question(name: str) -> ValueError:
    return ValueError(
        f"{name}: there must be a question or more. Received: none."
    )


def _read(
    sources: Sequence[Path | Table],
    columns: Mapping[str, Any],
    encoding: str,
    *,
    is_training: bool,
) -> Iterator[SquadExample]:
    before = 0
    for source in sources:
        examples: Iterable[SquadExample]
        if isinstance(source, Table):
            examples = _from_table(source, columns, before)
        else:
            examples = read_squad(
                source, require_answers=is_training, encoding=encoding
            )
        for example in examples:
            before += 1
            yield example


def _from_table(
    table: Table, given: Mapping[str, Any], before: int
) -> Iterator[SquadExample]:
    found = find_columns(table, ("question", "context", "answers", "id"), given)
    names = [name for one in found.values() for name in one]
    for places, values in table.batches(names):
        for i, row in enumerate(zip(*values, strict=True)):
            where = table.where(places[i])
            cells = dict(zip(found, row, strict=True))
            question, context = (
                _text(cells[key], key, where) for key in ("question", "context")
            )
            answers = _answers(cells["answers"], context, where)
            yield SquadExample(
                str(cells.get("id", before + places[i])),
                "",
                question,
                context,
                answers,
                is_impossible=not answers,
            )


def _text(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where}: the {key} must be a text. Received: {value!r:.80}."
        )
    return value


def _answers(value: Any, context: str, where: str) -> tuple[SquadAnswer, ...]:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{where}: the answers must be JSON, or a single text "
                f"({error}). Received: {value!r:.80}."
            ) from error
    if isinstance(value, str):
        return (_found(value, context, where),) if value.strip() else ()
    if isinstance(value, dict):
        value = [
            {"text": text, "answer_start": start}
            for text, start in zip(
                value.get("text", ()),
                value.get("answer_start", ()),
                strict=False,
            )
        ]
    answers = []
    for each in value or ():
        text, start = None, None
        if isinstance(each, dict):
            text, start = each.get("text"), each.get("answer_start")
        if not (isinstance(text, str) and text and isinstance(start, int)):
            raise ValueError(
                f"{where}: an answer must have a `text` and an `answer_start`. "
                f"Received: {each!r:.80}."
            )
        answers.append(SquadAnswer(text, start))
    return tuple(answers)


def _found(text: str, context: str, where: str) -> SquadAnswer:
    """Finds an answer that is given by its text alone."""
    count = context.count(text)
    if count != 1:
        raise ValueError(
            f"{where}: an answer without its place must be in the context "
            f"once. Received: {text!r:.80}, which is there {count} times. "
            'Write it as [{"text": ..., "answer_start": ...}].'
        )
    return SquadAnswer(text, context.index(text))
