"""Distillation of any Keras models as a hypermodel for KerasTuner."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from keras_distil.losses import DistillationLoss
from keras_distil.search.graph_memory import forget_trial
from keras_distil.search.hypermodel import TrialDistiller, translate_failures
from keras_distil.training.distiller import Distiller

# Student, losses, and the arguments of `compile`.
Trial = tuple[keras.Model, Sequence[DistillationLoss], Mapping[str, Any]]


class AnyModelHyperModel(keras_tuner.HyperModel):
    """Distillations of one teacher, each made by a function of yours.

    The teacher is shared by all trials, and each trial begins with the same
    seed. A trial's checkpoint holds only the student's weights. A trial whose
    loss is no longer finite is recorded as failed; any other error ends the
    search. An interrupted trial begins again.

    Args:
        teacher: a Keras model.
        make: function from a tuner's hyperparameters to a student, losses and
            the arguments of `Distiller.compile`.
        seed: int, the seed of each trial.
        from_logits: as for `Distiller`.

    Example:
        >>> def make(hp):
        ...     temperature = hp.Float("temperature", 1.0, 8.0)
        ...     made = [losses.SoftTargetKLDivergence(temperature=temperature)]
        ...     return make_student(), made, {"optimizer": "adam"}
        >>> tuner = keras_tuner.RandomSearch(
        ...     AnyModelHyperModel(teacher, make),
        ...     keras_tuner.Objective("val_accuracy", "max"),
        ... )                                               # doctest: +SKIP
        >>> tuner.search(
        ...     x, y, epochs=5, validation_data=held_out
        ... )                                               # doctest: +SKIP
    """

    def __init__(
        self,
        teacher: keras.Model,
        make: Callable[[keras_tuner.HyperParameters], Trial],
        *,
        seed: int = 0,
        from_logits: bool | None = None,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.make = make
        self.seed = seed
        self.from_logits = from_logits

    def build(self, hp: keras_tuner.HyperParameters) -> Distiller:
        """Builds and compiles the Distiller of a trial."""
        keras.utils.set_random_seed(self.seed)
        student, losses, arguments = self.make(hp)
        distiller = TrialDistiller(
            self.teacher, student, losses, from_logits=self.from_logits
        )
        distiller.compile(**arguments)
        return distiller

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: Distiller,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Trains a trial; the arguments are those of `Distiller.fit`.

        Raises:
            FailedTrialError: if the loss is no longer finite.
            FatalRuntimeError: if anything else is wrong, which ends the
                search.
        """
        kwargs.setdefault("verbose", 0)
        with forget_trial(), translate_failures():
            return model.fit(*args, **kwargs)
