"""Divergences of two softmaxes, with their gradients written out."""

from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any

# Below this log ratio, `exp(-r) - 1 + r` is computed from its series, because
# the subtraction would leave only rounding noise. The ninth power is below
# float32's resolution.
_SMALL_LOG_RATIO = 0.5
_SERIES = (1 / 2, -1 / 6, 1 / 24, -1 / 120, 1 / 720, -1 / 5040, 1 / 40320)


def softmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the last axis and its log normaliser, from a single exp.

    Args:
        logits: float32, (..., outputs).

    Returns:
        Both float32: (..., outputs) and (..., 1).
    """
    # `initial` only allows a batch without tokens.
    largest = ops.max(logits, axis=-1, keepdims=True, initial=float("-inf"))
    powers = ops.exp(logits - largest)
    total = ops.sum(powers, axis=-1, keepdims=True)
    return powers / total, largest + ops.log(total)


def divergence_of_softmaxes(p: Tensor, q: Tensor, ratio: Tensor) -> Tensor:
    """Sum over the last axis of `p * ratio`, with `ratio = log p - log q`.

    It is taken over `p * (ratio - 1) + q`, which is equal because `p` and `q`
    both sum to one.

    Args:
        p: float32, (..., outputs), probabilities.
        q: float32, the same shape.
        ratio: float32, the same shape; finite where `p` is 0.

    Returns:
        float32, (...,), in nats.
    """
    terms = ops.where(
        ops.abs(ratio) < _SMALL_LOG_RATIO,
        p * _exp_remainder(ratio),
        p * (ratio - 1.0) + q,
    )
    return ops.sum(terms, axis=-1)


def soft_target_reverse_kl_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: Tensor
) -> Tensor:
    """Reverse KL divergence of softened distributions, times temperature^2.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        loss = temperature**2 * sum(q * (log q - log p))         # nats

    The gradient for the student is written out: `temperature * q * (r -
    sum(q * r))` with `r = log q - log p`.

    Args:
        teacher_logits: float, (..., outputs). Gets no gradient.
        student_logits: float, (..., outputs).
        temperature: scalar > 0, no unit.

    Returns:
        float32, (...,).

    Reference:
        Gu et al. 2023, arXiv:2306.08543, section 2.
    """

    def divergence(p: Tensor, q: Tensor, ratio: Tensor) -> tuple:
        return divergence_of_softmaxes(q, p, -ratio), -ratio

    return _softened(teacher_logits, student_logits, temperature, divergence)


def soft_target_jensen_shannon_divergence(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: Tensor,
    teacher_share: float,
) -> Tensor:
    """Generalised Jensen-Shannon divergence, times temperature^2.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        m = teacher_share * p + (1 - teacher_share) * q
        loss = temperature**2 * (
            teacher_share * sum(p * (log p - log m))
            + (1 - teacher_share) * sum(q * (log q - log m))
        )                                                        # nats

    The gradient for the student is written out: `temperature * (1 -
    teacher_share) * q * (r - sum(q * r))` with `r = log q - log m`.

    Args:
        teacher_logits: float, (..., outputs). Gets no gradient.
        student_logits: float, (..., outputs).
        temperature: scalar > 0, no unit.
        teacher_share: float, above 0 and below 1, no unit.

    Returns:
        float32, (...,).

    Reference:
        Agarwal et al. 2023, arXiv:2306.13649, section 2, with `teacher_share`
        as beta.
    """
    ours = 1.0 - teacher_share

    def divergence(p: Tensor, q: Tensor, ratio: Tensor) -> tuple:
        # log m is taken relative to the larger of p and q, from their ratio,
        # so that nothing overflows and a small ratio keeps its digits.
        size = ops.abs(ratio)
        smaller = ops.where(ratio >= 0.0, ours, teacher_share)
        from_larger = -ops.log1p(smaller * ops.expm1(-size))
        from_smaller = from_larger - size
        to_p = ops.where(ratio >= 0.0, from_larger, from_smaller)
        to_q = ops.where(ratio >= 0.0, from_smaller, from_larger)
        m = teacher_share * p + ours * q
        value = teacher_share * divergence_of_softmaxes(p, m, to_p)
        value += ours * divergence_of_softmaxes(q, m, to_q)
        return value, ours * to_q

    return _softened(teacher_logits, student_logits, temperature, divergence)


def _softened(
    teacher_logits: Tensor,
    student_logits: Tensor,
    temperature: Tensor,
    divergence: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    """Divergence of softened distributions with the gradient written out.

    Args:
        teacher_logits: float, (..., outputs).
        student_logits: float, (..., outputs).
        temperature: scalar > 0.
        divergence: function from `p`, `q` and `log p - log q` to the
            divergence and its slope for each of `q`, up to a constant.
    """
    temperature = ops.cast(temperature, "float32")
    teacher_logits = ops.cast(teacher_logits, "float32")
    student_logits = ops.cast(student_logits, "float32")

    @ops.custom_gradient
    def softened(student: Tensor) -> tuple[Tensor, Any]:
        student = student / temperature
        teacher = ops.stop_gradient(teacher_logits) / temperature
        p, teacher_normaliser = softmax(teacher)
        q, student_normaliser = softmax(student)
        ratio = (teacher - student) - (teacher_normaliser - student_normaliser)
        value, slope = divergence(p, q, ratio)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            (upstream,) = args if upstream is None else (upstream,)
            mean = ops.sum(q * slope, axis=-1, keepdims=True)
            return upstream[..., None] * (temperature * q * (slope - mean))

        return temperature**2 * value, gradient

    return softened(student_logits)


def _exp_remainder(ratio: Tensor) -> Tensor:
    """`exp(-ratio) - 1 + ratio` for small ratios, by its series."""
    series = 0.0 * ratio
    for coefficient in reversed(_SERIES):
        series = series * ratio + coefficient
    return series * ratio * ratio
