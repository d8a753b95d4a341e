"""Processes a batch in parts whose sums equal those of the whole."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Tensor = Any


def accumulate(
    objective: Any,
    batch: Any,
    denominators: dict[str, Tensor],
    *,
    parts: int,
    observe: Callable | None,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Returns sums and gradients of this replica's batch, by micro-batches.

    Args:
        objective: the objective that computes them.
        batch: as from `objective.batch`.
        denominators: denominators for the whole batch of all replicas.
        parts: int >= 1, number of micro-batches.
        observe: called with the inputs of the metrics of `compile`.
    """
    evaluate = functools.partial(objective.compute_gradients, observe=observe)
    if parts == 1:
        return evaluate(batch, denominators, training=True)
    batch = objective.before_parts(batch, denominators, parts)

    def body(index: Tensor, totals: Any) -> tuple[Tensor, Any]:
        found = evaluate(batch.part(index, parts), denominators, training=True)
        return index + 1, tf.nest.map_structure(tf.add, totals, found)

    keys = {key for key, _ in objective.metric_terms.values()}
    zeros = (
        {key: tf.zeros([]) for key in keys},
        [tf.zeros(v.shape, v.dtype) for v in objective.variables],
    )
    _, totals = tf.while_loop(
        lambda index, _: index < parts,
        body,
        (tf.constant(0), zeros),
        parallel_iterations=1,
    )
    return totals
