"""What `metrics.jsonl` tells of a run's trainings, thinned for a chart."""

import array
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Points of a curve.
_POINTS = 200
_SCORES = ("mlm_accuracy", "teacher_agreement")


@dataclasses.dataclass(frozen=True)
class Series:
    """A value over the updates.

    Attributes:
        steps: float, (points,), updates made; the mean of those of a point.
        values: float, (points,), likewise.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Training:
    """One stage of a run.

    Attributes:
        last_step: updates made at its end.
        series: losses, and shares of masked words, by the name of the log.
    """

    last_step: int
    series: Mapping[str, Series]


def read_trainings(path: Path) -> dict[str, Training]:
    """The trainings of a run, by stage, in their order.

    Lines that a crash cut off, and values that are no finite numbers, are
    left out.

    Args:
        path: `metrics.jsonl`; there are no trainings if it is missing.

    Raises:
        OSError: if it cannot be read.
    """
    if not path.is_file():
        return {}
    found: dict[str, _Gathered] = {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            record = _record(line)
            if record is not None:
                stage = found.setdefault(record["stage"], _Gathered())
                stage.add(record)
    return {name: stage.training() for name, stage in found.items()}


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        whole = isinstance(record["stage"], str)
        whole = whole and type(record["step"]) is int
        whole = whole and 0 < record["step"] < 2**53
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return record if whole else None


class _Gathered:
    """The lines of one stage."""

    def __init__(self) -> None:
        self._last_step = 0
        self._values: dict[str, tuple[array.array, array.array]] = {}

    def add(self, record: dict[str, Any]) -> None:
        step = record["step"]
        self._last_step = max(step, self._last_step)
        for name, value in record.items():
            drawn = name in _SCORES or name == "loss" or name.endswith("_loss")
            if drawn and _can_be_drawn(value):
                steps, values = self._values.setdefault(
                    name, (array.array("d"), array.array("d"))
                )
                steps.append(step)
                values.append(value)

    def training(self) -> Training:
        series = {
            name: Series(*(_thin(np.array(each)) for each in both))
            for name, both in self._values.items()
        }
        return Training(self._last_step, series)


def _can_be_drawn(value: Any) -> bool:
    """Whether it is a number, and one that an axis can hold."""
    return type(value) in (int, float) and abs(value) < 1e12


def _thin(values: np.ndarray) -> np.ndarray:
    """Means of neighbours, if there are more values than points."""
    if len(values) <= _POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, _POINTS)])
