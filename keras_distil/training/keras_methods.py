"""Keras's `fit`, `evaluate`, `predict` and saving, for a Distiller."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import keras
import tensorflow as tf

from keras_distil.data import reading_error, stream_of
from keras_distil.teachers import cache_error
from keras_distil.training import fit_arguments, resume
from keras_distil.training.objectives import live_teachers
from keras_distil.training.running_metrics import NON_FINITE, RunningMetrics
from keras_distil.training.saving import (
    deserialize_loss,
    deserialize_teacher,
    serialize_model,
    serialize_teacher,
)
from keras_distil.utils import graph_checks, private_api

Tensor = Any


class NonFiniteLossError(RuntimeError):
    """A loss or its gradient is not finite; the update was not made."""


def explained(error: tf.errors.OpError) -> Exception:
    """Returns the meaning of a TensorFlow error, or the error itself."""
    return (
        graph_checks.failed_check(error)
        or cache_error(error)
        or reading_error(error)
        or error
    )


class KerasMethods(RunningMetrics):
    """The methods of `keras.Model` that a Distiller has to override.

    They take the arguments of `keras.Model`, in the same order.
    """

    # Keras's function, None until first needed.
    train_function: Any
    test_function: Any
    predict_function: Any
    # The arguments of `compile` as given.
    _compile_arguments: dict[str, Any]
    _given_metrics: Mapping[str, Any]
    from_logits: bool | None

    # === Variables ===

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that training changes, without any teacher's."""
        return self._without_teacher(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """The weights that training changes, without the teacher's."""
        return self._without_teacher(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All other variables, including the teacher's."""
        return _difference(self.variables, self.trainable_variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """All other weights, including the teacher's."""
        return _difference(self.weights, self.trainable_weights)

    def _without_teacher(
        self, variables: list[keras.Variable]
    ) -> list[keras.Variable]:
        for teacher in live_teachers(getattr(self, "teacher", None)):
            variables = _difference(variables, teacher.variables)
        return variables

    # === Training and scoring ===

    def validates(self, epoch: int) -> bool | None:
        """Whether the current `fit` scores validation data after an epoch.

        Args:
            epoch: int, from 0.

        Returns:
            None if it has no validation data.
        """
        if self._validation_freq is None:
            return None
        return self._should_eval(epoch, self._validation_freq[0])

    _validation_freq: tuple[Any] | None = None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
    ) -> Any:
        """Trains the student; the arguments are those of `keras.Model.fit`.

        With a `callbacks.TrainingState` it continues where the last one
        stopped.

        Raises:
            ValueError: as Keras does; for an endless dataset without a number
                of steps; for `class_weight` with any task except a
                classification.
        """
        self._assert_compile_called("fit")
        state = resume.find_training_state(callbacks)
        fit_arguments.check_steps("steps_per_epoch", steps_per_epoch, x)
        fit_arguments.check_steps(
            "validation_steps", validation_steps, validation_data
        )
        self._check_class_weight(class_weight, x, resumable=state is not None)
        fit_arguments.set_modes(
            callbacks, self._objective.metric_terms, self._objective.losses
        )
        validated = validation_data is not None or bool(validation_split)
        self._validation_freq = (validation_freq,) if validated else None
        arguments = {
            "batch_size": batch_size,
            "epochs": epochs,
            "verbose": verbose,
            "callbacks": callbacks,
            "validation_split": validation_split,
            "validation_data": validation_data,
            # A dataset has its own order, and Keras warns about shuffling it.
            "shuffle": shuffle and not isinstance(x, tf.data.Dataset),
            "class_weight": class_weight,
            "sample_weight": sample_weight,
            "initial_epoch": initial_epoch,
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
            "validation_batch_size": validation_batch_size,
            "validation_freq": validation_freq,
        }
        if state is None:
            return super().fit(self.distributed(x), y, **arguments)
        return resume.fit(self, super().fit, x, y, state, **arguments)

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Scores the student; the arguments are those of `keras.Model`.

        Returns:
            The values of `metrics_names`, in that order; a dict with
            `return_dict=True`.
        """
        # Within `fit`, the iterator that it made determines the steps.
        if not kwargs.get("_use_cached_eval_dataset"):
            fit_arguments.check_steps("steps", steps, x)
        try:
            logs = super().evaluate(
                self.distributed(x),
                y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                steps=steps,
                callbacks=callbacks,
                return_dict=return_dict,
                **kwargs,
            )
        except tf.errors.OpError as error:
            raise explained(error) from None
        return self._in_order(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Returns the student's outputs; arguments as for `keras.Model`."""
        fit_arguments.check_steps("steps", steps, x)
        if isinstance(x, tf.data.Dataset) and steps is not None:
            # Keras would round the steps up to whole executions.
            x = x.take(steps)
        return super().predict(
            x,
            batch_size=batch_size,
            verbose=verbose,
            steps=steps,
            callbacks=callbacks,
        )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Makes one update; the arguments are those of `keras.Model`.

        Returns:
            The values of `metrics_names`, in that order; with
            `return_dict=True` a dict of these and the other logs of `fit`.
        """
        self._check_class_weight(class_weight, x, resumable=False)
        logs = super().train_on_batch(
            x,
            y,
            sample_weight=sample_weight,
            class_weight=class_weight,
            return_dict=return_dict,
        )
        return self._in_order(logs)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Scores one batch; the arguments are those of `keras.Model`."""
        logs = super().test_on_batch(
            x, y, sample_weight=sample_weight, return_dict=return_dict
        )
        return self._in_order(logs)

    def _check_class_weight(
        self, class_weight: Any, x: Any, *, resumable: bool
    ) -> None:
        fit_arguments.check_class_weight(
            class_weight,
            getattr(self._objective, "kind", "masked language modelling"),
            resumable=resumable,
            distributed=stream_of(x) is not None
            and self.distribute_strategy.num_replicas_in_sync > 1,
        )

    # === Functions around a step ===

    def make_train_function(self, force: bool = False) -> Callable:
        """Wraps Keras's step to explain the error of a non-finite loss."""
        if self.train_function is not None and not force:
            return self.train_function
        super().make_train_function(force=True)
        run = self.train_function

        def checked(iterator: Any) -> dict[str, Tensor]:
            try:
                return run(iterator)
            except tf.errors.OpError as error:
                if NON_FINITE in str(error):
                    raise NonFiniteLossError(
                        self._non_finite_message()
                    ) from None
                raise explained(error) from None

        self.train_function = checked
        return checked

    def make_test_function(self, force: bool = False) -> Callable:
        """Wraps Keras's step to explain the error of an invalid batch."""
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = _with_reasons(self.test_function)
        return self.test_function

    def make_predict_function(self, force: bool = False) -> Callable:
        """Wraps Keras's step to explain the error of an invalid batch."""
        if self.predict_function is None or force:
            super().make_predict_function(force=True)
            self.predict_function = _with_reasons(self.predict_function)
        return self.predict_function

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Returns all models and the losses, serialised."""
        serialize = keras.saving.serialize_keras_object
        said = {}
        if self.from_logits is not None:
            said["from_logits"] = self.from_logits
        return {
            "teacher": serialize_teacher(self.teacher),
            "student": serialize_model(self.student),
            "losses": [serialize(loss) for loss in self.distillation_losses],
            "name": self.name,
            **said,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Creates the Distiller that `get_config` described.

        Raises:
            ValueError: if Keras does not know the class of a loss.
        """
        deserialize = keras.saving.deserialize_keras_object
        return cls(
            teacher=deserialize_teacher(config["teacher"]),
            student=deserialize(config["student"]),
            losses=[deserialize_loss(loss) for loss in config["losses"]],
            name=config["name"],
            from_logits=config.get("from_logits"),
        )

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the arguments of `compile`, serialised."""
        if not self.compiled:
            return {}
        serialize = keras.saving.serialize_keras_object
        given = {k: v for k, v in self._given_metrics.items() if v is not None}
        return {
            "optimizer": serialize(self.optimizer),
            # Keras does not save this with the optimizer.
            "without_weight_decay": self._without_weight_decay(),
            **self._compile_arguments,
            **{name: serialize(value) for name, value in given.items()},
        }

    def _without_weight_decay(self) -> list[int]:
        """Indices of the trained variables without weight decay."""
        optimizer = self.optimizer
        return [
            place
            for place, variable in enumerate(self._objective.variables)
            if not private_api.decays(optimizer, variable)
        ]

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with what `get_compile_config` described."""
        config = dict(config)
        for name in ("optimizer", "metrics", "weighted_metrics"):
            if name in config:
                config[name] = keras.saving.deserialize_keras_object(
                    config[name]
                )
        places = config.pop("without_weight_decay", [])
        if places:
            variables = self._objective.variables
            config["optimizer"].exclude_from_weight_decay(
                var_list=[variables[place] for place in places]
            )
        self.compile(**config)


def _difference(
    variables: list[keras.Variable], left_out: list[keras.Variable]
) -> list[keras.Variable]:
    known = {id(variable) for variable in left_out}
    return [v for v in variables if id(v) not in known]


def _with_reasons(run: Callable) -> Callable:
    """Wraps a Keras function to raise errors with their meaning."""

    def checked(data: Any) -> Any:
        try:
            return run(data)
        except tf.errors.OpError as error:
            raise explained(error) from None

    return checked
