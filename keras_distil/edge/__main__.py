"""Prints what an exported student answers to a text.

    python -m keras_distil.edge FOLDER TEXT
    python -m keras_distil.edge FOLDER TEXT SECOND_TEXT

FOLDER is an export to LiteRT, or a static table. A second text is that of a
pair, or the context of a question.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from keras_distil.edge.answers import Answer
from keras_distil.edge.files import (
    CARD_FILE,
    EMBEDDING_KIND,
    STATIC_KIND,
    check_texts,
    read_kind,
)
from keras_distil.edge.static_student import StaticStudent
from keras_distil.edge.student import Student
from keras_distil.utils import quiet, token_roles
from keras_distil.utils.extras import names_package

_PROGRAM = "python -m keras_distil.edge"
# Numbers of a vector that are shown.
_SHOWN = 8
_PAIRS = ("classification", "multi_label", "regression")
# Raised by bad input; anything else is a bug of ours.
_EXPECTED = (ValueError, TypeError, OSError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the answer; bad input ends with one line.

    Args:
        arguments: the words after the program's name; those of the command
            line if None.

    Returns:
        The status of the process: 0, or 1 for bad input.
    """
    try:
        given = _parse(arguments)
        # On the first call the runtime logs its delegate as an error.
        lines: list[str] = []
        problem: Exception | None = None
        with quiet.held_back_stderr():
            try:
                lines = list(_answer(Path(given.folder), given.text))
            except _EXPECTED as error:
                problem = error
            except ModuleNotFoundError as error:
                if not names_package(error, "ai_edge_litert", "tokenizers"):
                    raise
                problem = ImportError(
                    f"{(error.name or '').partition('.')[0]} is not installed. "
                    "Install it with: pip install ai-edge-litert numpy "
                    "tokenizers."
                )
        if problem is not None:
            raise problem
    except (*_EXPECTED, ImportError) as error:
        print(f"{_PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}. See {_PROGRAM} --help.")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        _PROGRAM, description="Prints what an exported student answers."
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="an export to LiteRT, or static table"
    )
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="a text, or the two of a pair, or a question and its context",
    )
    return parser.parse_args(arguments)


def _answer(folder: Path, texts: Sequence[str]) -> Iterator[str]:
    """Yields the lines to print."""
    if not folder.exists():
        raise FileNotFoundError(f"There is no folder {folder}.")
    card = (folder if folder.is_dir() else folder.parent) / CARD_FILE
    kind = read_kind(card)
    _check_count(kind, texts)
    texts = check_texts(texts)
    if kind == STATIC_KIND:
        yield _shorten(StaticStudent(folder).embed(texts)[0])
        return
    student = Student(folder)
    yield from _LINES[kind](student, *texts)
    if kind != EMBEDDING_KIND and not student.reads_whole(*texts):
        yield (
            f"(The text was cut: the student reads {student.max_length} "
            "tokens.)"
        )


def _check_count(kind: str, texts: Sequence[str]) -> None:
    """Raises ValueError if a kind of model reads another number of texts."""
    count = len(texts)
    allowed: tuple[int, ...] = (1,)
    what = "one text, in quotes if it has spaces"
    if kind == "span":
        allowed, what = (2,), "two texts: a question and its context"
    elif kind in _PAIRS:
        allowed, what = (1, 2), "a text, or two if it was trained on pairs"
    if count not in allowed:
        raise ValueError(
            f"A {kind.replace('_', ' ')} model reads {what}. Received: {count} "
            f"{'text' if count == 1 else 'texts'}."
        )


def _classes(student: Student, *texts: str) -> Iterator[str]:
    for answer in student(*texts):
        yield f"{_percent(answer)}  {answer.text}"


def _number(student: Student, *texts: str) -> Iterator[str]:
    number = student(*texts)
    if not student.is_probability:
        yield f"{number:.4g}"
        return
    [label] = student.labels
    yield f"{_percent(Answer(label, number))}  {label}"


def _entities(student: Student, text: str) -> Iterator[str]:
    found = student.entities(text)
    for answer in found:
        part = text[answer.start : answer.end]
        yield f"{_percent(answer)}  {answer.text}  {_place(answer, part)}"
    if not found:
        yield "No entities."


def _parts(student: Student, question: str, context: str) -> Iterator[str]:
    for answer in student(question, context, top=3):
        yield f"{_percent(answer)}  {_place(answer, answer.text)}"


def _words(student: Student, text: str) -> Iterator[str]:
    masks = student(text)
    if not masks:
        mask = token_roles.find_role(student.tokenizer, "mask_token")
        raise ValueError(
            f"The text must have {mask} where a word is to be filled in. "
            f"Received: {text!r:.60}."
        )
    for answers in masks:
        if len(masks) > 1:
            yield f"At character {answers[0].start}:"
        for answer in answers:
            yield f"{_percent(answer)}  {answer.text.strip()}"


def _vector(student: Student, text: str) -> Iterator[str]:
    yield _shorten(student.embed(text)[0])


_LINES: dict[str, Callable[..., Iterator[str]]] = {
    "classification": _classes,
    "multi_label": _classes,
    "regression": _number,
    "token_classification": _entities,
    "span": _parts,
    "masked_lm": _words,
    EMBEDDING_KIND: _vector,
}


def _percent(answer: Answer) -> str:
    return f"{100 * answer.score:5.1f}%"


def _place(answer: Answer, part: str) -> str:
    return f'"{part}", characters {answer.start} to {answer.end}'


def _shorten(vector: Any) -> str:
    """Describes a vector by its first numbers."""
    shown = ", ".join(f"{number:.4f}" for number in vector[:_SHOWN])
    more = ", ..." if len(vector) > _SHOWN else ""
    return f"{len(vector)} numbers: {shown}{more}"


if __name__ == "__main__":
    sys.exit(main())
