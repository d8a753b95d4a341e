"""The metrics of `compile`, updated as in Keras's trainer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distil.utils import private_api
from keras_distil.utils.private_api import CompileMetrics, compute_output_spec

Tensor = Any

# Metrics of the Distiller whose names `compile` may use, because they mean the
# same in Keras; Keras's value then replaces the Distiller's.
_SHARED_NAMES = ("accuracy", "mean_absolute_error")


def make(
    metrics: Any,
    weighted_metrics: Any,
    outputs: Mapping[str, Any],
    own_names: Collection[str],
) -> CompileMetrics | None:
    """Builds Keras's container of compiled metrics, with its variables.

    Args:
        metrics: as for `keras.Model.compile`.
        weighted_metrics: likewise.
        outputs: `Objective.metric_outputs`.
        own_names: names of values that the Distiller logs.

    Returns:
        The container, or None if there are no metrics.

    Raises:
        TypeError: if the metrics are not a list, a tuple or a dict.
        ValueError: if a metric cannot be computed from the outputs of the
            model, or has the name of a value that the Distiller logs.
    """
    given = {"metrics": metrics, "weighted_metrics": weighted_metrics}
    if not any(given.values()):
        return None
    for argument, value in given.items():
        _check_structure(argument, value, outputs)
    container = _build(given, outputs)
    wrong = [
        name
        for name in results(container)
        if name in own_names and name not in _SHARED_NAMES
    ]
    if wrong:
        raise ValueError(
            f"The metric {wrong[0]!r} of `compile` has the name of a value "
            "that the Distiller logs itself. Give it another name, such as "
            f"`name='my_{wrong[0]}'`. Taken: {sorted(own_names)}."
        )
    return container


def results(metrics: CompileMetrics) -> dict[str, Tensor]:
    """Returns the results by name, including metrics with several results."""
    by_name: dict[str, Tensor] = {}
    for name, value in metrics.result().items():
        by_name.update(value if isinstance(value, dict) else {name: value})
    return by_name


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Returns whether the first choice is the label, a class or one-hot."""
    y_true = tf.convert_to_tensor(y_true)
    if y_true.shape.rank == y_pred.shape.rank and y_true.shape[-1] != 1:
        return keras.metrics.categorical_accuracy(y_true, y_pred)
    return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)


def _check_structure(
    argument: str, value: Any, outputs: Mapping[str, Any]
) -> None:
    names = outputs["names"]
    if value and not isinstance(value, (list, tuple, dict)):
        raise TypeError(
            f"`{argument}` must be a list of metrics, or a dict of such lists "
            f"by output. Received: {argument}={value!r}."
        )
    if not value or names is None:
        if isinstance(value, dict) and value:
            raise ValueError(
                f"`{argument}` must be a list: the model has one output. "
                f"Received: {argument}={value!r}."
            )
        return
    of_each = isinstance(value, (list, tuple)) and len(value) == len(names)
    if of_each and all(isinstance(x, (list, tuple)) for x in value):
        return
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise ValueError(
            f"`{argument}` must be a dict by output, with keys of "
            f"{list(names)}, such as {{'{names[0]}': ['accuracy']}}. "
            f"Received: {argument}={value!r}."
        )


def _build(
    given: Mapping[str, Any], outputs: Mapping[str, Any]
) -> CompileMetrics:
    """Builds the container for the shapes of its future inputs.

    Raises:
        ValueError: if a metric does not support them.
    """
    errors = []
    for targets in outputs["targets"]:
        container = CompileMetrics(
            *(_replace_accuracy(x, outputs) for x in given.values()),
            output_names=outputs["names"],
        )
        try:
            compute_output_spec(
                _update(container),
                targets,
                outputs["predictions"],
                outputs["weight"],
            )
        except Exception as error:  # A metric may be user code.
            errors.append(error)
        else:
            return container
    first = str(errors[0]).strip().splitlines() or [type(errors[0]).__name__]
    raise ValueError(
        "A metric of `compile` cannot be computed from its inputs, "
        f"{outputs['described']}: {first[0]} Received: "
        f"metrics={given['metrics']}, "
        f"weighted_metrics={given['weighted_metrics']}."
    ) from errors[0]


def _update(metrics: CompileMetrics) -> Any:
    def update(y_true: Tensor, y_pred: Tensor, weight: Tensor) -> Tensor:
        metrics.update_state(y_true, y_pred, weight)
        return tf.zeros([])

    return update


def _replace_accuracy(value: Any, outputs: Mapping[str, Any]) -> Any:
    """Replaces the name "accuracy" by a metric of classes.

    Keras decides by the labels of the first batch which of its accuracies the
    name refers to.
    """
    if not outputs["classes"]:
        return value
    if isinstance(value, dict):
        return {k: _replace_accuracy(v, outputs) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_replace_accuracy(x, outputs) for x in value]
    if isinstance(value, str) and value.lower() in ("accuracy", "acc"):
        metric = keras.metrics.MeanMetricWrapper(accuracy, name=value)
        # As on Keras's own metrics; EarlyStopping reads it.
        private_api.mark_as_better_up(metric)
        return metric
    return value
