"""The metrics of a Distiller: running means, logs, values of updates."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_distil.losses import DistillationLoss
from keras_distil.training import compiled_metrics, executions
from keras_distil.training.replicas import ReplicatedModel
from keras_distil.utils import graph_checks
from keras_distil.utils.private_api import hidden_from_keras

Tensor = Any

# Logs of `fit` besides losses and metrics.
OTHER_LOGS = ("gradient_norm", "learning_rate", "temperature")
NON_FINITE = "keras_distil: the loss or its gradient is not finite"


class RunningMetrics(ReplicatedModel):
    """A model with the metrics of an objective and of `compile`.

    Attributes:
        step_values: variables by name, with the values of the latest update.
        update_record: the values of all updates of the latest execution.
    """

    distillation_losses: list[DistillationLoss]
    step_values: Mapping[str, keras.Variable]
    update_record: executions.UpdateRecord
    _objective: Any
    _means: dict[str, keras.metrics.Metric]
    _compile_metrics: Any

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of `metrics_names`, as Keras lists them."""
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
        """Resets all running means."""
        for metric in self.running_metrics:
            metric.reset_state()

    @property
    def metrics_names(self) -> list[str]:
        """Names of the values that `evaluate` returns, in order."""
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

    def _in_order(self, logs: Any) -> Any:
        if not isinstance(logs, dict):
            return logs
        names = [*self.metrics_names, *logs]
        return {name: logs[name] for name in names if name in logs}

    def _make_metrics(self) -> None:
        names = [*self._objective.metric_terms, "gradient_norm"]
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        # Values of the latest update, for callbacks that plot every step.
        self.step_values = hidden_from_keras(
            {
                name: keras.Variable(
                    0.0,
                    trainable=False,
                    autocast=False,
                    name=f"step_{name}",
                    aggregation="only_first_replica",
                )
                for name in ["loss", *names]
            }
        )
        losses = self.distillation_losses
        has_temperature = any(hasattr(loss, "temperature") for loss in losses)
        self.update_record = executions.UpdateRecord(
            [
                *self.step_values,
                *(f"{loss.name}_weight" for loss in losses),
                *(["temperature"] if has_temperature else []),
                "learning_rate",
            ],
            self.steps_per_execution,
        )

    def _observer(self, batch: Any) -> Callable | None:
        """Returns a function that updates the metrics of `compile`, if any."""
        metrics = self._compile_metrics
        if metrics is None:
            return None

        def observe(*values: Any) -> None:
            # The checks of the batch run first, because an operation of a
            # metric may fail on the same problem with a less clear message.
            metrics.update_state(*graph_checks.after(batch.checks, values))

        return observe

    def _values(
        self, sums: dict[str, Tensor], denominators: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Returns the batch's losses and metrics, means over its tokens."""
        values = {
            name: tf.math.divide_no_nan(sums[key], denominators[denominator])
            for name, (key, denominator) in self._objective.metric_terms.items()
        }
        return {"loss": self._weighted_total(values), **values}

    def _weighted_total(self, values: dict[str, Tensor]) -> Tensor:
        return tf.add_n(
            [
                tf.convert_to_tensor(loss.weight) * values[f"{loss.name}_loss"]
                for loss in self.distillation_losses
            ]
        )

    def _update_metrics(
        self, values: dict[str, Tensor], denominators: dict[str, Tensor]
    ) -> None:
        for name, (_, denominator) in self._objective.metric_terms.items():
            self._means[name].update_state(
                values[name], sample_weight=denominators[denominator]
            )
        if "gradient_norm" in values:
            self._means["gradient_norm"].update_state(values["gradient_norm"])

    def _logs(self) -> dict[str, Tensor]:
        """Returns means over the epoch so far; `loss` is their weighted sum."""
        means = {
            name: self._means[name].result()
            for name in self._objective.metric_terms
        }
        return {
            "loss": self._weighted_total(means),
            **means,
            **self._compiled_results(),
        }

    def _temperature_log(self) -> dict[str, Tensor]:
        for loss in self.distillation_losses:
            if hasattr(loss, "temperature"):
                # Read here, after the schedules have set it for the step.
                return {"temperature": tf.convert_to_tensor(loss.temperature)}
        return {}

    def _check_finite(self, values: dict[str, Tensor]) -> list[Any]:
        """Stores the step's values, then asserts that they are finite."""
        kept = [
            self.step_values[name].assign(value)
            for name, value in values.items()
        ]
        if tf.executing_eagerly():
            kept = []
        finite = tf.math.is_finite(values["loss"] + values["gradient_norm"])
        with tf.control_dependencies(kept):
            # Eager execution raises here and returns None.
            check = tf.debugging.Assert(finite, [NON_FINITE])
        return [] if check is None else [check]

    def _non_finite_message(self) -> str:
        culprits = [
            name
            for name, variable in self.step_values.items()
            if name != "loss"
            and not bool(tf.math.is_finite(tf.convert_to_tensor(variable)))
        ]
        # `int` of a Keras variable fails if it is mirrored on replicas.
        step = int(self.optimizer.iterations.numpy()) + 1
        return (
            f"Training stopped at step {step}: not finite: "
            f"{', '.join(culprits) or 'loss'}. The weights are those of the "
            "step before. Try a lower learning rate, a higher temperature or "
            "`clip_norm`."
        )
