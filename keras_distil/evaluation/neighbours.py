"""Nearest neighbours among texts, and how far two models agree on them."""

import numpy as np

from keras_distil.evaluation.vectors import Found, blocks_of, search
from keras_distil.utils.checks import check_count


def nearest_others(vectors: np.ndarray, count: int) -> Found:
    """Returns each text's nearest other texts, the nearest first.

    Args:
        vectors: float, (texts, dimension), of two texts or more.
        count: int >= 1, neighbours; fewer if there are fewer.

    Raises:
        ValueError: if there are fewer than two texts.
    """
    if len(vectors) < 2:
        raise ValueError(
            "`vectors` must be those of at least two texts. Received: "
            f"{len(vectors)}."
        )
    count = min(check_count("count", count), len(vectors) - 1)
    found = search(vectors, blocks_of(vectors), count + 1)
    itself = found.documents == np.arange(len(vectors))[:, np.newaxis]
    # Where as many equal texts stand before it, the last one goes.
    itself[~itself.any(axis=1), -1] = True
    shape = (len(vectors), count)
    return Found(*(each[~itself].reshape(shape) for each in found))


def neighbour_agreement(
    teacher: np.ndarray, student: np.ndarray, count: int = 10
) -> float:
    """Returns how many of the teacher's neighbours are the student's, too.

    Formula:
        mean over texts of |nearest(teacher) & nearest(student)| / count

    Args:
        teacher: float, (texts, dimension), a model's vectors.
        student: float, (texts, any dimension), another's of the same texts.
        count: int >= 1, neighbours by cosine, the text itself left out.

    Returns:
        0 to 1. Two models that have nothing in common reach about
        count / texts.

    Raises:
        ValueError: if there are fewer than two texts, or the numbers differ.
    """
    if len(teacher) != len(student):
        raise ValueError(
            "`teacher` and `student` must be vectors of the same texts. "
            f"Received: {len(teacher)} and {len(student)}."
        )
    one, other = (
        nearest_others(vectors, count).documents
        for vectors in (teacher, student)
    )
    shared = (one[:, :, np.newaxis] == other[:, np.newaxis]).any(axis=2)
    return float(shared.mean())
