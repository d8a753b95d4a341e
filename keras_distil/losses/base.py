"""The base classes of distillation losses, built-in and custom."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_distil.losses import functional
from keras_distil.losses.attention_tables import Table, divergence_sum
from keras_distil.losses.layers import (
    LAST,
    check_attention_layers,
    check_layers,
)
from keras_distil.losses.mixtures import SeveralLogits
from keras_distil.utils.checks import check_count, check_number
from keras_distil.utils.graph_checks import BatchError

Tensor = Any


# The arguments that losses on outputs and on hidden states may read.
LOGITS = frozenset({"targets", "teacher_logits", "student_logits"})
HIDDEN_STATES = frozenset({"teacher_hidden_states", "student_hidden_states"})
ATTENTION = frozenset({"teacher_attention", "student_attention"})
VECTORS = frozenset({"teacher_vectors", "student_vectors"})
COUNTS = ("tokens", "masked", "examples")
VECTOR_COUNTS = ("examples", "pairs")


class DistillationLoss(keras.layers.Layer):
    """A weighted term of the distillation objective.

    A subclass declares what it reads and what it counts, and computes one
    value per token (or example) in `token_values`. The Distiller computes the
    inputs once for all losses, takes the mean over what is counted, and logs
    it.

    It is a Keras layer only so that its weight and temperature are variables
    that callbacks may change mid-run and that are saved with the Distiller.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.

    Attributes:
        reads: frozenset of the arguments that `token_values` takes; see
            `LogitsLoss` and `HiddenStateLoss`.
        counts: the items that the mean is taken over. "tokens" are all
            non-padding tokens; for losses on a task's outputs they are the
            decisions: texts, tokens with a label, or starts and ends of
            spans. "masked" are the positions chosen for masked language
            modelling, "examples" the decisions of a task.
        caption: name of the loss in reports and charts; None for the name of
            its log.
        unit: unit of its values in reports and charts; empty for none.
        statistic: name of a statistic that the loss observes at every update
            and whose mean is logged as `<name>_<statistic>`; None for losses
            without one.
        takes_top_logits: whether the teacher's logits may be `TopLogits`, as
            from a cached teacher.
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
        """Whether it reads any output of a teacher."""
        return any(name.startswith("teacher_") for name in self.reads)

    @property
    def is_on_logits(self) -> bool:
        """Whether it reads the student's logits."""
        return "student_logits" in self.reads

    @property
    def reads_labels(self) -> bool:
        """Whether it reads labels, or the original tokens."""
        return "targets" in self.reads

    def add_scalar(self, name: str, value: float) -> keras.Variable:
        """Adds a number that callbacks may change and that is saved.

        Args:
            name: string, name of the variable.
            value: float, initial value.

        Returns:
            A float32 scalar, not trainable.

        Raises:
            TypeError: if `value` is not a number.
            ValueError: if it is not finite.
        """
        return self.add_weight(
            name=name,
            shape=(),
            initializer=keras.initializers.Constant(check_number(name, value)),
            trainable=False,
            # All replicas assign the same scheduled value.
            aggregation="only_first_replica",
        )

    def add_temperature(self, temperature: float) -> keras.Variable:
        """Adds the scalar "temperature", which must be positive.

        Raises:
            TypeError: if `temperature` is not a number.
            ValueError: if it is not finite, or not positive.
        """
        variable = self.add_scalar("temperature", temperature)
        if temperature <= 0:
            raise ValueError(
                "`temperature` must be positive. "
                f"Received: temperature={temperature}."
            )
        return variable

    def token_statistic(self, student_logits: Tensor) -> Tensor:
        """Returns the statistic of each token, float32."""
        raise NotImplementedError

    def observe(self, mean: Tensor) -> None:
        """Receives the statistic's mean over a batch, after its update."""
        raise NotImplementedError

    def join_teachers(
        self, teacher_logits: Sequence[Tensor], student_logits: Tensor
    ) -> Tensor:
        """Returns the logits that `token_values` gets for several teachers.

        A loss without this method takes a single teacher only.

        Args:
            teacher_logits: each teacher's logits, (rows, outputs).
            student_logits: the student's.
        """
        raise NotImplementedError

    def token_values(self, *args: Any, **inputs: Any) -> Tensor:
        """Returns the unweighted loss of each token, float32.

        Args:
            *args: none.
            **inputs: the arguments that `reads` names.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {"name": self.name, "weight": _number(self.weight)}


class LogitsLoss(DistillationLoss):
    """A loss on the logits of one token (or one example).

    Attributes:
        reads: "targets", (rows,), the original tokens or the labels;
            "teacher_logits" and "student_logits", (rows, outputs); or the
            subset of these that a subclass names.
    """

    reads = LOGITS


class HiddenStateLoss(DistillationLoss):
    """A loss on the hidden states of one token.

    `token_values` compares one layer of the teacher with one of the student;
    the value of the loss is the mean over all pairs. If the widths differ, the
    student's states pass through a learned projection, one per pair, which is
    shared by losses on the same pair.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.
        layers: list of pairs (teacher, student). Numbers from 0 are outputs
            of transformer layers, "embeddings" is the input of the first.
            "last" pairs the last layers, "uniform" the student's layer i
            with the teacher's layer (i + 1) * T / S - 1, for T and S layers.
            For models other than encoders of text, pairs of layers' names,
            such as [("conv3", "conv1")].
        teacher: int >= 0. Which of several teachers it learns from, by its
            place in the list. Defaults to 0.

    Attributes:
        reads: "teacher_hidden_states" and "student_hidden_states", (batch,
            length, width). States with more axes, such as those of images,
            come with all of their positions along `length`.

    Raises:
        ValueError: if `layers` has another form, or lists a pair twice, or
            `teacher` is negative.
    """

    reads = HIDDEN_STATES

    def __init__(
        self, *, weight: float, name: str, layers: Any = LAST, teacher: int = 0
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.layers = check_layers(layers, names=True)
        self.teacher = check_count("teacher", teacher, least=0)

    def call(
        self,
        teacher_hidden_states: Tensor,
        student_hidden_states: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over the weighted tokens of one pair of layers."""
        values = self.token_values(
            teacher_hidden_states=teacher_hidden_states,
            student_hidden_states=student_hidden_states,
        )
        return functional.weighted_mean(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), **_places(self)}


