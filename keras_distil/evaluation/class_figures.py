"""Precision, recall and F1 of each class, label or type of entity."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn import metrics

from keras_distil.evaluation.entities import find_entities


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """How well a class is found.

    Attributes:
        name: the class.
        precision: right answers by answers, 0 to 1; 0 without answers.
        recall: right answers by examples, 0 to 1; 0 without examples.
        f1: 2 right / (answers + examples); 0 without either.
        support: number of examples.
        predicted: number of answers.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


def class_figures(
    labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]
) -> list[ClassFigures]:
    """Returns the figures of each class, as scikit-learn computes them.

    Args:
        labels: int classes, (n,), or 0 and 1, (n, classes).
        predictions: likewise.
        names: of the classes, in the order of their numbers.

    Example:
        >>> labels, said = np.array([0, 0, 1]), np.array([0, 1, 1])
        >>> [x.recall for x in class_figures(labels, said, ["no", "yes"])]
        [0.5, 1.0]
    """
    true = _one_per_class(labels, len(names))
    said = _one_per_class(predictions, len(names))
    return [
        _figures(
            name,
            *metrics.precision_recall_fscore_support(
                there, found, average="binary", zero_division=0.0
            )[:3],
            there=int(there.sum()),
            predicted=int(found.sum()),
        )
        for name, there, found in zip(names, true.T, said.T, strict=True)
    ]


def _one_per_class(values: np.ndarray, classes: int) -> np.ndarray:
    """Returns int8, (n, classes), 1 for the classes of each example."""
    if values.ndim == 2:
        return values.astype(np.int8)
    return (values[:, np.newaxis] == np.arange(classes)).astype(np.int8)


def entity_figures(
    tags: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> list[ClassFigures]:
    """Returns the figures of each type of entity, as seqeval computes them.

    Args:
        tags: the tags of each sentence's words.
        predicted: likewise.

    Returns:
        The types that are there or predicted, sorted.
    """
    right: Counter[str] = Counter()
    said: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for one, other in zip(tags, predicted, strict=True):
        true, found = find_entities(one), find_entities(other)
        right.update(kind for kind, *_ in true & found)
        said.update(kind for kind, *_ in found)
        there.update(kind for kind, *_ in true)
    return [
        _figures(
            kind,
            right[kind] / max(said[kind], 1),
            right[kind] / max(there[kind], 1),
            2.0 * right[kind] / (said[kind] + there[kind]),
            there=there[kind],
            predicted=said[kind],
        )
        for kind in sorted({*said, *there})
    ]


def _figures(
    name: str,
    precision: float,
    recall: float,
    f1: float,
    *,
    there: int,
    predicted: int,
) -> ClassFigures:
    return ClassFigures(
        name, float(precision), float(recall), float(f1), there, predicted
    )


def most_confused(counts: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Chooses the classes with the most errors.

    Args:
        counts: tables of one or more models, int, (classes, classes): how many
            examples of a class (row) are taken for another (column).
        most: int, how many classes to choose at most.

    Returns:
        int, (chosen,), ascending.
    """
    errors = np.sum(counts, axis=0)
    errors = errors - np.diag(np.diag(errors))
    wrong = errors.sum(axis=0) + errors.sum(axis=1)
    # The first of equals.
    return np.sort(np.argsort(-wrong, kind="stable")[:most])
