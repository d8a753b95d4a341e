"""The part of a training set that chooses epochs, taken out by content alone.

A development set that chooses an epoch and then scores it flatters the score.
A tenth of the training set can choose instead, if no model has trained on it.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from keras_distil.data.corpus.split import content_digest
from keras_distil.data.tasks.glue import TaskExamples
from keras_distil.data.tasks.squad import SquadExample

_FRACTION = 0.1


def split_examples(
    examples: TaskExamples,
) -> tuple[TaskExamples, TaskExamples]:
    """Takes a tenth of a training set out of it.

    In each class, the examples with the smallest hashes are taken, at least
    one, so that small tasks keep the shares of their classes; scores count as
    a single class. Examples of equal text stay together, whatever their
    labels: their class is the first of them. The choice depends on the
    examples alone: not on their order, a seed or a model.

    Args:
        examples: a training set.

    Returns:
        The examples to train on, and those taken out, both in their order.
        Nothing is taken from a class whose examples are all of one text.
    """
    keys = [content_digest(text) for text in examples.first]
    if examples.second is not None:
        keys = [
            content_digest(f"{key} {content_digest(text)}")
            for key, text in zip(keys, examples.second, strict=True)
        ]
    labels = np.asarray(examples.labels)
    classes = np.zeros(len(labels), np.int32)
    if labels.dtype.kind in "iu":
        classes = labels
    taken = _choose(keys, classes)
    return _pick(examples, ~taken), _pick(examples, taken)


def split_questions(
    examples: Sequence[SquadExample],
) -> tuple[list[SquadExample], list[SquadExample]]:
    """Takes a tenth of the questions out of a training set.

    All questions of an article are on one side, as in SQuAD's own split. If
    there is only one article, or titles are missing, all questions of a
    paragraph are. Articles are taken by the hash of their title, as long as
    they fit into a tenth of the questions.

    Args:
        examples: a training set.

    Returns:
        The questions to train on, and those taken out, both in their order.
        Nothing is taken if all are about one paragraph.
    """
    contexts = [content_digest(example.context) for example in examples]
    titles = [content_digest(example.title) for example in examples]
    keys = contexts
    if len(set(titles)) > 1 and all(example.title for example in examples):
        # A paragraph that occurs in two articles belongs to one of them.
        article: dict[int, int] = {}
        for context, title in zip(contexts, titles, strict=True):
            article[context] = min(title, article.get(context, title))
        keys = [article[context] for context in contexts]
    taken = _choose(keys, np.zeros(len(keys), np.int32))
    return (
        [
            example
            for example, out in zip(examples, taken, strict=True)
            if not out
        ],
        [example for example, out in zip(examples, taken, strict=True) if out],
    )


def _choose(keys: Sequence[int], classes: np.ndarray) -> np.ndarray:
    """Marks the rows to take out.

    Args:
        keys: a hash for each row; rows of the same one stay together.
        classes: int, (rows,).

    Returns:
        bool, (rows,).
    """
    groups: dict[int, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    by_class: dict[int, list[list[int]]] = {}
    for key in sorted(groups):
        rows = groups[key]
        by_class.setdefault(int(classes[rows].min()), []).append(rows)
    taken = np.zeros(len(keys), bool)
    for of_class in by_class.values():
        for rows in _smallest(of_class):
            taken[rows] = True
    return taken


def _smallest(groups: list[list[int]]) -> Iterable[list[int]]:
    """Yields groups of rows, in their order, that fit into a tenth of all."""
    if len(groups) == 1:
        return
    count = sum(map(len, groups))
    room = max(round(_FRACTION * count), min(map(len, groups)))
    for rows in groups:
        if len(rows) <= room:
            room -= len(rows)
            yield rows


def _pick(examples: TaskExamples, chosen: np.ndarray) -> TaskExamples:
    rows = np.flatnonzero(chosen)
    second = examples.second
    return TaskExamples(
        [examples.first[row] for row in rows],
        None if second is None else [second[row] for row in rows],
        np.asarray(examples.labels)[rows],
        [examples.ids[row] for row in rows],
    )
