"""Reads a run's trainings from `metrics.jsonl`, thinned out for a chart."""

import array
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Maximum number of points in a curve.
_POINTS = 200
_SCORES = ("mlm_accuracy", "teacher_agreement")


@dataclasses.dataclass(frozen=True)
class Series:
    """A value over the updates.

    Attributes:
        steps: float, (points,), number of updates made; the mean over the
            updates that a point combines.
        values: float, (points,), likewise.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Training:
    """One stage of a run.

    Attributes:
        last_step: number of updates made by the end.
        series: losses, and scores on masked words, by name in the log.
    """

    last_step: int
    series: Mapping[str, Series]


def read_trainings(path: Path) -> dict[str, Training]:
    """Reads a run's trainings, by stage, in order.

    Lines cut off by a crash, and values that are not finite numbers, are left
    out.

    Args:
        path: `metrics.jsonl`; without this file there are no trainings.

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
    """Collects the lines of one stage."""

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
    """Whether the value is a number that fits on an axis."""
    return type(value) in (int, float) and abs(value) < 1e12


def _thin(values: np.ndarray) -> np.ndarray:
    """Means of neighbouring values, if there are too many for a curve."""
    if len(values) <= _POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, _POINTS)])