class AttentionLoss(DistillationLoss):
    """A loss on the attention of one layer of each encoder.

    It compares tables with one row and one column per token: the softmax of
    products of queries, keys or values. A subclass names the tables and the
    number of heads. The value of a token is the mean of its rows over the
    heads; the value of the loss is the mean over all pairs of layers.

    Tables are computed a few at a time, with their gradients, so that memory
    does not grow with the square of the length; see
    `losses.attention_tables`.

    Args:
        weight: float >= 0, no unit. Factor of this term in the total loss.
        name: string. The log of this term is called `<name>_loss`.
        layers: as for `HiddenStateLoss`, without "embeddings".
        teacher: as for `HiddenStateLoss`.

    Attributes:
        reads: "teacher_attention" and "student_attention", (batch, length, 3,
            heads, size): queries, keys and values.

    Raises:
        ValueError: if `layers` has another form, or lists a pair twice, or
            `teacher` is negative.
    """

    reads = ATTENTION

    def __init__(
        self, *, weight: float, name: str, layers: Any = LAST, teacher: int = 0
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.layers = check_attention_layers(layers)
        self.teacher = check_count("teacher", teacher, least=0)

    @property
    def tables(self) -> list[Table]:
        """The tables that are compared."""
        raise NotImplementedError

    def heads_for(
        self, teacher: tuple[int, int], student: tuple[int, int]
    ) -> int:
        """Returns the number of heads that both models' vectors split into.

        Args:
            teacher: number and size of the teacher's own heads.
            student: likewise.

        Raises:
            ValueError: if there is no such number.
        """
        raise NotImplementedError

    def weighted_sum(
        self,
        teacher_attention: Tensor,
        student_attention: Tensor,
        *,
        padding_mask: Tensor,
        weight: Tensor,
        with_gradient: bool = True,
    ) -> Tensor:
        """Returns the sum over tokens of their values times their weights.

        Args:
            teacher_attention: float, (batch, length, 3, heads, size).
            student_attention: float, likewise, with its own heads.
            padding_mask: (batch, length), above 0 at real tokens.
            weight: float32, (batch, length); 0 at padding.
            with_gradient: whether a gradient will be asked for.
        """
        return divergence_sum(
            teacher_attention,
            student_attention,
            tables=self.tables,
            heads=self.heads_for(
                tuple(teacher_attention.shape[3:]),
                tuple(student_attention.shape[3:]),
            ),
            padding_mask=padding_mask,
            weight=weight,
            with_gradient=with_gradient,
        )

    def call(
        self,
        teacher_attention: Tensor,
        student_attention: Tensor,
        padding_mask: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over the weighted tokens of one pair of layers."""
        shape = ops.shape(student_attention)[:2]
        if padding_mask is None:
            padding_mask = ops.ones(shape)
        weight = ops.cast(padding_mask, "float32")
        if sample_weight is not None:
            weight *= ops.cast(sample_weight, "float32")
        total = self.weighted_sum(
            ops.convert_to_tensor(teacher_attention),
            ops.convert_to_tensor(student_attention),
            padding_mask=ops.convert_to_tensor(padding_mask),
            weight=weight,
        )
        return ops.divide_no_nan(total, ops.sum(weight))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), **_places(self)}


def _places(loss: HiddenStateLoss | AttentionLoss) -> dict[str, Any]:
    layers: Any = loss.layers
    if not isinstance(layers, str):
        layers = [list(pair) for pair in layers]
    # A loss written for a single teacher has no such argument.
    of_another = {"teacher": loss.teacher} if loss.teacher else {}
    return {"layers": layers, **of_another}


def check_reads(loss: DistillationLoss) -> None:
    """Raises TypeError unless a loss takes and declares what it reads."""
    kind = type(loss).__name__
    if isinstance(loss, HiddenStateLoss):
        right = loss.reads == HIDDEN_STATES
        form = f"be {sorted(HIDDEN_STATES)}"
    elif isinstance(loss, AttentionLoss):
        right = loss.reads == ATTENTION
        form = f"be {sorted(ATTENTION)}"
    elif loss.reads & VECTORS:
        right = loss.reads == VECTORS
        form = f"be {sorted(VECTORS)}"
    else:
        right = loss.is_on_logits and loss.reads <= LOGITS
        form = "hold 'student_logits', and may 'teacher_logits' and 'targets'"
    if not right:
        raise TypeError(
            f"`{kind}.reads` must {form}. Received: {sorted(loss.reads)}."
        )
    taken = inspect.signature(loss.token_values)
    try:
        taken.bind(**dict.fromkeys(loss.reads))
    except TypeError:
        raise TypeError(
            f"`{kind}.token_values` must take the arguments that "
            f"`{kind}.reads` names, {sorted(loss.reads)}. Received: {taken}. "
            "Make the two agree."
        ) from None
    counts = VECTOR_COUNTS if loss.reads & VECTORS else COUNTS
    if loss.counts not in counts:
        raise TypeError(
            f"`{kind}.counts` must be one of {list(counts)}. "
            f"Received: counts={loss.counts!r}."
        )


def loss_values(
    loss: DistillationLoss, weight: Tensor, **inputs: Any
) -> Tensor:
    """Returns the value of each token, from the inputs that the loss reads.

    Args:
        loss: the loss.
        weight: the weights, as `like` of `checked_values`.
        **inputs: all available inputs.
    """
    read = {name: inputs[name] for name in loss.reads}
    several = read.get("teacher_logits")
    if isinstance(several, SeveralLogits):
        read["teacher_logits"] = loss.join_teachers(
            several.logits, inputs["student_logits"]
        )
    values = loss.token_values(**read)
    return checked_values(loss, values, weight)


def checked_values(
    loss: DistillationLoss, values: Tensor, like: Tensor
) -> Tensor:
    """Checks that a loss returned one value per weight.

    Args:
        loss: the loss, for the message.
        values: result of its `token_values` or `token_statistic`.
        like: the weights, (rows,) or (batch, length).

    Returns:
        The values, float.

    Raises:
        ValueError: if their shape differs, or they are not floats.
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
    # A single value for all rows would be broadcast.
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
