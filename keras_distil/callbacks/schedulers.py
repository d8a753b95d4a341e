"""Callbacks that drive a loss's temperature or weight by the step."""

from collections.abc import Callable

import keras

from keras_distil.training.distiller import Distiller


class _VariableScheduler(keras.callbacks.Callback):
    """Attaches a schedule to one variable for the duration of a `fit`."""

    # A schedule is a function of the optimizer's counter.
    has_training_state = False

    def __init__(self, schedule: Callable) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(
                "`schedule` must be callable, a function from step to value, "
                "such as those in `keras_distil.schedules`. "
                f"Received: schedule={schedule!r}."
            )
        self.schedule = schedule

    def _variables(self) -> list[keras.Variable]:
        raise NotImplementedError

    def set_model(self, model: keras.Model) -> None:
        """Attaches the schedule, before Keras traces the step."""
        if not isinstance(model, Distiller):
            raise TypeError(
                f"{type(self).__name__} works with a Distiller only. "
                f"Received: a model of type {type(model).__name__}."
            )
        super().set_model(model)
        for variable in self._variables():
            model.schedule(variable, self.schedule)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Detaches the schedule; the variable keeps its last value."""
        for variable in self._variables():
            self.model.schedule(variable, None)


class TemperatureScheduler(_VariableScheduler):
    """Sets the temperature of the soft targets by the step.

    The schedule is evaluated inside the step from the optimizer's counter:
    exact under `steps_per_execution`, and without retracing.

    Args:
        schedule: a callable from the number of updates made so far to a
            temperature > 0, such as `schedules.Linear(4.0, 1.0, steps=1000)`.
        loss: string, the name of the loss. Defaults to every loss that has a
            temperature.

    Raises:
        TypeError: if `schedule` is not callable, or the model not a Distiller.
        ValueError: if the Distiller has no such loss with a temperature.

    Example:
        >>> from keras_distil import schedules
        >>> scheduler = TemperatureScheduler(schedules.Constant(2.0))
    """

    def __init__(self, schedule: Callable, loss: str | None = None) -> None:
        super().__init__(schedule)
        self.loss = loss

    def _variables(self) -> list[keras.Variable]:
        variables = [
            loss.temperature
            for loss in self.model.distillation_losses
            if hasattr(loss, "temperature") and self.loss in (None, loss.name)
        ]
        if not variables:
            names = [loss.name for loss in self.model.distillation_losses]
            raise ValueError(
                "TemperatureScheduler needs a loss with a temperature. The "
                f"Distiller's losses: {names}."
            )
        return variables


class LossWeightScheduler(_VariableScheduler):
    """Sets the weight of one loss by the step.

    Args:
        loss: string, the name of the loss, such as "soft_target".
        schedule: a callable from the number of updates made so far to a
            weight >= 0.

    Raises:
        TypeError: if `schedule` is not callable, or the model not a Distiller.
        ValueError: if the Distiller has no loss with that name.

    Example:
        >>> from keras_distil import schedules
        >>> scheduler = LossWeightScheduler("mlm", schedules.Constant(2.0))
    """

    def __init__(self, loss: str, schedule: Callable) -> None:
        super().__init__(schedule)
        self.loss = loss

    def _variables(self) -> list[keras.Variable]:
        return [self.model.get_loss(self.loss).weight]
