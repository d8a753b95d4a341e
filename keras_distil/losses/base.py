"""The base classes of distillation losses, the package's and the users' own."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_distil.losses.layers import LAST, check_layers
from keras_distil.utils.checks import check_number
from keras_distil.utils.graph_checks import BatchError

Tensor = Any


# What losses on the outputs and losses on the hidden states may read.
LOGITS = frozenset({"targets", "teacher_logits", "student_logits"})
HIDDEN_STATES = frozenset({"teacher_hidden_states", "student_hidden_states"})
COUNTS = ("tokens", "masked", "examples")


class DistillationLoss(keras.layers.Layer):
    """A weighted term of the distillation objective.

    A subclass says what it reads and what it counts, and computes one value
    for each token (or example) in `token_values`. The Distiller computes what
    is read once, takes the mean over what is counted, and logs it.

    It is a Keras layer only so that its weight and temperature are variables
    that callbacks may change mid-run and that are saved with the Distiller.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.

    Attributes:
        reads: frozenset of the arguments that `token_values` takes; see
            `LogitsLoss` and `HiddenStateLoss`.
        counts: what the mean is taken over. "tokens" are all non-padding
            tokens; of a task's outputs they are the decisions: texts, tokens
            with a label, or starts and ends of spans. "masked" are the
            positions chosen for masked language modelling, "examples" the
            decisions of a task.
        caption: what reports and charts call the loss; None for the name of
            its log.
        unit: of its values, for the same; empty for none.
        statistic: name of what the loss observes of every update, whose mean
            is a log `<name>_<statistic>`; None for losses without one.
        takes_top_logits: whether the teacher's logits may be `TopLogits`, as
            a cached teacher has them.
    """

    reads: frozenset[str] = frozenset()
    counts: str = "tokens"
    caption: str | None = None
    unit = ""
    statistic: str | None = None
    takes_top_logits = False

    def __init__(self, *, weight: float, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)
        self.weight = self.add_scalar("weight", weight)
        if weight < 0:
            raise ValueError(
                f"`weight` must not be negative. Received: weight={weight}. "
                "Use 0 to leave a loss out."
            )
        self.built = True

    @property
    def needs_teacher(self) -> bool:
        """Whether it reads anything of a teacher's."""
        return any(name.startswith("teacher_") for name in self.reads)

    @property
    def is_on_logits(self) -> bool:
        """Whether it reads the student's logits."""
        return "student_logits" in self.reads

    def add_scalar(self, name: str, value: float) -> keras.Variable:
        """Adds a number that callbacks may change and that is saved.

        Args:
            name: string, of the variable.
            value: float, at the start.

        Returns:
            A float32 scalar, not trained.

        Raises:
            TypeError: if `value` is not a number.
            ValueError: if it is not finite.
        """
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(check_number(name, value)),
            trainable=False,
            # Every replica assigns the same scheduled value.
            aggregation="only_first_replica",
        )

    def token_statistic(self, student_logits: Tensor) -> Tensor:
        """What the loss learns of each token, float32."""
        raise NotImplementedError

    def observe(self, mean: Tensor) -> None:
        """Takes the statistic's mean over a batch, after its update."""
        raise NotImplementedError

    def token_values(self, *args: Any, **inputs: Any) -> Tensor:
        """Unweighted loss of each token, float32, without the mean.

        Args:
            *args: none.
            **inputs: what `reads` names.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {"name": self.name, "weight": _number(self.weight)}


class LogitsLoss(DistillationLoss):
    """A loss on the logits of one token (or one example).

    Attributes:
        reads: of "targets", (rows,), the original tokens or the labels;
            "teacher_logits" and "student_logits", (rows, outputs). All three
            unless a subclass names fewer.
    """

    reads = LOGITS


class HiddenStateLoss(DistillationLoss):
    """A loss on the hidden states of one token.

    `token_values` compares one layer of the teacher with one of the student;
    the value of the loss is the mean over all pairs. Where the widths differ,
    the student's states come through a learned projection, one for each pair,
    which losses on the same pair share.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.
        layers: list of pairs (teacher, student). Numbers from 0 are outputs
            of transformer layers, "embeddings" is what the first one reads.
            "last" pairs the last layers, "uniform" the student's layer i
            with the teacher's layer (i + 1) * T / S - 1, of T and S layers.

    Attributes:
        reads: "teacher_hidden_states" and "student_hidden_states", (batch,
            length, width).

    Raises:
        ValueError: if `layers` is none of these, or lists a pair twice.
    """

    reads = HIDDEN_STATES

    def __init__(self, *, weight: float, name: str, layers: Any = LAST) -> None:
        super().__init__(weight=weight, name=name)
        self.layers = check_layers(layers)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        layers = self.layers
        return {
            **super().get_config(),
            "layers": (
                layers
                if isinstance(layers, str)
                else [list(pair) for pair in layers]
            ),
        }


def check_reads(loss: DistillationLoss) -> None:
    """Raises TypeError unless a loss says what it reads and counts."""
    kind = type(loss).__name__
    if isinstance(loss, HiddenStateLoss):
        right = loss.reads == HIDDEN_STATES
        form = f"be {sorted(HIDDEN_STATES)}"
    else:
        right = loss.is_on_logits and loss.reads <= LOGITS
        form = "hold 'student_logits', and may 'teacher_logits' and 'targets'"
    if not right:
        raise TypeError(
            f"`{kind}.reads` must {form}. Received: {sorted(loss.reads)}."
        )
    if loss.counts not in COUNTS:
        raise TypeError(
            f"`{kind}.counts` must be one of {list(COUNTS)}. "
            f"Received: counts={loss.counts!r}."
        )


def loss_values(
    loss: DistillationLoss, weight: Tensor, **inputs: Any
) -> Tensor:
    """Value of each token, from what the loss reads of the inputs.

    Args:
        loss: the loss.
        weight: as `like` of `checked_values`.
        **inputs: all that there is to read.
    """
    values = loss.token_values(**{name: inputs[name] for name in loss.reads})
    return checked_values(loss, values, weight)


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
