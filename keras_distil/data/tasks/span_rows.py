"""Questions and contexts with answers, from SQuAD's JSON and from tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_distil.data.tasks.columns import find_columns
from keras_distil.data.tasks.squad import (
    SquadAnswer,
    SquadExample,
    check_examples,
    read_squad,
)
from keras_distil.data.tasks.tables import Table

SPAN_SUFFIXES = (".json",)


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
    examples: list[SquadExample] = []
    names = []
    for source in sources:
        if isinstance(source, Table):
            examples += _from_table(source, columns, len(examples))
            names.append(source.name)
        else:
            examples += read_squad(
                source, require_answers=is_training, encoding=encoding
            )
            names.append(f"'{source}'")
    if not examples:
        raise ValueError(
            f"{', '.join(names)}: there must be a question or more. Received: "
            "none."
        )
    check_examples(examples, ", ".join(names), require_answers=is_training)
    return examples


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
