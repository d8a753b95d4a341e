"""Maths on the similarities of all texts of a batch with one another."""

from typing import Any

from keras import ops

from keras_distil.losses import functional

Tensor = Any


def cosines(vectors: Tensor) -> Tensor:
    """Returns the cosine of every two vectors, float32, (texts, texts)."""
    vectors = functional.unit(vectors)
    return ops.matmul(vectors, ops.transpose(vectors))


def similarity_kl_divergence(
    teacher_vectors: Tensor, student_vectors: Tensor, temperature: Tensor
) -> Tensor:
    """KL divergence of each text's similarities to all others.

    Formula:
        p_ij = softmax over j != i of cos(t_i, t_j) / temperature
        q_ij = softmax over j != i of cos(s_i, s_j) / temperature
        loss_i = sum over j != i of p_ij * (log p_ij - log q_ij)   # nats

    Args:
        teacher_vectors: float, (texts, dimension). Gets no gradient.
        student_vectors: float, (texts, any dimension).
        temperature: scalar > 0, no unit.

    Returns:
        float32, (texts,); 0 for a text alone.
    """
    temperature = ops.cast(temperature, "float32")
    itself = _identity(teacher_vectors) > 0.0
    teacher, student = (
        ops.where(itself, functional.NEVER, cosines(vectors) / temperature)
        for vectors in (teacher_vectors, student_vectors)
    )
    return functional.soft_target_kl_divergence(teacher, student, 1.0)


def similarity_squared_error(
    teacher_vectors: Tensor, student_vectors: Tensor
) -> Tensor:
    """Mean squared difference of each text's cosines with all others.

    Formula:
        loss_i = mean over j != i of (cos(t_i, t_j) - cos(s_i, s_j))**2

    Args:
        teacher_vectors: float, (texts, dimension).
        student_vectors: float, (texts, any dimension).

    Returns:
        float32, (texts,); 0 for a text alone.
    """
    others = 1.0 - _identity(teacher_vectors)
    difference = cosines(teacher_vectors) - cosines(student_vectors)
    total = ops.sum(others * ops.square(difference), axis=1)
    return ops.divide_no_nan(total, ops.sum(others, axis=1))


def _identity(vectors: Tensor) -> Tensor:
    """Returns 1 for the pair of each text with itself, (texts, texts)."""
    number = ops.arange(ops.shape(vectors)[0], dtype="int32")
    return ops.cast(number[:, None] == number[None], "float32")
