"""What every distillation loss has: a name, a weight, a configuration."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_distil.utils.checks import check_number
from keras_distil.utils.graph_checks import BatchError

Tensor = Any


class DistillationLoss(keras.layers.Layer):
    """A weighted term of the distillation objective.

    It is a Keras layer only so that its weight and temperature are variables
    that callbacks may change mid-run and that are saved with the Distiller.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.

    Attributes:
        statistic: name of what the loss observes of every update, whose mean
            is a log `<name>_<statistic>`; None for losses without one.
    """

    statistic: str | None = None

    def __init__(self, *, weight: float, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)
        self.weight = self._add_scalar("weight", weight)
        if weight < 0:
            raise ValueError(
                f"`weight` must not be negative. Received: weight={weight}. "
                "Use 0 to leave a loss out."
            )
        self.built = True

    def _add_scalar(self, name: str, value: float) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(check_number(name, value)),
            trainable=False,
            # Every replica assigns the same scheduled value.
            aggregation="only_first_replica",
        )

    def observe(self, mean: Tensor) -> None:
        """Takes the statistic's mean over a batch, after its update."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {"name": self.name, "weight": _number(self.weight)}


class LogitsLoss(DistillationLoss):
    """A loss on the logits of one token (or one example).

    Its `token_values` get one target for each row of logits: the original
    token, or the label.

    Attributes:
        positions: "masked" if only positions chosen for masked language
            modelling count, "all" if all non-padding positions do.
        needs_teacher: whether `token_values` reads the teacher's logits.
        takes_top_logits: whether these may be `TopLogits`, as a cached
            teacher has them.
    """

    positions = "all"
    needs_teacher = True
    takes_top_logits = False

    def token_statistic(self, student_logits: Tensor) -> Tensor:
        """What the loss learns of each token, float32."""
        raise NotImplementedError

    def token_values(
        self,
        *,
        targets: Tensor,
        teacher_logits: Tensor | None,
        student_logits: Tensor,
    ) -> Tensor:
        """Unweighted loss of each token, float32, without the mean."""
        raise NotImplementedError


class HiddenStateLoss(DistillationLoss):
    """A loss on the last hidden states of one token.

    Attributes:
        needs_teacher: always true.
    """

    needs_teacher = True

    def token_values(
        self, *, teacher_hidden_states: Tensor, student_hidden_states: Tensor
    ) -> Tensor:
        """Unweighted loss of each token, float32, without the mean."""
        raise NotImplementedError


def checked_values(
    loss: DistillationLoss, values: Tensor, like: Tensor
) -> Tensor:
    """What a loss returned, if it is one value for each weight.

    Args:
        loss: whose `token_values` or `token_statistic` it was.
        values: what it returned.
        like: the weights, (rows,) or (batch, length).

    Returns:
        The values, float.

    Raises:
        ValueError: if there are fewer or more, or they are not floats.
    """
    message = (
        f"The loss {loss.name!r} must return one value per token (or example), "
        "without a sum or a mean. Received: "
    )
    values = ops.convert_to_tensor(values)
    if values.shape.rank is None:
        raise BatchError(f"{message}an unknown shape.")
    if not tf.as_dtype(values.dtype).is_floating:
        raise BatchError(f"{message}dtype {tf.as_dtype(values.dtype).name}.")
    mine, wanted = values.shape, like.shape
    # One value for all rows would be spread over them.
    fits = mine.is_compatible_with(wanted) and not any(
        size == 1 and other is None
        for size, other in zip(mine, wanted, strict=True)
    )
    if not fits:
        raise BatchError(
            f"{message}shape {mine}, where the weights have shape {wanted}."
        )
    return values


def _number(variable: keras.Variable) -> float:
    return float(ops.convert_to_numpy(variable))
