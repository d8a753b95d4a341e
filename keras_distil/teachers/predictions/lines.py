"""A model's outputs as the lines of a file of predictions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_distil.data.tasks.row_keys import RowKeys, written_hashes


def prediction_lines(
    outputs: Sequence[np.ndarray],
    keys: RowKeys,
    kind: str,
    names: Sequence[str],
    *,
    rows: Sequence[int],
    ids: Sequence[str] | None,
) -> Iterator[dict[str, Any]]:
    """Yields an object for each row, in the form that is read back.

    Numbers have all digits of float32, so what is read back is equal.

    Args:
        outputs: float32, (outputs,) or (tokens, outputs), of each example.
        keys: the rows and their examples.
        kind: kind of the task.
        names: names of the classes; empty without classes.
        rows: the number of each row in its file.
        ids: the id of each row; None without ids.
    """
    ends = keys.windows(len(outputs))
    form = "scores" if kind == "regression" else "logits"
    writer = _Writer(keys, kind, names)
    for i, each in enumerate(written_hashes(keys.hashes)):
        values = [
            writer.value(outputs[example], i, example)
            for example in range(ends[i], ends[i + 1])
        ]
        named = {} if ids is None else {"id": ids[i]}
        yield {
            **named,
            "row": rows[i],
            "hash": each,
            form: values[0] if len(values) == 1 else values,
        }


class _Writer:
    """Turns the outputs of an example into what stands in a file."""

    def __init__(self, keys: RowKeys, kind: str, names: Sequence[str]) -> None:
        self._kind, self._names = kind, names
        if keys.places is not None and keys.counts is not None:
            places = keys.find_places()
            self._places = places[:, np.argsort(places[1], kind="stable")]
            self._counts = keys.counts
            self._first = np.cumsum(keys.counts) - keys.counts

    def value(self, outputs: np.ndarray, row: int, example: int) -> Any:
        """Returns the value of a window."""
        if self._kind == "regression":
            return _number(outputs[0])
        if self._kind == "span":
            return {
                name: [_number(x) for x in outputs[:, column]]
                for column, name in enumerate(("start", "end"))
            }
        if self._kind == "token_classification":
            return self._words(outputs, row, example)
        return self._named(outputs)

    def _named(self, outputs: np.ndarray) -> dict[str, float]:
        return dict(zip(self._names, map(_number, outputs), strict=True))

    def _words(self, outputs: np.ndarray, row: int, example: int) -> list[Any]:
        """Returns an object for each word, None for one that is not read."""
        begin, end = np.searchsorted(self._places[1], [example, example + 1])
        words: list[Any] = [None] * int(self._counts[row])
        for word, position in zip(
            self._places[0, begin:end], self._places[2, begin:end], strict=True
        ):
            words[word - self._first[row]] = self._named(outputs[position])
        return words


def _number(value: Any) -> float:
    """Returns a float32 with the digits that it has, as a Python number."""
    return float(str(np.float32(value)))
