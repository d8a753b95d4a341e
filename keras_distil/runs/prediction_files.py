"""The rows of a file that a model predicts, some at a time."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from keras_distil import data
from keras_distil.config.own_task import COLUMNS
from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.columns import find_columns
from keras_distil.data.tasks.dev_split import text_digests
from keras_distil.data.tasks.encoding import TextEncoder
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.data.tasks.span_rows import SPAN_SUFFIXES, read_span_rows
from keras_distil.data.tasks.tables import (
    TABLE_SUFFIXES,
    open_table,
    suffix_of,
)
from keras_distil.data.tasks.text_lines import read_lines
from keras_distil.data.tasks.word_rows import CONLL_SUFFIXES, read_word_rows
from keras_distil.data.tasks.words import encode_words

_PLAIN = ".txt"
# As in `finetune`.
_MAX_QUESTION, _STRIDE = 64, 128


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        columns: names of columns by what they hold, as in a recipe.
        encoding: of the file.
        max_length: tokens per example.
        stride: tokens that the windows of a text share; None for none.
        max_question: tokens of a question.
    """

    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    encoding: str = "utf-8"
    max_length: int = 128
    stride: int | None = None
    max_question: int = _MAX_QUESTION


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Some rows of the file.

    Attributes:
        examples: their examples.
        keys: their keys.
        rows: the number of each in the file.
        ids: the id of each; None without ids.
        skipped: rows among them without a text.
    """

    examples: EncodedExamples
    keys: RowKeys
    rows: Sequence[int]
    ids: Sequence[str] | None = None
    skipped: int = 0


def read_parts(
    path: Path, kind: str, tokenizer: tokenizers.Tokenizer, reading: Reading
) -> Iterator[Part]:
    """Yields the rows of a file; those without a text are left out.

    Args:
        path: a file that `check_file` accepts.
        kind: kind of the task.
        tokenizer: the model's tokenizer.
        reading: how the file is read.

    Raises:
        ValueError: if the file is invalid.
    """
    parts = {"token_classification": _word_parts, "span": _span_parts}
    return parts.get(kind, _text_parts)(path, tokenizer, reading)


def _text_parts(
    path: Path, tokenizer: tokenizers.Tokenizer, reading: Reading
) -> Iterator[Part]:
    encoder = TextEncoder(
        tokenizer, max_length=reading.max_length, stride=reading.stride
    )
    seen = skipped = 0
    for texts, ids in _texts(path, reading):
        kept = [
            i
            for i, row in enumerate(zip(*texts, strict=True))
            if all(isinstance(x, str) and x.strip() for x in row)
        ]
        numbers = [seen + i + 1 for i in kept]
        seen += len(texts[0])
        skipped += len(texts[0]) - len(kept)
        if not kept:
            continue
        first, *others = ([column[i] for i in kept] for column in texts)
        second = others[0] if others else None
        examples = encoder.encode(first, second)
        keys = RowKeys(
            path.name, text_digests(first, second), owners=examples.owners
        )
        chosen = None if ids is None else [str(ids[i]) for i in kept]
        yield Part(examples, keys, numbers, chosen, skipped)
        skipped = 0


def _texts(
    path: Path, reading: Reading
) -> Iterator[tuple[list[list[Any]], list[Any] | None]]:
    """Yields the columns of texts, and the ids, some rows at a time."""
    if suffix_of(path) == _PLAIN:
        lines = [
            line.rstrip("\r\n") for line in read_lines(path, reading.encoding)
        ]
        yield [lines], None
        return
    table = open_table(path, reading.encoding)
    columns = find_columns(
        table,
        ("text", "text_pair", "id"),
        {k: v for k, v in reading.columns.items() if k != "label"},
    )
    texts = columns["text"] + columns.get("text_pair", [])
    ids = columns.get("id", [])
    for _, values in table.batches([*texts, *ids]):
        yield values[: len(texts)], values[-1] if ids else None


def _word_parts(
    path: Path, tokenizer: tokenizers.Tokenizer, reading: Reading
) -> Iterator[Part]:
    is_conll = suffix_of(path) in CONLL_SUFFIXES
    source = path if is_conll else open_table(path, reading.encoding)
    columns = {k: v for k, v in reading.columns.items() if k != "tags"}
    rows = read_word_rows(
        [source], columns, encoding=reading.encoding, needs_tags=False
    )
    encoded = encode_words(
        tokenizer,
        [each.words for each in rows.sentences],
        max_length=reading.max_length,
        stride=reading.stride,
    )
    keys = RowKeys(
        path.name,
        rows.digests,
        owners=encoded.examples.owners,
        places=encoded.places,
        counts=encoded.counts,
    )
    yield Part(encoded.examples, keys, range(1, len(rows) + 1))


def _span_parts(
    path: Path, tokenizer: tokenizers.Tokenizer, reading: Reading
) -> Iterator[Part]:
    is_squad = suffix_of(path) in SPAN_SUFFIXES
    source = path if is_squad else open_table(path, reading.encoding)
    rows = read_span_rows(
        [source], reading.columns, encoding=reading.encoding, is_training=False
    )
    windows = data.make_squad_windows(
        rows,
        tokenizer,
        max_length=reading.max_length,
        stride=reading.stride or _STRIDE,
        max_question=reading.max_question,
    )
    hashes = text_digests(
        [row.question for row in rows], [row.context for row in rows]
    )
    pad_id = data.SpecialTokens.from_tokenizer(tokenizer).pad_id
    yield Part(
        data.encode_windows(
            windows, pad_id=pad_id, max_length=reading.max_length
        ),
        RowKeys(path.name, hashes, owners=windows.example),
        range(1, len(rows) + 1),
        [row.id for row in rows],
    )


def check_file(path: Path, kind: str) -> None:
    """Raises an error if a file cannot be one of a kind of task."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    others = {
        "token_classification": CONLL_SUFFIXES,
        "span": SPAN_SUFFIXES,
    }.get(kind, (_PLAIN,))
    allowed = (*TABLE_SUFFIXES, *others)
    if suffix_of(path) not in allowed:
        raise ValueError(
            f"A file of a {kind} must end in {', '.join(allowed)}, each also "
            f"with .gz. Received: '{path}'."
        )


def parse_columns(given: Sequence[str], kind: str) -> dict[str, str]:
    """Returns the columns of `KEY=NAME`.

    Raises:
        ValueError: if a key is not one of the kind.
    """
    known = COLUMNS[kind]
    columns = {}
    for each in given:
        key, mark, name = each.partition("=")
        if not mark or not name or key not in known:
            raise ValueError(
                f"`--column` must be KEY=NAME with a key of a {kind}, "
                f"{', '.join(known)}. Received: {each!r:.80}."
            )
        columns[key] = name
    return columns
