"""Names for the outputs of a classifier, saved with the model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_distil.models.weights import assign, check_not_quantized


class Labelled:
    """Adds the meaning of the outputs to a classifier.

    Args:
        *args: arguments of the classifier.
        labels: names of the classes, in the order of the outputs; None if
            they have no names.
        is_probability: bool, whether the single output of a regression is the
            logit of a probability, as Hugging Face treats a classifier with
            one label. Defaults to False.
        is_multi_label: bool, whether the labels do not exclude each other: each
            output is the logit of a probability of its own. Defaults to False.
        **kwargs: keyword arguments of the classifier.

    Raises:
        ValueError: unless there is one name for each output.
    """

    num_classes: int

    def __init__(
        self,
        *args: Any,
        labels: Sequence[str] | None = None,
        is_probability: bool = False,
        is_multi_label: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.labels = check_labels(labels, self.num_classes)
        self.is_probability = is_probability
        self.is_multi_label = is_multi_label

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild the model."""
        return {
            **super().get_config(),  # type: ignore[misc]
            "labels": None if self.labels is None else list(self.labels),
            "is_probability": self.is_probability,
            "is_multi_label": self.is_multi_label,
        }


def check_labels(
    labels: Sequence[str] | None, count: int
) -> tuple[str, ...] | None:
    """Checks that `labels` name `count` outputs, each once.

    Raises:
        ValueError: if they do not.
    """
    if labels is None:
        return None
    if (
        isinstance(labels, str)
        or len(labels) != count
        or len(set(labels)) != count
        or not all(isinstance(label, str) and label for label in labels)
    ):
        raise ValueError(
            f"`labels` must name the model's {count} outputs, each once. "
            f"Received: labels={labels!r:.80}."
        )
    return tuple(labels)


def labels_of(model: Any) -> tuple[str, ...] | None:
    """Returns the names of a model's classes; None if it has none."""
    return getattr(model, "labels", None)


def meaning_of(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments of `put_output` for outputs of equal meaning."""
    return {
        "labels": labels_of(model),
        "is_probability": getattr(model, "is_probability", False),
    }


def reorder_outputs(
    model: Any, columns: np.ndarray | None, labels: Sequence[str]
) -> None:
    """Puts the outputs of a classifier into another order, and names them.

    Args:
        model: a classifier, changed in place.
        columns: int, (outputs,), the present place of each; None to leave them.
        labels: names of the classes in the new order.

    Raises:
        ValueError: if Keras has quantised the output layer.
    """
    layer = model.output_dense
    if columns is not None:
        check_not_quantized(layer)
        for variable in layer.weights:
            assign(variable, np.array(variable)[..., columns])
    if hasattr(model, "labels"):
        model.labels = check_labels(labels, model.num_classes)


def divide_outputs(model: Any, temperature: float) -> None:
    """Divides the logits of a classifier, by its last layer.

    The first choice stays, and with it the decision on every label.

    Args:
        model: a classifier, changed in place.
        temperature: float > 0, no unit.

    Raises:
        ValueError: if Keras has quantised the output layer.
    """
    layer = model.output_dense
    check_not_quantized(layer)
    for variable in layer.weights:
        assign(variable, np.array(variable, np.float64) / temperature)


def share_labels(teachers: Sequence[Any], student: keras.Model) -> None:
    """Copies the teachers' labels to a student without labels.

    Args:
        teachers: models, or whatever else has the labels of one; some may
            have none.
        student: a model, changed in place.

    Raises:
        ValueError: if labels or their order differ: the student would learn
            each class from the probability of another one.
    """
    named = [
        (number, labels)
        for number, each in enumerate(teachers)
        if isinstance(labels := labels_of(each), tuple)
    ]
    if not named:
        return
    first, theirs = named[0]
    for number, labels in named[1:]:
        if labels != theirs:
            raise ValueError(
                "Teachers must have the same labels in the same order. "
                f"Received: {list(theirs)} of teacher[{first}] and "
                f"{list(labels)} of teacher[{number}]."
            )
    if not (hasattr(student, "labels") and hasattr(student, "num_classes")):
        return
    if student.labels is None and student.num_classes == len(theirs):
        student.labels = theirs
    elif student.labels is not None and student.labels != theirs:
        raise ValueError(
            "Teacher and student must have the same labels in the same order. "
            f"Received: {list(theirs)} and {list(student.labels)}."
        )
