"""Predictions as a file writes them, and as logits."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# The names of a row's predictions in a file, of which it has one.
FORMS = ("logits", "probabilities", "scores")
_ALLOWED = {
    "classification": FORMS,
    "multi_label": ("logits", "probabilities"),
    "regression": ("scores",),
    "token_classification": FORMS,
    "span": ("logits", "probabilities"),
}
_SPAN = ("start", "end")
# Probabilities sum to 1 with this error, as those of labels.
_SUM_ERROR = 1e-3
# The logarithm of a probability of 0 must be finite: -69.
_LEAST = 1e-30
# float32 holds little more.
_LARGEST = 1e30
_NUMBERED = re.compile(r"label_(\d{1,6})")


class ValueReader:
    """Reads the predictions of a row as logits, or as a number.

    Args:
        kind: kind of the task.
        labels: names of the classes in the order of the outputs; None for
            tasks without classes.
    """

    def __init__(self, kind: str, labels: Sequence[str] | None) -> None:
        self._kind = kind
        self._labels = tuple(labels or ())
        self._place = {_plain(x): i for i, x in enumerate(self._labels)}
        if not any(map(_NUMBERED.fullmatch, self._place)):
            # The names of Hugging Face for outputs without names.
            for i in range(len(self._labels)):
                self._place[f"label_{i}"] = i

    def read(self, row: Mapping[str, Any], where: str) -> list[Any]:
        """Returns a row's predictions, one for each window.

        Args:
            row: an object of the file.
            where: its place, for messages.

        Returns:
            float32, (outputs,) each, of words (words, outputs) and of spans
            (tokens, 2). A word without a prediction is NaN.

        Raises:
            ValueError: if they are invalid.
        """
        allowed = _ALLOWED[self._kind]
        forms = [x for x in FORMS if x in row]
        if len(forms) != 1 or forms[0] not in allowed:
            raise ValueError(
                f"{where}: the predictions for a {self._kind} must be one of "
                f"{', '.join(allowed)}. Received: {list(row)!r:.120}."
            )
        (form,) = forms
        read: Callable = {
            "regression": self._number,
            "span": self._span,
            "token_classification": self._words,
        }.get(self._kind, self._classes)
        return [
            read(each, form, where) for each in self._windows(row[form], where)
        ]

    def _windows(self, value: Any, where: str) -> list[Any]:
        """Returns the predictions of each window, of a whole text one."""
        if not isinstance(value, list):
            return [value]
        first = next((each for each in value if each is not None), None)
        is_words = self._kind == "token_classification"
        if not value or (is_words and not isinstance(first, list)):
            return [value]
        return value

    def _classes(self, value: Any, form: str, where: str) -> np.ndarray:
        """Returns the logits of classes, from {label: value}."""
        if not isinstance(value, dict) or not value:
            raise ValueError(
                f"{where}: `{form}` must be an object of labels and numbers, "
                f"such as {{{self._labels[0]!r}: 1.0}}. Received: "
                f"{value!r:.80}."
            )
        given = np.full(len(self._labels), np.nan)
        for name, number in value.items():
            place = self._place.get(_plain(name))
            if place is None:
                near = difflib.get_close_matches(name, self._labels, 1, 0.0)
                raise ValueError(
                    f"{where}: a label must be one of "
                    f"{list(self._labels)!r:.200}. Received: {name!r:.60}; the "
                    f"nearest is {near[0]!r}."
                )
            given[place] = _finite(number, f"the value of {name!r:.60}", where)
        if form == "logits":
            return _complete(given, self._labels, where)
        return self._from_shares(np.nan_to_num(given), form, where)

    def _from_shares(
        self, shares: np.ndarray, form: str, where: str
    ) -> np.ndarray:
        """Returns logits; labels that are not named have a share of 0."""
        least, most = shares.min(), shares.max()
        if least < 0 or (form == "probabilities" and most > 1 + _SUM_ERROR):
            raise ValueError(
                f"{where}: {form} must not be negative"
                f"{', nor above 1' if form == 'probabilities' else ''}. "
                f"Received: {(least if least < 0 else most):g}."
            )
        if self._kind == "multi_label":
            shares = shares.clip(max=1.0)
            odds = np.log(shares.clip(_LEAST)) - np.log(
                (1 - shares).clip(_LEAST)
            )
            return odds.astype(np.float32)
        return _log_shares(shares, form, where)

    def _words(self, value: Any, form: str, where: str) -> np.ndarray:
        if not isinstance(value, list):
            raise ValueError(
                f"{where}: `{form}` must be a list with an object for each "
                f"word. Received: {value!r:.80}."
            )
        outputs = len(self._labels)
        rows = [
            np.full(outputs, np.nan, np.float32)
            if each is None
            else self._classes(each, form, where)
            for each in value
        ]
        return np.array(rows, np.float32).reshape(-1, outputs)

    def _number(self, value: Any, form: str, where: str) -> np.ndarray:
        if isinstance(value, dict) and len(value) == 1:
            (value,) = value.values()
        return np.array([_finite(value, f"`{form}`", where)], np.float32)

    def _span(self, value: Any, form: str, where: str) -> np.ndarray:
        """Returns the logits of start and end of each token."""
        if not isinstance(value, dict) or set(value) != set(_SPAN):
            raise ValueError(
                f"{where}: `{form}` must be objects with the lists `start` and "
                f"`end`, one for each window. Received: {value!r:.80}."
            )
        columns = []
        for name in _SPAN:
            numbers = value[name] if isinstance(value[name], list) else []
            if not numbers or len(numbers) != len(value[_SPAN[0]]):
                raise ValueError(
                    f"{where}: `start` and `end` must be lists of equally many "
                    f"numbers. Received: {name}={value[name]!r:.80}."
                )
            column = np.array([_finite(x, f"`{name}`", where) for x in numbers])
            if form == "probabilities":
                if column.min() < 0:
                    raise ValueError(
                        f"{where}: probabilities must not be negative. "
                        f"Received: {column.min():g}."
                    )
                column = _log_shares(column, form, where)
            columns.append(column)
        return np.stack(columns, axis=1).astype(np.float32)


def _log_shares(shares: np.ndarray, form: str, where: str) -> np.ndarray:
    """Returns the logarithms of numbers that are shares of their sum."""
    total = float(shares.sum())
    if form == "probabilities" and abs(total - 1.0) > _SUM_ERROR:
        raise ValueError(
            f"{where}: probabilities must sum to 1, within {_SUM_ERROR:g}. "
            f"Received: {total:g}. Write numbers of another sum as `scores`, "
            "and outputs before a softmax as `logits`."
        )
    if total <= 0:
        raise ValueError(
            f"{where}: a label must have a score above 0. Received: none."
        )
    return np.log((shares / total).clip(_LEAST)).astype(np.float32)


def _complete(
    given: np.ndarray, labels: Sequence[str], where: str
) -> np.ndarray:
    missing = [x for x, y in zip(labels, given, strict=True) if np.isnan(y)]
    if missing:
        raise ValueError(
            f"{where}: `logits` must have a number for each label. Received: "
            f"none for {missing!r:.120}."
        )
    return given.astype(np.float32)


def _finite(value: Any, what: str, where: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # Whole numbers of JSON may be too large for a float.
    if not number or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(
            f"{where}: {what} must be a finite number. Received: {value!r:.60}."
        )
    return float(value)


def _plain(name: Any) -> str:
    return re.sub(r"[\s_-]+", "_", str(name).strip()).casefold()
