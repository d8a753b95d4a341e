"""Labels as files write them: a class, several labels, or a number."""

import array
import difflib
import json
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

# Codes of a row's labels; None if its label is missing.
Codes: TypeAlias = Any

# A column with more values holds something else.
_MOST_CLASSES = 10_000


def class_name(value: Any, where: str) -> str | None:
    """Returns a class as text, without the white space around it.

    Args:
        value: as read: a text, a number or a truth value.
        where: the row, for messages.

    Returns:
        The name; None for an empty field, null and NaN.

    Raises:
        ValueError: if it is anything else, such as a list.

    Example:
        >>> class_name(" spam ", "here"), class_name(True, "here")
        ('spam', 'true')
    """
    if isinstance(value, str):
        name = value.strip()
        return None if name.lower() in ("", "nan") else name
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(
        f"{where}: the label must be a text or a number. Received: "
        f"{value!r:.80}. Rows with several labels are of the kind multi_label."
    )


class _Names:
    """Numbers of names: those that are given, or all in order of appearance.

    Args:
        names: the labels of the recipe, or None.
        origin: where the names come from, for messages.
    """

    def __init__(self, names: Sequence[str] | None, origin: str) -> None:
        self.is_open = names is None
        self.codes = {name: i for i, name in enumerate(names or ())}
        self._origin = origin

    def code(self, name: str, where: str) -> int:
        """Returns the number of a name.

        Raises:
            ValueError: if it is not among those given, or there are too many.
        """
        code = self.codes.get(name)
        if code is not None:
            return code
        if not self.is_open:
            near = difflib.get_close_matches(name, self.codes, 1, cutoff=0.0)
            raise ValueError(
                f"{where}: the label must be one of {list(self.codes)!r:.300}, "
                f"{self._origin}. Received: {name!r:.80}; the nearest is "
                f"{near[0]!r:.80}."
            )
        if len(self.codes) >= _MOST_CLASSES:
            raise ValueError(
                f"{where}: a task must have at most {_MOST_CLASSES:,} labels. "
                f"Received: another one, {name!r:.80}. Name the column of the "
                "labels in `columns.label`."
            )
        self.codes[name] = len(self.codes)
        return self.codes[name]

    def finish(self, what: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Returns the sorted names, and the place of each code among them.

        Raises:
            ValueError: if there is only one.
        """
        names = list(self.codes)
        if self.is_open:
            is_whole = all(x.isdecimal() and x.isascii() for x in names)
            names.sort(key=int if is_whole else None)
        if len(names) < 2:
            raise ValueError(
                f"{what}: a task must have two labels or more. Received: "
                f"{names}."
            )
        place = {name: i for i, name in enumerate(names)}
        return tuple(names), np.array([place[x] for x in self.codes], np.int32)


class ClassColumn:
    """One class per row.

    Args:
        names: all classes, or None to take those of the rows.
        origin: where the names come from, for messages.
    """

    def __init__(
        self, names: Sequence[str] | None = None, origin: str = "`labels`"
    ) -> None:
        self._names = _Names(names, origin)
        # Texts as read: most rows repeat one.
        self._known: dict[str, int | None] = {}
        self._codes = array.array("i")

    def read(
        self, columns: Sequence[list[Any]], where: Sequence[str]
    ) -> list[Codes]:
        """Returns the codes of some rows.

        Args:
            columns: the column of the label.
            where: the rows, for messages.

        Raises:
            ValueError: if a label is invalid, or not among those given.
        """
        (values,) = columns
        known = self._known
        try:
            return [known[value] for value in values]
        except (KeyError, TypeError):
            return [
                self._code(value, place)
                for value, place in zip(values, where, strict=True)
            ]

    def _code(self, value: Any, where: str) -> int | None:
        name = class_name(value, where)
        code = None if name is None else self._names.code(name, where)
        if isinstance(value, str):
            self._known[value] = code
        return code

    def keep(self, codes: Sequence[Codes]) -> None:
        """Keeps the codes of rows that are used."""
        self._codes.extend(codes)

    def finish(self, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns int32, (rows,), each row's class, and the names of classes.

        Raises:
            ValueError: if the column holds no classes.
        """
        codes = np.frombuffer(self._codes, np.int32)
        if self._names.is_open:
            _check_are_classes(list(self._names.codes), len(codes), what)
        names, places = self._names.finish(what)
        return places[codes], names


def _check_are_classes(names: list[str], rows: int, what: str) -> None:
    """Refuses numbers to predict, and texts of which each row has another."""
    if names and all(map(_is_number, names)):
        fractions = [name for name in names if not name.lstrip("+-").isdigit()]
        if fractions:
            raise ValueError(
                f"{what}: the labels of a classification must be classes. "
                f"Received: numbers such as {fractions[0]}. Use the kind "
                "regression, or list all classes in `labels`."
            )
    if len(names) > max(20, rows // 2):
        raise ValueError(
            f"{what}: the labels of a classification must repeat. Received: "
            f"{len(names):,} different ones in {rows:,} rows, such as "
            f"{names[0]!r:.80}. Name the column of the labels in "
            "`columns.label`, or use the kind regression."
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class MultiLabelColumn:
    """Any number of labels per row.

    Args:
        names: all labels, or None to take those of the rows.
        separator: what stands between labels in a text.
        columns: the names of columns of 0 and 1, which are the labels; none if
            a single column lists them.
        origin: where the names come from, for messages.
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        *,
        separator: str = "|",
        columns: Sequence[str] = (),
        origin: str = "`labels`",
    ) -> None:
        self._separator = separator
        self._columns = tuple(columns) if len(columns) > 1 else ()
        self._names = _Names(names or self._columns or None, origin)
        self._codes = array.array("i")
        self._counts = array.array("i")

    def read(
        self, columns: Sequence[list[Any]], where: Sequence[str]
    ) -> list[Codes]:
        """Returns for each row a list of codes; see `ClassColumn.read`."""
        if self._columns:
            return [
                self._from_flags(flags, place)
                for *flags, place in zip(*columns, where, strict=True)
            ]
        (values,) = columns
        return [
            self._from_list(value, place)
            for value, place in zip(values, where, strict=True)
        ]

    def _from_flags(self, flags: Sequence[Any], where: str) -> list[int] | None:
        codes = []
        for name, value in zip(self._columns, flags, strict=True):
            flag = class_name(value, where)
            if flag is None:
                return None
            if flag.lower() not in ("0", "1", "true", "false", "0.0", "1.0"):
                raise ValueError(
                    f"{where}: the column {name!r} of a label must hold 0 or "
                    f"1. Received: {value!r:.80}."
                )
            if flag.lower() in ("1", "true", "1.0"):
                codes.append(self._names.code(name, where))
        return codes

    def _from_list(self, value: Any, where: str) -> list[int] | None:
        if isinstance(value, str):
            text = value.strip()
            if text.lower() == "nan":
                return None
            if text.startswith("["):
                value = _json_list(text, where)
            else:
                value = text.split(self._separator)
        elif value is None or value != value:
            return None
        if not isinstance(value, list):
            raise ValueError(
                f"{where}: the labels must be a list, or texts joined by "
                f"{self._separator!r}. Received: {value!r:.80}."
            )
        names = [class_name(each, where) for each in value]
        codes = {self._names.code(name, where) for name in names if name}
        return sorted(codes)

    def keep(self, codes: Sequence[Codes]) -> None:
        """Keeps the codes of rows that are used."""
        for each in codes:
            self._codes.extend(each)
            self._counts.append(len(each))

    def finish(self, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """Returns float32, (rows, labels), 1 for a row's labels, and the names.

        Raises:
            ValueError: if there is only one label.
        """
        names, places = self._names.finish(what)
        rows = np.repeat(np.arange(len(self._counts)), self._counts)
        table = np.zeros((len(self._counts), len(names)), np.float32)
        table[rows, places[np.frombuffer(self._codes, np.int32)]] = 1.0
        return table, names


def _json_list(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{where}: a list of labels must be JSON ({error}). Received: "
            f"{text!r:.80}."
        ) from error


class NumberColumn:
    """A number per row."""

    def __init__(self) -> None:
        self._numbers = array.array("d")

    def read(
        self, columns: Sequence[list[Any]], where: Sequence[str]
    ) -> list[Codes]:
        """Returns the numbers of some rows; see `ClassColumn.read`."""
        (values,) = columns
        return [
            _number(value, place)
            for value, place in zip(values, where, strict=True)
        ]

    def keep(self, codes: Sequence[Codes]) -> None:
        """Keeps the numbers of rows that are used."""
        self._numbers.extend(codes)

    def finish(self, what: str) -> tuple[np.ndarray, None]:
        """Returns float32, (rows,), and no names.

        Raises:
            ValueError: if all are equal.
        """
        numbers = np.frombuffer(self._numbers, np.float64)
        if len(numbers) > 1 and np.ptp(numbers) == 0.0:
            raise ValueError(
                f"{what}: the numbers of a regression must differ. Received: "
                f"{numbers[0]:g} in every row."
            )
        return numbers.astype(np.float32), None


def _number(value: Any, where: str) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = None
    if number is None or math.isinf(number):
        raise ValueError(
            f"{where}: the label of a regression must be a number. Received: "
            f"{value!r:.80}."
        )
    return None if math.isnan(number) else number
