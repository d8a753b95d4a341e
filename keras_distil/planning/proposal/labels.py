"""What the values of a column can be: classes, several labels, or numbers."""

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

# In the order in which they are tried.
SEPARATORS = ("|", ";", ",")
# Whole numbers with more values are numbers to predict, not classes.
MOST_NUMBERED_CLASSES = 10
# Longer values are texts.
_LONGEST_LABEL = 80
# A comma or a semicolon also stands inside of names.
_LEAST_SHARE_OF_SEVERAL = 0.1


@dataclasses.dataclass(frozen=True)
class LabelForm:
    """How the values of a column can be labels.

    Attributes:
        kind: "classification", "multi_label" or "regression".
        separator: what stands between the labels of a row.
        other: another kind that is possible; None if there is none.
    """

    kind: str
    separator: str = "|"
    other: str | None = None


def label_form(values: Sequence[Any], *, is_score: bool) -> LabelForm | None:
    """Finds out how a column's values can be labels.

    Args:
        values: some of them.
        is_score: whether the column has the name of a number to predict.

    Returns:
        The form; None if they are no labels, such as texts or ids.
    """
    given = [x for x in values if not _is_missing(x)]
    if not given:
        return None
    if any(isinstance(x, list) for x in given) or all(
        isinstance(x, str) and _json_list(x) is not None for x in given
    ):
        return LabelForm("multi_label")
    numbers = [to_number(x) for x in given]
    if None not in numbers:
        return _number_form(numbers, is_score)
    names = Counter(str(x).strip() for x in given)
    for separator in SEPARATORS:
        if _are_several(names, separator):
            return LabelForm("multi_label", separator, "classification")
    if not repeats(len(names), len(given)):
        return None
    if max(map(len, names)) > _LONGEST_LABEL:
        return None
    return LabelForm("classification")


def repeats(values: int, rows: int) -> bool:
    """Whether so few values in so many rows can be classes."""
    return values <= max(20, rows // 2)


def _number_form(numbers: Iterable[Any], is_score: bool) -> LabelForm | None:
    values = set(numbers)
    if not all(map(math.isfinite, values)):
        return None
    if not all(value == int(value) for value in values):
        return LabelForm("regression")
    if len(values) > MOST_NUMBERED_CLASSES:
        return LabelForm("regression", other="classification")
    if is_score:
        return LabelForm("regression", other="classification")
    return LabelForm("classification", other="regression")


def _are_several(names: Counter[str], separator: str) -> bool:
    """Whether a separator joins labels that also come in other company."""
    joined = sum(n for name, n in names.items() if separator in name)
    parts = {part.strip() for name in names for part in name.split(separator)}
    if not joined or max(map(len, parts)) > _LONGEST_LABEL:
        return False
    if separator == SEPARATORS[0]:
        return True
    is_common = joined >= _LEAST_SHARE_OF_SEVERAL * names.total()
    return is_common and len(parts) < len(names)


def are_flags(values: Sequence[Any]) -> bool:
    """Whether a column says of each row whether it has a label."""
    flags = {str(x).strip().lower() for x in values if not _is_missing(x)}
    known = {"0", "1", "0.0", "1.0", "true", "false"}
    return bool(flags) and flags <= known


def to_number(value: Any) -> float | None:
    """Returns a number that is written as text or JSON; None for others."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in ("", "nan")
    return value is None or value != value


def _json_list(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None
