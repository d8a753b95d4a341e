"""The hard-label losses of tasks, which fine-tuning minimises."""

from typing import Any

import keras
from keras import ops

from keras_distil.losses import binary, functional
from keras_distil.losses.base import LogitsLoss
from keras_distil.utils.checks import check_number

Tensor = Any


class _LabelLoss(LogitsLoss):
    """A loss whose call is the weighted mean of `token_values`."""

    reads = frozenset({"targets", "student_logits"})
    counts = "examples"
    caption = "loss on the labels"

    def __init__(self, weight: float = 1.0, name: str = "label") -> None:
        super().__init__(weight=weight, name=name)

    def call(
        self,
        labels: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over the weighted examples."""
        values = self.token_values(
            targets=labels, student_logits=student_logits
        )
        return functional.weighted_mean(values, sample_weight)


@keras.saving.register_keras_serializable(package="keras_distil")
class LabelCrossentropy(_LabelLoss):
    """Crossentropy of the true class.

    Used for classification, token classification and spans, whose classes are
    the positions.

    Formula:
        p = 1 for the class `label`, else 0; or the label itself
        q = (1 - label_smoothing) * p + label_smoothing / classes
        loss = logsumexp(logits) - sum(q * logits)               # nats

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        label_smoothing: float in [0, 1), no unit. Share of the label that is
            spread evenly over all classes. Must be 0 for spans.

    Call arguments:
        labels: int, (batch,) or (batch, length), classes from 0; or float, in
            the shape of the logits, probabilities that sum to 1.
        student_logits: float, (batch, classes) or (batch, length, classes).
        sample_weight: float, (batch,) or (batch, length); 0 excludes an
            example. None counts every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` or `label_smoothing` is not a number.
        ValueError: if `weight` is negative or not finite, `label_smoothing`
            is out of range, or the shapes do not match.

    Example:
        >>> import numpy as np
        >>> loss = LabelCrossentropy()
        >>> round(float(loss(np.array([1]), np.array([[0.0, 0.0]]))), 4)
        0.6931

    Reference:
        Label smoothing: Szegedy et al. 2015, arXiv:1512.00567, section 7.
        Differs: none.
    """

    unit = "nats"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "label",
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.label_smoothing = check_number("label_smoothing", label_smoothing)
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(
                "`label_smoothing` must be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing}."
            )

    def token_values(
        self, *, targets: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns the crossentropy of each example in nats."""
        targets = ops.convert_to_tensor(targets)
        student_logits = ops.convert_to_tensor(student_logits)
        classes = student_logits
        if len(targets.shape) != len(student_logits.shape):
            classes = student_logits[..., 0]
        functional.check_same_shape(
            "the labels", targets, "the logits", classes
        )
        return functional.label_crossentropy(
            targets, student_logits, self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class LabelSquaredError(_LabelLoss):
    """Squared error of a regression.

    Formula:
        loss = (output - label)**2            # squared unit of the labels

    Of several outputs, the mean over them.

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        labels: float, (batch,), or (batch, outputs).
        student_logits: float, (batch, 1) or (batch, outputs).
        sample_weight: float, (batch,); 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> loss = LabelSquaredError()
        >>> float(loss(np.array([3.0]), np.array([[1.0]])))
        4.0
    """

    def token_values(
        self, *, targets: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns the squared error of each example."""
        targets = ops.convert_to_tensor(targets)
        outputs = ops.convert_to_tensor(student_logits)
        if len(targets.shape) < len(outputs.shape):
            targets = targets[..., None]
        functional.check_same_shape(
            "the labels", targets, "the outputs", outputs
        )
        return functional.mean_squared_error(targets, outputs)


@keras.saving.register_keras_serializable(package="keras_distil")
class LabelBinaryCrossentropy(_LabelLoss):
    """Crossentropy of labels that do not exclude each other.

    Formula:
        q = sigmoid(logits)
        loss = mean(-p * log q - (1 - p) * log(1 - q))   # nats per label

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        labels: float, (batch, labels), 1 for the labels of an example and 0
            for the others, or the probability of each.
        student_logits: float, (batch, labels).
        sample_weight: float, (batch,); 0 excludes an example. None counts
            every example.

    Returns:
        Scalar float32, mean over weighted examples; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite, or the shapes do not
            match.

    Example:
        >>> import numpy as np
        >>> loss = LabelBinaryCrossentropy()
        >>> labels, logits = np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]])
        >>> round(float(loss(labels, logits)), 4)
        0.6931
    """

    unit = "nats"

    def token_values(
        self, *, targets: Tensor, student_logits: Tensor
    ) -> Tensor:
        """Returns the mean crossentropy of each example's labels in nats."""
        targets = ops.convert_to_tensor(targets)
        student_logits = ops.convert_to_tensor(student_logits)
        functional.check_same_shape(
            "the labels", targets, "the logits", student_logits
        )
        return binary.binary_crossentropy(targets, student_logits)
