"""The base class of the objectives of transformer encoders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_distil.losses import AttentionLoss, DistillationLoss, HiddenStateLoss
from keras_distil.losses.layers import Attention, Layer
from keras_distil.models import forward
from keras_distil.training.objectives import shared
from keras_distil.training.objectives.attention import AttentionLosses
from keras_distil.training.objectives.base import Objective
from keras_distil.training.objectives.batch_checks import limits_of
from keras_distil.training.objectives.hidden_states import (
    HiddenStateLosses,
    of_encoders,
)
from keras_distil.training.objectives.teachers import (
    Teacher,
    check_each,
    list_teachers,
    live_teachers,
)

Tensor = Any


class EncoderObjective(Objective):
    """An objective whose models are an encoder and a head.

    Args:
        teacher: a model for the same task, a list of them, a cached teacher, or
            None.
        student: the model that learns.
        losses: the losses to add up.
        trains: whether the student is trained, not only scored.

    Raises:
        TypeError: as `Objective`.
        ValueError: if the vocabularies differ, or as `Objective`.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],
        *,
        trains: bool = True,
    ) -> None:
        self._check_vocabularies(teacher, student, losses)
        super().__init__(teacher, student, losses, trains=trains)
        self._attention_losses = AttentionLosses(
            self.teachers,
            student,
            [x for x in losses if isinstance(x, AttentionLoss)],
        )
        self._limits = limits_of([*self.teachers, student])

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that the gradients are taken for."""
        variables = super().variables
        pooler = getattr(self.student.backbone, "pooled_dense", None)
        left_out: set[int] = set()
        if pooler is not None and not self.uses_pooler:
            left_out = {id(v) for v in pooler.variables}
        return [v for v in variables if id(v) not in left_out]

    @property
    def uses_pooler(self) -> bool:
        """Whether the outputs depend on the encoder's pooler."""
        return False

    def _check_vocabularies(
        self,
        teacher: Teacher,
        student: keras.Model,
        losses: Sequence[DistillationLoss],  # noqa: ARG002
    ) -> None:
        """Raises ValueError if the models read different token ids."""
        check_each(
            list_teachers(teacher),
            lambda each: shared.check_vocabulary(each, student),
        )

    def _make_hidden_losses(
        self, losses: Sequence[HiddenStateLoss]
    ) -> HiddenStateLosses:
        return of_encoders(self.teachers, self.student, losses)

    def _teacher_layers(self, number: int) -> frozenset[Layer | Attention]:
        """Returns the states and attention of a teacher that losses read."""
        states = self._hidden_losses.teacher_layers(number)
        return states | self._attention_losses.teacher_layers(number)

    def _teacher_states(
        self, batch: Any
    ) -> list[dict[Layer | Attention, Tensor]]:
        """Returns each live teacher's states and attention that losses read."""
        return [
            forward.hidden_states(
                teacher,
                batch.inputs,
                self._teacher_layers(number),
                training=False,
            )
            for number, teacher in enumerate(live_teachers(self.teacher))
        ]

    def _student_states(
        self, batch: Any, *, training: bool
    ) -> dict[Layer | Attention, Tensor]:
        """Returns the student's states and attention that losses read."""
        return forward.hidden_states(
            self.student,
            batch.inputs,
            self._hidden_losses.student_layers
            | self._attention_losses.student_layers,
            training=training,
        )

    def _add_up_layers(
        self,
        scales: dict[str, Tensor],
        padding_mask: Tensor,
        *,
        weight_of: Callable[[DistillationLoss], Tensor],
        teacher_states: Sequence[Mapping[Layer | Attention, Tensor]],
        student_states: Mapping[Layer | Attention, Tensor],
        with_gradients: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the scaled total and the sums of losses on layers."""
        states: dict[str, Any] = {
            "teacher_states": teacher_states,
            "student_states": student_states,
        }
        total, sums = self._hidden_losses.add_up(
            scales, weight_of=lambda loss, _: weight_of(loss), **states
        )
        of_attention, more = self._attention_losses.add_up(
            scales,
            padding_mask=padding_mask,
            weight_of=weight_of,
            with_gradients=with_gradients,
            **states,
        )
        return total + of_attention, sums | more
