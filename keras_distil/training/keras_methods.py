"""What Keras promises of `fit`, `evaluate` and `predict`, for a Distiller."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_distil.data import reading_error, stream_of
from keras_distil.teachers import cache_error
from keras_distil.training import (
    compiled_metrics,
    executions,
    fit_arguments,
    resume,
)
from keras_distil.utils import graph_checks

Tensor = Any

# Logs of `fit` besides losses and metrics.
OTHER_LOGS = ("gradient_norm", "learning_rate", "temperature")


def explained(error: tf.errors.OpError) -> Exception:
    """What an error of TensorFlow's means, or the error itself."""
    return (
        graph_checks.failed_check(error)
        or cache_error(error)
        or reading_error(error)
        or error
    )


class KerasMethods(keras.Model):
    """The methods of `keras.Model` that a Distiller's step needs otherwise.

    They take the arguments of `keras.Model`, in its order.
    """

    # Keras's, None until it is first needed.
    train_function: Any
    _objective: Any
    _means: dict[str, keras.metrics.Metric]
    _compile_metrics: Any

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that `metrics_names` names, as Keras lists them."""
        return [
            metric
            for metric in self.running_metrics
            if metric.name not in OTHER_LOGS
        ]

    @property
    def running_metrics(self) -> list[keras.metrics.Metric]:
        """All metrics that Keras resets at every epoch.

        The last is the container of the metrics of `compile`, if it has any.
        """
        compiled = getattr(self, "_compile_metrics", None)
        return [
            *getattr(self, "_means", {}).values(),
            *([] if compiled is None else [compiled]),
        ]

    def reset_metrics(self) -> None:
        """Starts all running means anew."""
        for metric in self.running_metrics:
            metric.reset_state()

    @property
    def metrics_names(self) -> list[str]:
        """Names of what `evaluate` returns, in its order."""
        if not self.compiled:
            return []
        names = [
            "loss",
            *self._objective.metric_terms,
            *self._compiled_results(),
        ]
        return list(dict.fromkeys(names))

    def _compiled_results(self) -> dict[str, Tensor]:
        if self._compile_metrics is None:
            return {}
        return compiled_metrics.results(self._compile_metrics)

    def _get_metrics_result_or_logs(self, logs: Any) -> Any:
        """Logs of an epoch, after its last step.

        In a step, every replica knows its own part of the compiled metrics.
        """
        return {**logs, **self._compiled_results()} if logs else logs

    def _flatten_metrics_in_order(self, logs: dict[str, Any]) -> list[Any]:
        return [logs[name] for name in self.metrics_names if name in logs]

    def _in_order(self, logs: Any) -> Any:
        if not isinstance(logs, dict):
            return logs
        names = [*self.metrics_names, *logs]
        return {name: logs[name] for name in names if name in logs}

    def validates(self, epoch: int) -> bool | None:
        """Whether the present `fit` scores validation data after an epoch.

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

        With a `callbacks.TrainingState` it goes on where the last one stopped.

        Raises:
            ValueError: as Keras does; for an endless dataset without a number
                of steps; for `class_weight` with anything but a
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
            # A dataset has its own order, and Keras warns if asked to shuffle.
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
            The values that `metrics_names` names, in that order; a dict with
            `return_dict=True`.
        """
        # Within `fit`, the steps are those of the iterator it has made.
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
        """The student's outputs; the arguments are those of `keras.Model`."""
        fit_arguments.check_steps("steps", steps, x)
        if isinstance(x, tf.data.Dataset) and steps is not None:
            # Keras rounds them up to whole executions.
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
        """One update; the arguments are those of `keras.Model`.

        Returns:
            The values that `metrics_names` names, in that order; with
            `return_dict=True` a dict of these and of the other logs of `fit`.
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

    def _maybe_symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Builds nothing: a Distiller is built, optimizer included.

        Keras 3.15 reduces a per-replica batch here eagerly, over all workers,
        which fails under `MultiWorkerMirroredStrategy`. It is also where `fit`
        and `evaluate` show the iterator that they are about to use.
        """
        if iterator is not None and self.steps_per_execution > 1:
            executions.number_exactly(iterator, self)

    def _make_function(self, step_function: Callable) -> Callable:
        """Keras's function around a step, also for several workers.

        Keras 3.15 takes the mean of logs over their axis 0 there, and a
        scalar has none. The logs are those of the global batch already.
        """
        strategy = self.distribute_strategy

        def with_axis(data: Any) -> dict[str, Tensor]:
            logs = step_function(data)
            return {name: value[tf.newaxis] for name, value in logs.items()}

        step = step_function
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            step = with_axis
        if self.steps_per_execution > 1:
            return executions.make_function(self, step)
        return super()._make_function(step)
