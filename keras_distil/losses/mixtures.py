"""The target that several teachers give together.

It is the mean of their probabilities, never of their logits. The mean of
logits is the logarithm of a normalised geometric mean, a product of experts:
it is sharper than its members, and one that is sure against a class outvotes
all others. The mean of probabilities is what minimises the mean divergence
from the teachers:

    mean over k of KL(p_k || q) = KL(mean over k of p_k || q) + constant

The other divergences take the same mean, so that all losses of a training
learn from one distribution.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops

Tensor = Any


class SeveralLogits(NamedTuple):
    """The logits of two or more teachers, which each loss joins by itself.

    Attributes:
        logits: the teachers' outputs, each (..., outputs).
    """

    logits: tuple[Tensor, ...]


def one_or_several(logits: Sequence[Tensor]) -> Tensor | SeveralLogits | None:
    """Returns no teacher's, one teacher's, or several teachers' logits."""
    if len(logits) > 1:
        return SeveralLogits(tuple(logits))
    return logits[0] if logits else None


def mixture_logits(
    teacher_logits: Sequence[Tensor], temperature: Tensor
) -> Tensor:
    """Logits whose softmax is the mean of the teachers' softmaxes.

    Formula:
        p_k = softmax(teacher_logits_k / temperature)
        softmax(result / temperature) = mean over k of p_k

    It is computed as log ratios to the uniform distribution, so that neither
    tiny probabilities nor, at high temperatures, the differences between
    nearly equal ones are lost.

    Args:
        teacher_logits: float, (..., outputs) each. They get no gradient.
        temperature: > 0, no unit, a scalar or one for each token, (...,).

    Returns:
        float32, (..., outputs).

    Reference:
        Hinton et al. 2015, arXiv:1503.02531, section 1, on the soft targets of
        an ensemble. Differs: the arithmetic mean only, of the softened
        distributions; the paper allows the geometric mean as well.
    """
    temperature = ops.cast(temperature, "float32")
    divisor = temperature
    if len(temperature.shape):
        divisor = temperature[..., None]
    scaled = [ops.cast(x, "float32") / divisor for x in teacher_logits]
    levels = [_log_ratio_to_uniform(x) for x in scaled]
    largest = functools.reduce(ops.maximum, levels)
    excess = [ops.expm1(level - largest) for level in levels]
    mean = functools.reduce(ops.add, excess) / len(excess)
    return ops.stop_gradient((largest + ops.log1p(mean)) * divisor)


def _log_ratio_to_uniform(logits: Tensor) -> Tensor:
    """Log of the softmax times the number of outputs."""
    # `initial` only allows a batch without tokens.
    largest = ops.max(logits, axis=-1, keepdims=True, initial=float("-inf"))
    below = logits - largest
    return below - ops.log(ops.mean(ops.exp(below), axis=-1, keepdims=True))


def mean_outputs(teacher_logits: Sequence[Tensor]) -> Tensor:
    """Mean of the teachers' outputs, for squared errors.

    It minimises the mean squared error from the teachers, as the mean of
    probabilities does for divergences:

        mean over k of (t_k - s)**2 = (mean over k of t_k - s)**2 + constant

    Args:
        teacher_logits: float, (..., outputs) each. They get no gradient.

    Returns:
        float32, (..., outputs).
    """
    outputs = [ops.cast(x, "float32") for x in teacher_logits]
    total = functools.reduce(ops.add, outputs)
    return ops.stop_gradient(total / len(outputs))


def joint_logits(teacher_logits: Tensor | SeveralLogits) -> Tensor:
    """Logits of what the teachers predict, at a temperature of 1."""
    if isinstance(teacher_logits, SeveralLogits):
        return mixture_logits(teacher_logits.logits, 1.0)
    return teacher_logits
