"""The predictions of rows as a teacher's outputs for their examples."""

from collections.abc import Sequence

import numpy as np

from keras_distil.data.tasks.batches import EncodedExamples
from keras_distil.data.tasks.row_keys import RowKeys
from keras_distil.teachers.predictions.reading import Rows


def outputs_of(
    rows: Rows, keys: RowKeys, examples: EncodedExamples, outputs: int
) -> list[np.ndarray]:
    """Returns the outputs for each example.

    Args:
        rows: the predictions of each row.
        keys: the rows and their examples.
        examples: the examples.
        outputs: number of the outputs.

    Returns:
        float32, (outputs,) each, or (tokens, outputs): those of a word are at
        its first piece, and other tokens, which no loss reads, have zeros.

    Raises:
        ValueError: if a row has another number of windows, words or tokens
            than its predictions.
    """
    found: list[np.ndarray] = []
    ends = keys.windows(len(examples))
    pieces = None if keys.places is None else _Pieces(keys)
    for row, values in enumerate(rows):
        begin, end = int(ends[row]), int(ends[row + 1])
        windows = _for_windows(values or [], end - begin, keys.name, row)
        for example, value in zip(range(begin, end), windows, strict=True):
            tokens = int(
                examples.starts[example + 1] - examples.starts[example]
            )
            if pieces is not None:
                value = pieces.spread(value, row, example, tokens, outputs)
            elif value.ndim == 2 and len(value) != tokens:
                raise ValueError(
                    f"{_name(keys.name, row)} must have predictions for its "
                    f"{tokens} tokens. Received: {len(value)}. They are of "
                    "another tokenizer, `max_length` or `stride`."
                )
            found.append(value)
    return found


def _for_windows(
    values: Sequence[np.ndarray], windows: int, part: str, row: int
) -> Sequence[np.ndarray]:
    """Returns a value for each window; one for a whole text is for all."""
    if len(values) == windows:
        return values
    if len(values) == 1:
        return [values[0]] * windows
    raise ValueError(
        f"{_name(part, row)} is read in {windows} windows, and must have as "
        f"many predictions, or one. Received: {len(values)}. They are of "
        "another tokenizer, `max_length` or `stride`."
    )


def _name(part: str, row: int) -> str:
    return f"Row {row + 1} of the part {part}"


class _Pieces:
    """Puts the outputs of words to their first pieces."""

    def __init__(self, keys: RowKeys) -> None:
        words, examples, positions = keys.find_places()
        order = np.argsort(examples, kind="stable")
        self._words, self._positions = words[order], positions[order]
        self._examples = examples[order]
        self._counts = np.asarray(keys.counts)
        self._first = np.cumsum(self._counts) - self._counts
        self._part = keys.name

    def spread(
        self,
        value: np.ndarray,
        row: int,
        example: int,
        tokens: int,
        outputs: int,
    ) -> np.ndarray:
        """Returns the outputs of an example's tokens."""
        if len(value) != self._counts[row]:
            raise ValueError(
                f"{_name(self._part, row)} has {self._counts[row]} words, and "
                "must have a prediction, or null, for each. Received: "
                f"{len(value)}."
            )
        begin, end = np.searchsorted(self._examples, [example, example + 1])
        words = self._words[begin:end] - self._first[row]
        if np.isnan(value[words]).any():
            word = int(words[np.isnan(value[words]).any(axis=1)][0])
            raise ValueError(
                f"{_name(self._part, row)} must have a prediction for each "
                f"word that is read. Received: null for word {word + 1}."
            )
        spread = np.zeros((tokens, outputs), np.float32)
        spread[self._positions[begin:end]] = value[words]
        return spread
