"""Files of a task's text without labels, which only a teacher labels."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_distil.data.tasks.glue import read_rows
from keras_distil.data.tasks.squad import SquadExample, read_squad

# Columns and keys that hold labels, in lower case.
LABELS = frozenset(
    {
        *("label", "labels", "gold", "gold_label", "score", "scores"),
        *("target", "targets", "class", "quality", "is_duplicate"),
        *("answer", "answers", "is_impossible"),
    }
)
_QUESTION = ("question", "context")


@dataclasses.dataclass
class UnlabelledTexts:
    """Texts, or pairs of texts, in the order of their files.

    Attributes:
        first: the texts, or the first texts of pairs.
        second: the second texts of pairs; None for single texts.
        skipped: number of lines and records without any text.
    """

    first: list[str]
    second: list[str] | None
    skipped: int = 0

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.first)


@dataclasses.dataclass(frozen=True)
class TextColumns:
    """How a task's files call its texts and its labels.

    Attributes:
        texts: names of the text, or of both texts; several if it has several.
        labels: more names of labels than `LABELS` has.
    """

    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """1 for texts, 2 for pairs."""
        return len(self.texts[0])

    def find(self, names: Collection[str]) -> tuple[str, ...] | None:
        """Returns which of the names are the texts; None if they are not."""
        fitting = (texts for texts in self.texts if set(texts) <= set(names))
        return next(fitting, None)

    def labels_in(self, names: Iterable[str]) -> list[str]:
        """Returns which of the names, besides the texts, are labels."""
        known = LABELS.union(name.lower() for name in self.labels)
        known -= {name.lower() for texts in self.texts for name in texts}
        return [name for name in names if name.lower() in known]


def read_unlabelled(
    paths: Sequence[Path], columns: TextColumns
) -> UnlabelledTexts:
    r"""Reads texts or pairs of texts.

    Single texts may be lines of a `.txt` file. A `.tsv` file begins with a
    line that names its columns, as GLUE's files do; a `.jsonl` file has a
    record per line. Other columns and keys are left out.

    Args:
        paths: the files.
        columns: how they call the texts and what would be labels.

    Raises:
        ValueError: if a file is of another kind, has another form, or holds
            labels; or if there is no text at all.
    """
    found = UnlabelledTexts([], [] if columns.count == 2 else None)
    kinds: dict[str, Callable[..., Iterator[tuple[str, ...]]]] = {
        ".tsv": _read_table,
        ".jsonl": _read_texts_of_records,
    }
    if columns.count == 1:
        kinds[".txt"] = _read_lines
    for path in paths:
        _check_kind(path, kinds)
        for texts in kinds[path.suffix](path, columns):
            if not any(text.strip() for text in texts):
                found.skipped += 1
                continue
            found.first.append(texts[0])
            if found.second is not None:
                found.second.append(texts[1])
    _check_some(found, paths)
    return found


def read_unlabelled_questions(paths: Sequence[Path]) -> list[SquadExample]:
    """Reads questions about paragraphs, without answers.

    Args:
        paths: `.json` files in the form of SQuAD without `answers`, and
            `.jsonl` files with a "question" and a "context" per line.

    Raises:
        ValueError: if a file is of another kind, has another form, or holds
            answers; or if there is no question at all.
    """
    columns = TextColumns((_QUESTION,))
    found: list[SquadExample] = []
    for path in paths:
        _check_kind(path, (".json", ".jsonl"))
        if path.suffix == ".json":
            examples = read_squad(path)
            _check_unanswered(path, examples)
            found += examples
            continue
        for number, (question, context) in enumerate(
            _read_texts_of_records(path, columns), 1
        ):
            if not question and not context:
                continue
            found.append(
                SquadExample(
                    f"{path}:{number}", "", question, context, (), False
                )
            )
    _check_some(found, paths)
    return found


def _check_kind(path: Path, kinds: Collection[str]) -> None:
    if path.suffix not in kinds:
        raise ValueError(
            "Unlabelled text of this task must be in files that end in "
            f"{', '.join(sorted(kinds))}. Received: '{path}'."
        )


def _check_some(found: Any, paths: Sequence[Path]) -> None:
    if not len(found):
        raise ValueError(
            "Unlabelled files must hold some text. Received: none in "
            f"'{paths[0]}'"
            + (f" and {len(paths) - 1} more." if len(paths) > 1 else ".")
        )


def _read_lines(path: Path, columns: TextColumns) -> Iterator[tuple[str, ...]]:
    for number, row in read_rows(path):
        if len(row) > 1:
            raise ValueError(
                f"'{path}', line {number}: a text must have no tab in it. "
                f"Received: {len(row)} columns. Name a table .tsv, with a "
                "first line that names its columns."
            )
        yield (row[0],)


def _read_table(path: Path, columns: TextColumns) -> Iterator[tuple[str, ...]]:
    rows = read_rows(path)
    _, names = next(rows, (1, []))
    texts = columns.find(names)
    if texts is None:
        wanted = " or ".join(str(list(texts)) for texts in columns.texts)
        raise ValueError(
            f"'{path}', line 1: it must name the columns, with {wanted} among "
            f"them. Received: {names!r:.300}."
        )
    places = [names.index(name) for name in texts]
    labels = columns.labels_in(names)
    if labels:
        fields = ",".join(str(place + 1) for place in sorted(places))
        raise ValueError(
            f"'{path}' must not hold labels, because the teacher gives them. "
            f"Received: the column {labels[0]!r}. Keep the text alone: "
            f"cut -f {fields} {shlex.quote(str(path))} > unlabelled.tsv"
        )
    for number, row in rows:
        if len(row) != len(names):
            raise ValueError(
                f"'{path}', line {number}: there must be {len(names)} "
                f"columns, {names}. Received: {len(row)} columns."
            )
        yield tuple(row[place] for place in places)


def _read_texts_of_records(
    path: Path, columns: TextColumns
) -> Iterator[tuple[str, ...]]:
    for number, row in read_rows(path):
        # Tabs may stand between the parts of a record.
        line = "\t".join(row)
        if not line.strip():
            yield ("",) * columns.count
            continue
        where = f"'{path}', line {number}"
        record = _parse_record(line, where)
        texts = columns.find(record)
        if texts is None or not all(_is_text(record[name]) for name in texts):
            wanted = " or ".join(str(list(texts)) for texts in columns.texts)
            raise ValueError(
                f"{where}: a record must have texts as {wanted}. Received: "
                f"{sorted(record)!r:.300}."
            )
        labels = columns.labels_in(record)
        labels = [name for name in labels if _holds_any(record[name])]
        if labels:
            raise ValueError(
                f"{where}: a record must not hold labels, because the teacher "
                f"gives them. Received: the key {labels[0]!r}. Leave it out: "
                f"jq -c {shlex.quote(f'del(.[{json.dumps(labels[0])}])')} "
                f"{shlex.quote(str(path))} > unlabelled.jsonl"
            )
        yield tuple(record[name] for name in texts)


def _parse_record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(
            f"{where}: there must be a JSON object. Received: {line!r:.80}."
        )
    return record


def _is_text(value: Any) -> bool:
    """Whether a value is text that a tokenizer takes."""
    # JSON can encode half a character.
    return isinstance(value, str) and not any(
        "\ud800" <= character <= "\udfff" for character in value
    )


def _holds_any(value: Any) -> bool:
    """Whether a value says anything; SQuAD's empty answers do not."""
    if isinstance(value, dict):
        return any(map(_holds_any, value.values()))
    return value is not None and value not in ("", [])


def _check_unanswered(path: Path, examples: Sequence[SquadExample]) -> None:
    answered = [x for x in examples if x.answers or x.is_impossible]
    if answered:
        raise ValueError(
            f"'{path}' must not hold answers, because the teacher gives them. "
            f"Received: {len(answered):,} answered questions, the first is "
            f"{answered[0].id!r:.80}. Leave them out: jq "
            "'del(.data[].paragraphs[].qas[] | .answers, .is_impossible)' "
            f"{shlex.quote(str(path))} > unlabelled.json"
        )
