"""Vectors that may be cut: the other losses on their first coordinates."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_distil.losses.vectors import VectorLoss
from keras_distil.utils.checks import check_count

Tensor = Any

DEFAULT_DIMENSIONS = (256, 128, 64)


@keras.saving.register_keras_serializable(package="keras_distil")
class Matryoshka(VectorLoss):
    """The other losses on vectors, for the first coordinates alone.

    Stands in the list of losses beside those that it repeats: each loss on
    vectors is computed once more for every dimension. A student whose vectors
    have length 1 gets its cut vectors scaled to it again.

    Formula:
        loss = mean over d of sum over losses of
               weight_of_loss * loss(t, s[:d])         # per text

    A loss that counts pairs compares the similarities of the cut vectors with
    those of the teacher's whole ones. A loss on the two vectors of a text
    compares the student's with the teacher's first coordinates, scaled alike;
    with a learned projection, it fills the cut coordinates with zeros before
    it. `models.with_principal_components(..., cuts=dimensions)` turns a
    teacher's coordinates so that the first ones say most.

    Args:
        dimensions: ints >= 1, below the size of the student's vectors.
        weight: float >= 0, no unit. Factor in the total loss.
        name: string. The log is `<name>_loss`.

    Raises:
        TypeError: if a dimension is not an integer.
        ValueError: if there are none, or one is there twice or below 1.

    Example:
        >>> Matryoshka([64, 32]).dimensions
        (64, 32)

    Reference:
        Kusupati et al. 2022, arXiv:2205.13147. Differs: a mean over the
        dimensions, so that `weight` does not depend on their number.
    """

    caption = "losses on cut vectors"

    def __init__(
        self,
        dimensions: Sequence[int] = DEFAULT_DIMENSIONS,
        weight: float = 1.0,
        name: str = "matryoshka",
    ) -> None:
        super().__init__(weight=weight, name=name)
        checked = tuple(check_count("dimensions", x) for x in dimensions)
        if not checked or len(set(checked)) < len(checked):
            raise ValueError(
                "`dimensions` must name at least one, and each once. "
                f"Received: dimensions={list(checked)}."
            )
        self.dimensions = checked

    def token_values(self, **vectors: Tensor) -> Tensor:
        """Raises TypeError: it only repeats other losses.

        Args:
            **vectors: those of both models.
        """
        raise TypeError(
            "A Matryoshka loss repeats the other losses of a Distiller and "
            "computes nothing by itself. Give both to `Distiller`."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {**super().get_config(), "dimensions": list(self.dimensions)}
