"""GLUE's metrics, averages and submission files."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from keras_distil.data.tasks.glue import HIGHEST_SCORE, GLUETask, glue_task
from keras_distil.utils import disk

# Smaller differences, relative to the greatest value, are rounding errors.
_ROUNDING = 1e-12


def score_glue(
    task: str | GLUETask, labels: Any, predictions: Any
) -> dict[str, float]:
    """Computes the metrics of a task.

    Formula:
        accuracy = share of correct predictions
        f1 = 2 tp / (2 tp + fp + fn), for class 1
        matthews_correlation = (tp tn - fp fn)
            / sqrt((tp + fp) (tp + fn) (tn + fp) (tn + fn))
        pearson = linear correlation; spearman = linear correlation of the
            ranks, where equal values share the mean of their ranks

    Where a formula divides 0 by 0 the value is 0: correlations if all labels
    or all predictions are equal (except for rounding), as with a single
    example, and F1 if class 1 is neither present nor predicted.

    Args:
        task: a name such as "cola", or a task.
        labels: (examples,), integer class ids, or scores from 0 to 5.
        predictions: (examples,), the same; scores may be any finite numbers.

    Returns:
        A number for each of the task's `metrics`: 0 to 1, correlations -1 to
        1. With MNLI's two development sets, call it for each.

    Raises:
        TypeError: if class ids are not integers, or scores not numbers.
        ValueError: if the task is unknown, there are no examples, the shapes
            differ, or a value is not allowed.

    Example:
        >>> score_glue("mrpc", [1, 1, 0, 0], [1, 0, 0, 0])["accuracy"]
        0.75

    Reference:
        Wang et al. 2018, arXiv:1804.07461, table 1. Differs: none; SciPy,
        which computes the correlations, leaves those called 0 above undefined.
    """
    task = glue_task(task)
    labels = _check_values(task, "labels", labels)
    predictions = _check_values(task, "predictions", predictions)
    if labels.shape != predictions.shape:
        raise ValueError(
            "`labels` and `predictions` must be of one shape. Received: "
            f"labels.shape={labels.shape}, "
            f"predictions.shape={predictions.shape}."
        )
    if task.is_regression:
        _check_range("labels", labels)
    return {
        name: float(_METRICS[name](labels, predictions))
        for name in task.metrics
    }


def main_score(*scores: Mapping[str, float]) -> float:
    """Returns the single score of a task: the mean of its metrics.

    Args:
        *scores: what `score_glue` returned; several for a task with several
            development sets, which have equal weight.

    Returns:
        The mean.

    Raises:
        ValueError: if there are no scores, or one is not from -1 to 1.

    Example:
        >>> main_score({"accuracy": 0.75}, {"accuracy": 0.25})
        0.5

    Reference:
        Wang et al. 2018, arXiv:1804.07461. Differs: none.
    """
    means = [_mean("scores", score) for score in scores]
    return _mean("scores", {str(n): mean for n, mean in enumerate(means)})


def macro_score(by_task: Mapping[str, float]) -> float:
    """Returns the mean over tasks, which have equal weight.

    Args:
        by_task: the main score of each task, by name. Which tasks count is
            the caller's choice: means over different tasks are not
            comparable.

    Returns:
        The mean.

    Raises:
        ValueError: if there is no task, one is unknown, or a score is not
            from -1 to 1.

    Example:
        >>> macro_score({"cola": 0.25, "sst2": 0.75})
        0.5

    Reference:
        Wang et al. 2018, arXiv:1804.07461. Differs: none.
    """
    for name in by_task:
        glue_task(name)
    return _mean("by_task", by_task)


def class_predictions(task: str | GLUETask, logits: Any) -> np.ndarray:
    """Turns a model's outputs into predictions.

    Args:
        task: a name such as "cola", or a task.
        logits: float, (examples, outputs); or (examples,) for scores.

    Returns:
        (examples,): int32 class ids, the lowest of equally likely ones; or
        float32 scores, clipped to 0..5.

    Raises:
        TypeError: if the outputs are not numbers.
        ValueError: if the task is unknown, the shape is wrong, or an output
            is not finite.

    Example:
        >>> class_predictions("stsb", [[-0.5], [2.5], [7.0]])
        array([0. , 2.5, 5. ], dtype=float32)
    """
    task = glue_task(task)
    outputs = _check_numbers("logits", logits)
    if task.is_regression and outputs.ndim == 1:
        outputs = outputs[:, np.newaxis]
    if outputs.ndim != 2 or outputs.shape[1] != task.num_outputs:
        raise ValueError(
            f"`logits` must be of shape (examples, {task.num_outputs}) for "
            f"'{task.name}'. Received: shape {np.shape(logits)}."
        )
    if task.is_regression:
        return np.clip(outputs[:, 0], 0.0, HIGHEST_SCORE).astype(np.float32)
    return outputs.argmax(axis=1).astype(np.int32)


def write_submission(
    task: str | GLUETask,
    split: str,
    ids: Sequence[int],
    predictions: Any,
    folder: str | os.PathLike,
) -> Path:
    r"""Writes the predictions of a test set in the format of GLUE's server.

    Args:
        task: a name such as "cola", or a task.
        split: one of the task's `test`.
        ids: (examples,), 0, 1, ... in any order; the lines are sorted.
        predictions: (examples,), class ids, or scores from 0 to 5.
        folder: folder for the file; created if missing. Old files are replaced.

    Returns:
        The file's path, `folder/CoLA.tsv` for example.

    Raises:
        TypeError: if class ids are not integers, or scores not numbers.
        ValueError: if the task is unknown, the split is not a test set, ids
            are missing, or a prediction is not allowed.
        OSError: if the disk is full or may not be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> path = write_submission("rte", "test", [1, 0], [0, 1], folder)
        >>> path.name, path.read_text().splitlines()[1:]
        ('RTE.tsv', ['0\tnot_entailment', '1\tentailment'])

    Reference:
        https://gluebenchmark.com/faq; names of files and columns as in
        `jiant/scripts/benchmarks/benchmarks.py` of
        https://github.com/nyu-mll/jiant.
    """
    task = glue_task(task)
    if split not in task.test:
        raise ValueError(
            f"`split` must be one of {list(task.test)} of '{task.name}'. "
            f"Received: split={split!r}."
        )
    values = _check_values(task, "predictions", predictions)
    if task.is_regression:
        _check_range("predictions", values)
    order = _order(ids, len(values))
    lines = ["index\tprediction"]
    for number, value in enumerate(values[order]):
        lines.append(f"{number}\t{_format_prediction(task, value)}")
    path = Path(folder).expanduser() / _file_name(task, split)
    disk.write_text(path, "\n".join(lines) + "\n")
    return path


def _format_prediction(task: GLUETask, value: Any) -> str:
    if task.is_regression:
        # The sum turns minus zero into zero.
        return f"{value + 0.0:.3f}"
    return task.written_labels[value]


def _file_name(task: GLUETask, split: str) -> str:
    suffix = {"test_matched": "-m", "test_mismatched": "-mm"}.get(split, "")
    return f"{task.title}{suffix}.tsv"


def _order(ids: Sequence[int], count: int) -> np.ndarray:
    numbers = np.asarray(ids)
    order = np.argsort(numbers, axis=None, kind="stable")
    if numbers.shape != (count,) or not np.array_equal(
        numbers[order], np.arange(count)
    ):
        raise ValueError(
            f"`ids` must be 0 to {count - 1} for {count} predictions, each "
            f"once, in any order. Received: {len(numbers)} ids, "
            f"{numbers.tolist()!r:.60}."
        )
    return order


def _check_values(task: GLUETask, name: str, values: Any) -> np.ndarray:
    """Returns class ids as int64, or scores as float64."""
    if task.is_regression:
        array = _check_numbers(name, values)
    else:
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(
                f"`{name}` must be integer class ids for '{task.name}'. "
                f"Received: dtype {array.dtype}."
            )
        outside = (array < 0) | (array >= task.num_outputs)
        _refuse(name, array, outside, f"0 to {task.num_outputs - 1}")
        array = array.astype(np.int64)
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"`{name}` must be of shape (examples,), with at least one. "
            f"Received: shape {array.shape}."
        )
    return array


def _check_numbers(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    # NumPy's letter for bfloat16, which occurs in mixed precision, is V.
    if array.size and array.dtype.kind not in "iufV":
        raise TypeError(
            f"`{name}` must be numbers. Received: dtype {array.dtype}."
        )
    array = array.astype(np.float64)
    _refuse(name, array, ~np.isfinite(array), "finite")
    return array


def _check_range(name: str, scores: np.ndarray) -> None:
    outside = (scores < 0.0) | (scores > HIGHEST_SCORE)
    _refuse(name, scores, outside, f"0 to {HIGHEST_SCORE:.0f}")


def _refuse(
    name: str, array: np.ndarray, wrong: np.ndarray, allowed: str
) -> None:
    if wrong.any():
        place = [int(i) for i in np.argwhere(wrong)[0]]
        raise ValueError(
            f"`{name}` must be {allowed}. Received: {array[wrong][0]} at "
            f"position {place[0] if len(place) == 1 else place}."
        )


def _mean(name: str, scores: Mapping[str, float]) -> float:
    if not scores:
        raise ValueError(f"`{name}` must hold a score. Received: none.")
    for key, score in scores.items():
        # Also refuses NaN.
        if not -1.0 <= score <= 1.0:
            raise ValueError(
                f"`{name}` must be numbers from -1 to 1. "
                f"Received: {key}={score!r}."
            )
    return float(np.mean(list(scores.values())))


def _is_constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def _matthews(labels: np.ndarray, predictions: np.ndarray) -> float:
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return metrics.matthews_corrcoef(labels, predictions)


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    return metrics.f1_score(labels, predictions, pos_label=1, zero_division=0.0)


def pearson(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Returns Pearson's correlation; 0 if either is constant."""
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return stats.pearsonr(labels, predictions).statistic


def spearman(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Returns Spearman's rank correlation; 0 if either is constant."""
    if _is_constant(labels) or _is_constant(predictions):
        return 0.0
    return stats.spearmanr(labels, predictions).statistic


_METRICS = {
    "accuracy": metrics.accuracy_score,
    "f1": _f1,
    "matthews_correlation": _matthews,
    "pearson": pearson,
    "spearman": spearman,
}
