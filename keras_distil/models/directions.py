"""Directions along which an embedder's vectors are reduced, or sorted."""

from collections.abc import Sequence

import numpy as np

# Of the optimisation of `cut_directions`. Texts whose cosine is 0.1 lower count
# a third as much: what is near decides a search.
_TEMPERATURE = 0.1
_STEPS, _BATCH = 400, 1024
_RATE, _BETAS, _EPSILON = 3e-3, (0.9, 0.999), 1e-8


def choose_directions(
    vectors: np.ndarray, dimension: int, cuts: Sequence[int] = ()
) -> np.ndarray:
    """Returns principal directions, or those that suit cut vectors.

    Args:
        vectors: float64, (rows, width), at least `dimension` of each.
        dimension: int, number of directions.
        cuts: as for `cut_directions`, below `dimension`; none for the
            principal directions.

    Returns:
        float64, (width, dimension), as columns.

    Raises:
        ValueError: if a cut is not below `dimension`.
    """
    if not cuts:
        return principal_directions(vectors)[:, :dimension]
    if not 0 < min(cuts) <= max(cuts) < dimension:
        raise ValueError(
            "Cut vectors must be shorter than whole ones, which have "
            f"{dimension} numbers. Received: cuts={list(cuts)}."
        )
    return cut_directions(vectors, cuts)[:, :dimension]


def principal_directions(vectors: np.ndarray) -> np.ndarray:
    """Returns directions of second moments as columns, the largest first.

    Args:
        vectors: float64, (rows, width).
    """
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    directions = directions[:, ::-1]
    # An eigenvector's sign is arbitrary; its largest entry gets a plus.
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    return directions * signs


def cut_directions(vectors: np.ndarray, cuts: Sequence[int]) -> np.ndarray:
    """Returns orthogonal directions whose first ones keep cosines best.

    Principal directions keep dot products best, but cut vectors are scaled to
    length 1 again and searched for near ones. From them on, the first `cut`
    directions are moved to lower, for each cut,

        sum over i, j of a_ij * (cos(u_i, u_j) - cos(v_i, v_j))**2 / sum a_ij
        a_ij = exp(cos(v_i, v_j) / 0.1),  u = the first numbers of v

    on batches of vectors, by Adam and orthogonalisation, in float64 and in the
    same order each time. The others are the principal directions of what is
    left.

    Args:
        vectors: float64, (rows, width).
        cuts: ints below the width, the numbers of directions that are kept.

    Returns:
        float64, (width, width), a rotation.

    Reference:
        The objective is that of Tung and Mori 2019, arXiv:1907.09682, with
        weights.
    """
    turned = principal_directions(vectors)
    kept = max(cuts)
    first = _learned(vectors, turned[:, :kept], cuts)
    # In the coordinates of the directions that the learned ones leave.
    free = np.linalg.svd(first, full_matrices=True)[0][:, kept:]
    return np.concatenate(
        [first, free @ principal_directions(vectors @ free)], axis=1
    )


def _learned(
    vectors: np.ndarray, directions: np.ndarray, cuts: Sequence[int]
) -> np.ndarray:
    unit = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    order = np.random.default_rng(0)
    mean, spread = np.zeros_like(directions), np.zeros_like(directions)
    for step in range(1, _STEPS + 1):
        rows = order.integers(0, len(unit), min(_BATCH, len(unit)))
        gradient = _gradient(unit[rows], directions, cuts)
        mean += (1 - _BETAS[0]) * (gradient - mean)
        spread += (1 - _BETAS[1]) * (gradient**2 - spread)
        rate = _RATE * (1 + np.cos(np.pi * step / _STEPS)) / 2
        moved = mean / (1 - _BETAS[0] ** step)
        moved /= np.sqrt(spread / (1 - _BETAS[1] ** step)) + _EPSILON
        directions, triangle = np.linalg.qr(directions - rate * moved)
        # A decomposition may turn directions around.
        directions *= np.where(np.diag(triangle) < 0.0, -1.0, 1.0)
    return directions


def _gradient(
    unit: np.ndarray, directions: np.ndarray, cuts: Sequence[int]
) -> np.ndarray:
    """Returns the gradient of the sum over the cuts, of all directions."""
    wanted = unit @ unit.T
    weights = np.exp((wanted - 1) / _TEMPERATURE)
    weights /= weights.sum()
    found = np.zeros_like(directions)
    projected = unit @ directions
    for cut in cuts:
        shortened = projected[:, :cut]
        norms = np.maximum(
            np.linalg.norm(shortened, axis=1, keepdims=True), 1e-12
        )
        scaled = shortened / norms
        errors = weights * (scaled @ scaled.T - wanted)
        by_scaled = 4 * errors @ scaled
        along = (by_scaled * scaled).sum(axis=1, keepdims=True)
        by_shortened = (by_scaled - along * scaled) / norms
        found[:, :cut] += unit.T @ by_shortened
    return found
