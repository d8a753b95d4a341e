"""Reads files of predictions, and finds those of each row of a task."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_distil.data.tasks.dev_split import digests_of
from keras_distil.data.tasks.row_keys import HASH_DIGITS, RowKeys
from keras_distil.data.tasks.text_lines import read_objects
from keras_distil.teachers.predictions.values import ValueReader

_HASH = re.compile(rf"[0-9a-f]{{{HASH_DIGITS}}}")
# The predictions of a row, one for each window, or None.
Rows = list[list[np.ndarray] | None]


def read_predictions(
    paths: Sequence[Path],
    kind: str,
    labels: Sequence[str] | None,
    keys: Mapping[str, RowKeys],
    *,
    task: str,
) -> dict[str, Rows]:
    """Reads the predictions for the rows of a task.

    A line is an object with `id`, `hash` (of the text) or both, and with one of
    `logits`, `probabilities` and `scores`; see `ValueReader`. An `id` alone,
    which rows of several parts have, is that of the first of these parts.

    Args:
        paths: JSONL files, plain or compressed.
        kind: kind of the task.
        labels: names of its classes, in the order of the outputs; None without
            classes.
        keys: the rows of its parts.
        task: its name, for messages.

    Returns:
        By part, the predictions of each row; None for rows without any.

    Raises:
        ValueError: if a line is invalid, names a row twice, or none of the
            task's.
        FileNotFoundError: if a file is missing.
    """
    finder = _Finder(keys)
    values = ValueReader(kind, labels)
    found: dict[str, Rows] = {x: [None] * len(y) for x, y in keys.items()}
    strange, first, lines = 0, "", 0
    for where, row in _objects(paths):
        lines += 1
        name, places = finder.find(row, where)
        if not places:
            strange += 1
            first = first or f"{name} ({where})"
            continue
        read = values.read(row, where)
        for part, place in places:
            before = found[part][place]
            if before is not None and ("id" in row or not _equal(before, read)):
                raise ValueError(
                    f"{where}: a row must have one prediction. Received: "
                    f"another one for {name}. Remove one of them."
                )
            found[part][place] = read
    if strange:
        raise ValueError(
            f"{strange:,} of the {lines:,} predictions in "
            f"{', '.join(map(str, paths))} are for rows that {task} does not "
            f"have, first {first}. Give those of its own files, by the same "
            "ids, or `hash` as `keras-distil predict` writes it."
        )
    return found


def check_complete(rows: Rows, part: str, task: str) -> None:
    """Raises ValueError if a row of a part has no prediction."""
    missing = [i for i, row in enumerate(rows) if row is None]
    if missing:
        raise ValueError(
            f"The predictions lack {len(missing):,} of the {len(rows):,} rows "
            f"of the part {part} of {task}, first its row {missing[0] + 1}, "
            "counted without rows that are left out. Add them: `keras-distil "
            "predict` writes those of a whole file."
        )


class _Finder:
    """Finds rows by their ids, or by the hashes of their texts."""

    def __init__(self, keys: Mapping[str, RowKeys]) -> None:
        self._by_id: dict[int, list[tuple[str, int]]] = {}
        self._by_hash: dict[int, list[tuple[str, int]]] = {}
        for part, rows in keys.items():
            for index, hashes in (
                (self._by_id, rows.ids),
                (self._by_hash, rows.hashes),
            ):
                for row, each in enumerate([] if hashes is None else hashes):
                    index.setdefault(int(each), []).append((part, row))

    def find(
        self, row: Mapping[str, Any], where: str
    ) -> tuple[str, list[tuple[str, int]]]:
        """Returns the name of a line's row, and its parts and places."""
        if "id" not in row:
            return f"hash {row.get('hash')!r}", self._of_hash(row, where)
        value = row["id"]
        name = f"id {str(value)!r:.60}"
        try:
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise TypeError
            key = int(digests_of([str(value)])[0])
        # Half a surrogate pair cannot be encoded.
        except (TypeError, UnicodeEncodeError):
            raise ValueError(
                f"{where}: `id` must be a text or a whole number. "
                f"Received: {value!r:.60}."
            ) from None
        places = self._by_id.get(key, [])
        if "hash" not in row:
            return name, places[:1]
        same_text = self._of_hash(row, where)
        both = [place for place in places if place in same_text]
        if places and not both:
            raise ValueError(
                f"{where}: the text of {name} must be that of the task's row. "
                "Received: another `hash`. Predict the present file, or leave "
                "`hash` out if the text has only been written differently."
            )
        return name, both

    def _of_hash(
        self, row: Mapping[str, Any], where: str
    ) -> list[tuple[str, int]]:
        value = row.get("hash")
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise ValueError(
                f"{where}: a prediction must name its row by `id`, or by "
                f"`hash`, {HASH_DIGITS} hexadecimal digits. Received: "
                f"{list(row)!r:.80}, hash={value!r:.40}."
            )
        return self._by_hash.get(int(value, 16), [])


def _objects(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the objects of all files, each with its place."""
    for path in paths:
        for number, row in read_objects(path):
            yield f"'{path}', line {number}", row


def _equal(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )
