"""Sizes of the models of a recipe for sentence embeddings."""

import dataclasses
from typing import Any

from keras_distil.config import Recipe
from keras_distil.config.model_sections import StudentSection
from keras_distil.models.shape import EncoderShape, student_shape

# Of a static table, if the recipe does not say it.
_STATIC_DIMENSION = 256
# Vectors are kept in 16 bits.
_VALUE_BYTES = 2


@dataclasses.dataclass(frozen=True)
class StaticShape:
    """The sizes of a static table of token vectors.

    Attributes:
        vocabulary_size: its rows.
        hidden_dim: its columns.
        num_layers: none.
    """

    vocabulary_size: int
    hidden_dim: int
    num_layers: int = 0

    @property
    def encoder_parameters(self) -> int:
        """Number of weights."""
        return self.vocabulary_size * self.hidden_dim

    def flops_per_token(self, length: int) -> int:
        """Returns 0: a table is looked up, whatever the length."""
        return 0 * length


def embedding_student(
    recipe: Recipe, teacher: EncoderShape
) -> EncoderShape | StaticShape:
    """Returns the student's shape."""
    student = recipe.student or StudentSection()
    if student.kind == "static":
        return StaticShape(
            student.vocabulary or teacher.vocabulary_size,
            student.dimension or min(_STATIC_DIMENSION, teacher.hidden_dim),
        )
    return student_shape(teacher, **student.shape())


def vectors_on_disk(recipe: Recipe, teacher: EncoderShape) -> dict[str, Any]:
    """Returns the size of the teacher's vectors, and the work of making them.

    Args:
        recipe: the recipe.
        teacher: the teacher's shape.

    Returns:
        Names and values, to be displayed.
    """
    a_text = _VALUE_BYTES * teacher.hidden_dim
    length = recipe.data.sequence_length
    flops = length * teacher.flops_per_token(length)
    found: dict[str, Any] = {
        "bytes_per_text": a_text,
        "gb_per_million_texts": round(a_text / 1e3, 3),
        "gflop_per_longest_text": round(flops / 1e9, 3),
    }
    settings = recipe.distill
    texts = recipe.data.max_texts
    if settings is not None and settings.steps is not None:
        read = settings.steps * settings.batch_size
        texts = min(read, texts or read)
    if texts is None:
        found["texts"] = "known once the corpus is read"
    else:
        found["texts_at_most"] = texts
        found["total_gb_at_most"] = round(texts * a_text / 1e9, 3)
    return found
