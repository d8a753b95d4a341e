"""The distances between a student's vector of a text and its teacher's."""

from typing import Any

import keras

from keras_distil.losses import functional
from keras_distil.losses.vectors import VectorLoss

Tensor = Any


class _VectorDistance(VectorLoss):
    """A distance of two vectors; see its subclasses."""

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), "projection": self.projection}


@keras.saving.register_keras_serializable(package="keras_distil")
class VectorCosineDistance(_VectorDistance):
    """One minus the cosine of the two vectors of a text.

    Formula:
        loss = 1 - <t, s> / (|t| |s|)              # 0 to 2 per text, no unit

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        projection: None, or "learned" for vectors of two sizes; see
            `losses.VectorLoss`.

    Call arguments:
        teacher_vectors: float, (texts, dimension).
        student_vectors: float, the same shape.
        sample_weight: float, (texts,); 0 excludes a text. None counts all.

    Returns:
        Scalar float32, mean over weighted texts; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite, or `projection` is
            unknown.

    Example:
        >>> import numpy as np
        >>> loss = VectorCosineDistance()
        >>> float(loss(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])))
        1.0

    Reference:
        Reimers and Gurevych 2020, arXiv:2004.09813, section 2, for vectors
        of length 1. Differs: twice as much there, which is |t - s|**2.
    """

    caption = "cosine distance of vectors"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "vector_cosine",
        *,
        projection: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name, projection=projection)

    def token_values(
        self, *, teacher_vectors: Tensor, student_vectors: Tensor
    ) -> Tensor:
        """Returns the distance of each text."""
        return functional.cosine_distance(teacher_vectors, student_vectors)


@keras.saving.register_keras_serializable(package="keras_distil")
class VectorMeanSquaredError(_VectorDistance):
    """Mean squared difference of the two vectors of a text.

    Formula:
        loss = sum((t - s)**2) / dimension      # squared unit of the vectors

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.
        projection: None, or "learned" for vectors of two sizes; see
            `losses.VectorLoss`.

    Call arguments:
        teacher_vectors: float, (texts, dimension).
        student_vectors: float, the same shape.
        sample_weight: float, (texts,); 0 excludes a text. None counts all.

    Returns:
        Scalar float32, mean over weighted texts; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite, or `projection` is
            unknown.

    Example:
        >>> import numpy as np
        >>> loss = VectorMeanSquaredError()
        >>> float(loss(np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])))
        2.5

    Reference:
        Reimers and Gurevych 2020, arXiv:2004.09813, section 2. Differs: none.
    """

    caption = "squared error of vectors"

    def __init__(
        self,
        weight: float = 1.0,
        name: str = "vector_mse",
        *,
        projection: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name, projection=projection)

    def token_values(
        self, *, teacher_vectors: Tensor, student_vectors: Tensor
    ) -> Tensor:
        """Returns the mean squared difference of each text."""
        functional.check_same_shape(
            "the teacher's vectors",
            teacher_vectors,
            "the student's",
            student_vectors,
        )
        return functional.mean_squared_error(teacher_vectors, student_vectors)
