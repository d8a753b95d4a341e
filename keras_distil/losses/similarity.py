"""Losses on the similarities of the texts of a batch with one another."""

from typing import Any

import keras

from keras_distil.losses import similarities
from keras_distil.losses.base import _number
from keras_distil.losses.vectors import VectorLoss

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_distil")
class SimilarityKLDivergence(VectorLoss):
    """KL divergence of which texts of a batch are near a text.

    The near ones count most, the more so the lower the temperature. The sizes
    of the two models' vectors may differ.

    Formula:
        p_ij = softmax over j != i of cos(t_i, t_j) / temperature
        q_ij = softmax over j != i of cos(s_i, s_j) / temperature
        loss = sum over j != i of p_ij * (log p_ij - log q_ij)
                                                        # nats per text

    A text is not compared with itself, because that cosine is always 1. There
    is no factor temperature**2: the temperature is a choice of what counts,
    not one to be compensated.

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        temperature: float > 0, no unit. Divides both models' cosines. Defaults
            to 1/16.
        name: string. The log is `<name>_loss`.

    Call arguments:
        teacher_vectors: float, (texts, dimension).
        student_vectors: float, (texts, any dimension).
        sample_weight: float, (texts,); 0 excludes a text, also from the
            others' similarities. None counts all.

    Returns:
        Scalar float32, mean over weighted texts; 0 if there are none.

    Raises:
        TypeError: if `weight` or `temperature` is not a number.
        ValueError: if `weight` is negative or not finite, or `temperature` is
            not positive.

    Example:
        >>> import numpy as np
        >>> loss = SimilarityKLDivergence(temperature=0.1)
        >>> vectors = np.eye(3)
        >>> float(loss(vectors, vectors))
        0.0

    Reference:
        Fang et al. 2021, arXiv:2101.04731 (SEED), section 3.2. Differs: the
        other texts are those of the batch, not of a queue, and both models'
        similarities have one temperature.
    """

    caption = "KL divergence of similarities"
    unit = "nats"
    counts = "pairs"

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 0.0625,
        name: str = "similarity_kl",
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.temperature = self.add_temperature(temperature)

    def token_values(
        self, *, teacher_vectors: Tensor, student_vectors: Tensor
    ) -> Tensor:
        """Returns the divergence of each text."""
        return similarities.similarity_kl_divergence(
            teacher_vectors, student_vectors, self.temperature
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {
            **super().get_config(),
            "temperature": _number(self.temperature),
        }


@keras.saving.register_keras_serializable(package="keras_distil")
class SimilarityMeanSquaredError(VectorLoss):
    """Mean squared difference of the cosines of every two texts of a batch.

    The sizes of the two models' vectors may differ.

    Formula:
        loss = mean over j != i of (cos(t_i, t_j) - cos(s_i, s_j))**2
                                                    # per text i, no unit

    Args:
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Call arguments:
        teacher_vectors: float, (texts, dimension).
        student_vectors: float, (texts, any dimension).
        sample_weight: float, (texts,); 0 excludes a text, also from the
            others' similarities. None counts all.

    Returns:
        Scalar float32, mean over weighted texts; 0 if there are none.

    Raises:
        TypeError: if `weight` is not a number.
        ValueError: if `weight` is negative or not finite.

    Example:
        >>> import numpy as np
        >>> loss = SimilarityMeanSquaredError()
        >>> float(loss(np.array([[1.0], [1.0]]), np.array([[1.0], [-1.0]])))
        4.0

    Reference:
        Tung and Mori 2019, arXiv:1907.09682, section 3.1. Differs: cosines
        instead of products scaled row by row, and no pair of a text with
        itself.
    """

    caption = "squared error of similarities"
    counts = "pairs"

    def __init__(
        self, weight: float = 1.0, name: str = "similarity_mse"
    ) -> None:
        super().__init__(weight=weight, name=name)

    def token_values(
        self, *, teacher_vectors: Tensor, student_vectors: Tensor
    ) -> Tensor:
        """Returns the mean squared difference of each text."""
        return similarities.similarity_squared_error(
            teacher_vectors, student_vectors
        )
