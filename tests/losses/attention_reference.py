"""Attention losses in plain NumPy float64, one sequence and head at a time.

Written from the papers' formulas, with nothing of the package.
"""

import numpy as np
from losses.reference import log_softmax


def divergence(teacher, student, tables, heads, padding_mask, weight=None):
    """Mean over weighted tokens, and its gradient for the student's vectors.

    Args:
        teacher: (batch, length, 3, heads, size).
        student: likewise.
        tables: (left, right, factor) of each table.
        heads: number of heads to split into.
        padding_mask: (batch, length).
        weight: (batch, length), or None.
    """
    weight = np.ones(padding_mask.shape) if weight is None else weight
    weight = np.asarray(weight, "float64") * (padding_mask > 0)
    share = weight / weight.sum() if weight.sum() else weight
    batch, length = padding_mask.shape
    wide = [
        np.asarray(x, "float64").reshape(batch, length, 3, -1)
        for x in (teacher, student)
    ]
    total, gradient = 0.0, np.zeros_like(wide[1])
    for sequence in range(batch):
        real = np.flatnonzero(padding_mask[sequence])
        for left, right, factor in tables:
            for head in range(heads):
                value = _one(wide, sequence, real, left, right, head, heads)
                rows, slopes_left, slopes_right = value
                its_share = share[sequence, real]
                total += factor * (rows * its_share).sum() / heads
                # Rows are independent, so each may be weighed afterwards.
                for part, slopes in (
                    (left, slopes_left(its_share)),
                    (right, slopes_right(its_share)),
                ):
                    size = slopes.shape[-1]
                    columns = slice(head * size, (head + 1) * size)
                    gradient[sequence, real, part, columns] += (
                        factor * slopes / heads
                    )
    return total, gradient.reshape(student.shape)


def _one(wide, sequence, real, left, right, head, heads):
    logs, vectors = [], []
    for each in wide:
        size = each.shape[-1] // heads
        columns = slice(head * size, (head + 1) * size)
        rows = each[sequence, real, left, columns]
        others = each[sequence, real, right, columns]
        logs.append(log_softmax(rows @ others.T / np.sqrt(size)))
        vectors = [rows, others]
    p, q = np.exp(logs[0]), np.exp(logs[1])
    values = (p * (logs[0] - logs[1])).sum(axis=-1)
    root = np.sqrt(vectors[0].shape[-1])

    def slopes_left(share):
        return (share[:, None] * (q - p)) @ vectors[1] / root

    def slopes_right(share):
        return (share[:, None] * (q - p)).T @ vectors[0] / root

    return values, slopes_left, slopes_right
