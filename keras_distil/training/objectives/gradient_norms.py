"""Measures the gradient norm of each single loss."""

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from keras_distil.training.objectives import Objective


class GradientNorms:
    """Norms of each loss's own gradient on one batch.

    Measuring changes nothing: the weights of the losses and the states of
    the student's random generators are restored.

    Args:
        objective: the objective of a Distiller with its teacher in memory.
        data: a batch as `fit` takes it.

    Raises:
        ValueError: if the parts of the batch do not match each other or the
            models.
    """

    def __init__(self, objective: "Objective", data: Any) -> None:
        self._objective = objective
        # Outside of any graph, so that an invalid batch raises its error here.
        with tf.init_scope():
            objective.batch(data)
        self._data = tf.nest.map_structure(_tensor, data)
        self._norm = tf.function(self._weighted_norm, autograph=False)

    def _weighted_norm(self) -> Any:
        """Returns the global norm of the weighted total's gradient."""
        batch = self._objective.batch(self._data)
        denominators = self._objective.denominators(batch)
        _, gradients = self._objective.compute_gradients(
            batch, denominators, training=True
        )
        return tf.linalg.global_norm(gradients)

    def measure(self) -> dict[str, float]:
        """Returns, by loss, the norm of its gradient at weight 1."""
        losses = self._objective.losses
        random = random_states(self._objective.student)
        kept = [v.numpy() for v in random]
        weights = [float(loss.weight.numpy()) for loss in losses]
        norms = {}
        try:
            for chosen in losses:
                for loss in losses:
                    loss.weight.assign(1.0 if loss is chosen else 0.0)
                # Uses the same dropout for all losses.
                assign_all(random, kept)
                norms[chosen.name] = float(self._norm())
        finally:
            for loss, weight in zip(losses, weights, strict=True):
                loss.weight.assign(weight)
            assign_all(random, kept)
        return norms


def _tensor(value: Any) -> Any:
    return None if value is None else tf.convert_to_tensor(value)


def random_states(model: keras.Model) -> list[keras.Variable]:
    """Returns a model's random generators, among all that is not trained."""
    trainable = {id(v) for v in model.trainable_variables}
    return [v for v in model.variables if id(v) not in trainable]


def assign_all(variables: list[keras.Variable], values: list[Any]) -> None:
    """Assigns a value to each variable."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
