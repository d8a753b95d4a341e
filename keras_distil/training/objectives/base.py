"""The base class of objectives; a task adds its forward passes."""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import (
    DistillationLoss,
    HiddenStateLoss,
    chunked,
    functional,
)
from keras_distil.losses.base import checked_values, loss_values
from keras_distil.losses.mixtures import SeveralLogits, joint_logits
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.hidden_states import (
    LAST_LINK,
    HiddenStateLosses,
)
from keras_distil.training.objectives.teachers import Teacher, list_teachers

Tensor = Any


class Objective(abc.ABC):
    """The losses of one batch and their gradients, as sums.

    Everything is returned as sums over what the losses count. The caller
    passes the counts over the whole global batch as the denominators, so that
    a part of a batch (a replica's share or a micro-batch) contributes exactly
    its share.

    Args:
        teacher: a model for the same task, a list of them, a cached teacher, or
            None.
        student: the model that learns.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Attributes:
        teachers: the teachers as a list.
        chunk_size: tokens per chunk of vocabulary logits; set by
            `Distiller.compile`.
        jit_compile: what XLA compiles of the operations on logits; set by
            `Distiller.compile`.

    Raises:
        TypeError: if `losses` holds anything but distillation losses, or a
            loss that counts items that the task lacks.
        ValueError: if loss names repeat, if a loss needs a teacher and there
            is none, or the student cannot be trained exactly.
    """

    chunk_size = chunked.DEFAULT_CHUNK_SIZE
    jit_compile: chunked.JitCompile = False
    # Whether the outputs are vectors of texts.
    has_vectors = False

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        trains: bool = True,
    ) -> None:
        self.teachers = list_teachers(teacher)
        shared.check_models(self.teachers, student, trains=trains)
        shared.check_losses(
            losses,
            self.teachers,
            vectors=self.has_vectors,
            trains_outputs=self._trains_outputs(student),
        )
        self.teacher = teacher
        self.student = student
        self.losses = list(losses)
        self._logits_losses = [x for x in losses if x.is_on_logits]
        for loss in losses:
            # Raises an error if the task cannot count for this loss.
            self.denominator_of(loss)
        self._hidden_losses = self._make_hidden_losses(
            [x for x in losses if isinstance(x, HiddenStateLoss)]
        )

    @property
    def projection(self) -> keras.layers.Layer | None:
        """The projection for the last layers of student and first teacher."""
        return self._hidden_losses.projections.get(LAST_LINK)

    @property
    def layer_projections(self) -> list[keras.layers.Layer]:
        """The projections for other pairs of layers."""
        return [
            projection
            for link, projection in self._hidden_losses.projections.items()
            if link != LAST_LINK
        ]

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that the gradients are taken for."""
        variables = list(self.student.trainable_variables)
        if self.projection is not None:
            variables += self.projection.trainable_variables
        for projection in self.layer_projections:
            variables += projection.trainable_variables
        return variables

    @property
    def metric_terms(self) -> dict[str, tuple[str, str]]:
        """The keys of each log's sum and denominator."""
        terms = {
            f"{loss.name}_loss": (f"{loss.name}_sum", self.denominator_of(loss))
            for loss in self.losses
        }
        terms |= {
            f"{loss.name}_{loss.statistic}": (
                f"{loss.name}_statistic",
                self.denominator_of(loss),
            )
            for loss in self._logits_losses
            if loss.statistic is not None
        }
        return terms | self.score_terms

    # === What a task adds ===

    @abc.abstractmethod
    def _make_hidden_losses(
        self, losses: Sequence[HiddenStateLoss]
    ) -> HiddenStateLosses:
        """Finds the pairs of layers and makes their projections."""

    @property
    @abc.abstractmethod
    def score_terms(self) -> dict[str, tuple[str, str]]:
        """The logs other than losses, as in `metric_terms`."""

    @property
    @abc.abstractmethod
    def metric_outputs(self) -> dict[str, Any]:
        """The inputs of `compile`'s metrics; see `shared.metric_outputs`."""

    @abc.abstractmethod
    def denominator_of(self, loss: DistillationLoss) -> str:
        """Returns the key of the denominator of a loss's mean.

        Raises:
            TypeError: if the loss counts items that the task lacks.
        """

    @abc.abstractmethod
    def batch(self, data: Any) -> Any:
        """Returns the parts of a Keras triple, checked and named.

        Raises:
            ValueError: if they do not match each other or the models.
        """

    @abc.abstractmethod
    def outputs(self, inputs: dict[str, Tensor], *, training: bool) -> Tensor:
        """Returns the student's outputs, float32."""

    @abc.abstractmethod
    def denominators(self, batch: Any) -> dict[str, Tensor]:
        """Returns the denominators of a batch's means, float32 scalars.

        "tokens" counts all tokens that the student reads.
        """

    @abc.abstractmethod
    def compute_gradients(
        self,
        batch: Any,
        denominators: dict[str, Tensor],
        *,
        training: bool,
        observe: shared.Observer | None = None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Runs each model once; returns sums and, in training, gradients.

        Args:
            batch: a batch, or a part of one.
            denominators: denominators for the whole global batch.
            training: whether dropout is active and gradients are computed.
            observe: called with targets, the student's outputs and weights.

        Returns:
            The sums of `metric_terms`, and the gradients of the weighted total
            for `variables` (none without `training`).
        """

    def _trains_outputs(self, student: keras.Model) -> bool:
        """Whether the student's output layer is to be trained."""
        return True

    # Most tasks have nothing to do in these two.

    def commit(self, batch: Any) -> None:  # noqa: B027
        """Assigns what a forward pass changes besides trained weights.

        Called once the checks of the loss have passed.
        """

    def check_micro_batches(self, parts: int) -> None:  # noqa: B027
        """Raises ValueError if parts of a batch do not add up to the whole."""

    def before_parts(
        self,
        batch: Any,
        denominators: dict[str, Tensor],  # noqa: ARG002
        parts: int,  # noqa: ARG002
    ) -> Any:
        """Returns the batch with what its parts need to know of the whole.

        Called before a batch is processed in micro-batches, in training.

        Args:
            batch: this replica's batch.
            denominators: denominators for the whole global batch.
            parts: int >= 2, number of micro-batches.
        """
        return batch

    # === For the tasks ===

    def _logits_sums(
        self,
        weight: Tensor,
        *,
        labelled: Tensor | None = None,
        **inputs: Tensor,
    ) -> dict[str, Tensor]:
        """Returns the sums of the losses on logits and of their statistics.

        Args:
            weight: float32, (rows,), the weight of each decision.
            labelled: float32, (rows,), the same for losses that read labels;
                None if it is equal.
            **inputs: what losses on logits read, with `rows` first.
        """
        sums = {}
        of_labels = weight if labelled is None else labelled
        for loss in self._logits_losses:
            counted = of_labels if loss.reads_labels else weight
            values = loss_values(loss, counted, **inputs)
            sums[f"{loss.name}_sum"] = functional.weighted_sum(values, counted)
            if loss.statistic is not None:
                statistic = loss.token_statistic(inputs["student_logits"])
                observed = checked_values(loss, statistic, counted)
                sums[f"{loss.name}_statistic"] = functional.weighted_sum(
                    observed, counted
                )
        return sums

    def _choices(
        self,
        weight: Tensor,
        *,
        targets: Tensor,
        teacher_logits: Tensor | SeveralLogits | None,
        student_logits: Tensor,
        labelled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Returns the weight of choices that are correct, or the teachers'."""
        best = tf.argmax(student_logits, axis=-1, output_type=tf.int32)

        def share(others: Tensor, weight: Tensor) -> Tensor:
            equal = tf.cast(best == others, tf.float32)
            return functional.weighted_sum(equal, weight)

        if targets.shape.rank == 2:
            targets = tf.argmax(targets, axis=-1, output_type=tf.int32)
        correct = share(targets, weight if labelled is None else labelled)
        sums = {"correct": correct}
        if teacher_logits is not None:
            choices = tf.argmax(
                joint_logits(teacher_logits), axis=-1, output_type=tf.int32
            )
            sums["agreeing"] = share(choices, weight)
        return sums

    def _scales(self, denominators: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the factor of each loss's sum in the total: weight/count."""
        return {
            loss.name: tf.math.divide_no_nan(
                tf.convert_to_tensor(loss.weight),
                denominators[self.denominator_of(loss)],
            )
            for loss in self.losses
        }


class UnreachedError(ValueError):
    """No loss reaches some trainable variables.

    Attributes:
        variables: these variables.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        super().__init__(
            f"No loss reaches the trainable variable {variables[0].path!r}. "
            "Set the layer's `trainable` to False."
        )
        self.variables = list(variables)


def dense_gradients(
    variables: Sequence[keras.Variable],
    gradients: Sequence[Tensor | tf.IndexedSlices | None],
) -> list[Tensor]:
    """Returns dense gradients.

    Raises:
        UnreachedError: if variables have no gradient; it names them all.
    """
    pairs = list(zip(variables, gradients, strict=True))
    unreached = [variable for variable, found in pairs if found is None]
    if unreached:
        raise UnreachedError(unreached)
    return [dense_gradient(variable, found) for variable, found in pairs]


def dense_gradient(
    variable: keras.Variable,
    through_encoder: Tensor | tf.IndexedSlices | None,
    through_decoder: Tensor | None = None,
) -> Tensor:
    """Returns the dense sum of gradients through the encoder and the decoder.

    Raises:
        UnreachedError: if there is no gradient.
    """
    if through_decoder is not None and isinstance(
        through_encoder, tf.IndexedSlices
    ):
        return tf.tensor_scatter_nd_add(
            through_decoder,
            through_encoder.indices[:, None],
            tf.cast(through_encoder.values, through_decoder.dtype),
        )
    gradients = [
        tf.convert_to_tensor(gradient)
        for gradient in (through_encoder, through_decoder)
        if gradient is not None
    ]
    if not gradients:
        raise UnreachedError([variable])
    return tf.add_n(gradients)
