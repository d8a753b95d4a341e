"""The base class of objectives; a task adds its forward passes."""

import abc
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss, HiddenStateLoss, chunked
from keras_distil.losses.layers import LAST_PAIR, Layer
from keras_distil.models import forward
from keras_distil.teachers import CachedTeacher
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.batch_checks import limits_of
from keras_distil.training.objectives.hidden_states import HiddenStateLosses

Tensor = Any


class Objective(abc.ABC):
    """The losses of one batch and their gradients, as sums.

    Everything is returned as sums over what the losses count. The caller
    passes the counts over the whole global batch as the denominators, so that
    a part of a batch (a replica's share or a micro-batch) contributes exactly
    its share.

    Args:
        teacher: a model for the same task, a cached teacher, or None.
        student: the model that learns.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Attributes:
        chunk_size: tokens per chunk of vocabulary logits; set by
            `Distiller.compile`.
        jit_compile: whether XLA compiles the operations on logits; set by
            `Distiller.compile`.

    Raises:
        TypeError: if `losses` holds anything but distillation losses, or a
            loss that counts items that the task lacks.
        ValueError: if the vocabularies differ, if loss names repeat, if a
            loss needs a teacher and there is none, or the student cannot be
            trained exactly.
    """

    chunk_size = chunked.DEFAULT_CHUNK_SIZE
    jit_compile = False

    def __init__(
        self,
        teacher: keras.Model | CachedTeacher | None,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        trains: bool = True,
    ) -> None:
        shared.check_pair(teacher, student, trains=trains)
        shared.check_losses(losses, teacher)
        self.teacher = teacher
        self.student = student
        self.losses = list(losses)
        self._limits = limits_of([teacher, student])
        self._logits_losses = [x for x in losses if x.is_on_logits]
        for loss in losses:
            # Raises an error if the task cannot count for this loss.
            self.denominator_of(loss)
        self._hidden_losses = HiddenStateLosses(
            teacher,
            student,
            [x for x in losses if isinstance(x, HiddenStateLoss)],
        )

    @property
    def projection(self) -> keras.layers.Layer | None:
        """The projection for the pair of last layers, or None."""
        return self._hidden_losses.projections.get(LAST_PAIR)

    @property
    def layer_projections(self) -> list[keras.layers.Layer]:
        """The projections for other pairs of layers."""
        return [
            projection
            for pair, projection in self._hidden_losses.projections.items()
            if pair != LAST_PAIR
        ]

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that the gradients are taken for."""
        variables = list(self.student.trainable_variables)
        if self.projection is not None:
            variables += self.projection.trainable_variables
        for projection in self.layer_projections:
            variables += projection.trainable_variables
        pooler = getattr(self.student.backbone, "pooled_dense", None)
        left_out: set[int] = set()
        if pooler is not None and not self.uses_pooler:
            left_out = {id(v) for v in pooler.variables}
        return [v for v in variables if id(v) not in left_out]

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

    @property
    def uses_pooler(self) -> bool:
        """Whether the outputs depend on BERT's pooler."""
        return False

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

    # === For the tasks ===

    def _teacher_states(self, batch: Any) -> dict[Layer, Tensor]:
        """Returns the teacher's hidden states that losses read, if any."""
        if not isinstance(self.teacher, keras.Model):
            return {}
        return forward.hidden_states(
            self.teacher,
            batch.inputs,
            self._hidden_losses.teacher_layers,
            training=False,
        )

    def _student_states(
        self, batch: Any, *, training: bool
    ) -> dict[Layer, Tensor]:
        """Returns the student's hidden states that losses read."""
        return forward.hidden_states(
            self.student,
            batch.inputs,
            self._hidden_losses.student_layers,
            training=training,
        )

    def _scales(self, denominators: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns the factor of each loss's sum in the total: weight/count."""
        return {
            loss.name: tf.math.divide_no_nan(
                tf.convert_to_tensor(loss.weight),
                denominators[self.denominator_of(loss)],
            )
            for loss in self.losses
        }


def dense_gradient(
    variable: keras.Variable,
    through_encoder: Tensor | tf.IndexedSlices | None,
    through_decoder: Tensor | None = None,
) -> Tensor:
    """Returns the dense sum of gradients through the encoder and the decoder.

    Raises:
        ValueError: if there is no gradient.
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
        raise ValueError(
            f"No loss reaches the trainable variable {variable.path!r}. "
            "Set the layer's `trainable` to False."
        )
    return tf.add_n(gradients)
