"""Pure loss maths on tensors, one value per token.

Every function takes float tensors of any precision, computes in float32 and
returns one float32 value per token (or per example). Means, weights and
temperature schedules belong to the classes that call them.
"""

from typing import Any

import keras
from keras import ops

from keras_distil.losses.divergences import divergence_of_softmaxes, softmax
from keras_distil.utils.graph_checks import BatchError

Tensor = Any

# Logit of a choice that does not exist. It is finite, so that the difference
# of two such logits is 0 and not NaN, and far below any real one.
NEVER = -1e9
# Prevents division by zero for a zero vector, and is too small to change any
# other float32 norm.
_SQUARED_NORM_FLOOR = 1e-24
# Keeps the log of a sum of exponentials finite when the sum underflows.
_POWER_FLOOR = 1e-35


def masked_lm_crossentropy(token_ids: Tensor, logits: Tensor) -> Tensor:
    """Crossentropy of the original tokens, per token.

    Formula:
        loss = logsumexp(logits) - logits[token_id]              # nats

    Args:
        token_ids: int, (...,), the original tokens.
        logits: float, (..., vocabulary), unnormalised.

    Returns:
        float32, (...,).

    Reference:
        Devlin et al. 2019, arXiv:1810.04805, section 3.1.
    """
    logits = ops.cast(logits, "float32")
    return ops.sparse_categorical_crossentropy(
        token_ids, logits, from_logits=True
    )


def label_crossentropy(
    labels: Tensor, logits: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Crossentropy of a class or of a distribution over classes.

    Formula:
        q = (1 - label_smoothing) * p + label_smoothing / classes
        loss = logsumexp(logits) - sum(q * logits)               # nats

    Args:
        labels: int, (...,), the class, which has `p` = 1; or `p` itself,
            float, (..., classes), which sums to 1.
        logits: float, (..., classes), unnormalised.
        label_smoothing: float in [0, 1), no unit.

    Returns:
        float32, (...,).

    Reference:
        Szegedy et al. 2015, arXiv:1512.00567, section 7. Differs: none.
    """
    logits = ops.cast(logits, "float32")
    if len(labels.shape) < len(logits.shape):
        loss = masked_lm_crossentropy(labels, logits)
    else:
        # Valid because the probabilities of an example sum to 1.
        chosen = ops.sum(ops.cast(labels, "float32") * logits, axis=-1)
        loss = ops.logsumexp(logits, axis=-1) - chosen
    if not label_smoothing:
        return loss
    uniform = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
    return (1.0 - label_smoothing) * loss + label_smoothing * uniform


def soft_target_kl_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: Tensor
) -> Tensor:
    """KL divergence of softened distributions times temperature squared.

    Formula:
        p = softmax(teacher_logits / temperature)
        q = softmax(student_logits / temperature)
        loss = temperature**2 * sum(p * (log p - log q))         # nats

    The sum is taken over `p * (r - 1) + q` with `r = log p - log q`, which is
    equal because `p` and `q` both sum to one. Unlike the plain form, it does
    not suffer at high temperatures from the rounding of the two normalisers.
    The gradient for the student, `temperature * (q - p)`, is written out.

    Args:
        teacher_logits: float, (..., vocabulary). Gets no gradient.
        student_logits: float, (..., vocabulary).
        temperature: > 0, no unit, a scalar or one for each token, (...,).

    Returns:
        float32, (...,).

    Reference:
        Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    temperature = ops.cast(temperature, "float32")
    divisor = temperature
    if len(temperature.shape):
        divisor = temperature[..., None]
    teacher_logits = ops.cast(teacher_logits, "float32")
    student_logits = ops.cast(student_logits, "float32")

    @ops.custom_gradient
    def divergence(student: Tensor) -> tuple[Tensor, Any]:
        student = student / divisor
        teacher = ops.stop_gradient(teacher_logits) / divisor
        p, teacher_normaliser = softmax(teacher)
        q, student_normaliser = softmax(student)
        ratio = (teacher - student) - (teacher_normaliser - student_normaliser)
        value = temperature**2 * divergence_of_softmaxes(p, q, ratio)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            (upstream,) = args if upstream is None else (upstream,)
            return upstream[..., None] * (divisor * (q - p))

        return value, gradient

    return divergence(student_logits)


def inverse_confidence(logits: Tensor) -> Tensor:
    """Inverse of a model's confidence in its first choice, without a gradient.

    Formula:
        w = 1 / (max(softmax(logits)) + 0.001)

    Args:
        logits: float, (..., outputs), unnormalised.

    Returns:
        float32, (...,), from 1 / 1.001 to almost 1000.

    Reference:
        Wen et al. 2019, arXiv:1911.07471, section 3.2 (CWSM).
    """
    logits = ops.stop_gradient(ops.cast(logits, "float32"))
    surest = ops.exp(ops.max(logits, axis=-1) - ops.logsumexp(logits, axis=-1))
    return 1.0 / (surest + 1e-3)


def top_soft_target_kl_divergence(
    token_ids: Tensor,
    teacher_logits: Tensor,
    teacher_tail: Tensor | None,
    student_logits: Tensor,
    temperature: Tensor,
) -> Tensor:
    """KL divergence over the teacher's top choices and all others as one.

    Formula:
        p = softmax over (teacher_logits / temperature, teacher_tail)
        q_i = softmax(student_logits / temperature)[token_ids_i]
        q_tail = sum of the softmax over all other tokens
        loss = temperature**2 * sum(p * (log p - log q))         # nats

    Both are distributions over k + 1 outcomes, so the divergence is at least
    0 and at most that over the whole vocabulary, which it equals if k covers
    all tokens. The gradient for the student is written out: `temperature *
    (q - p)` at the top choices and `temperature * q * (1 - p_tail / q_tail)`
    elsewhere, where the student keeps its own proportions.

    Args:
        token_ids: int, (rows, k), distinct tokens.
        teacher_logits: float, (rows, k), for these tokens. Gets no gradient.
        teacher_tail: float, (rows,), log of the sum of `exp(logit /
            temperature)` over all other tokens; None if there are none.
        student_logits: float, (rows, vocabulary).
        temperature: scalar > 0, no unit.

    Returns:
        float32, (rows,).
    """
    temperature = ops.cast(temperature, "float32")
    student_logits = ops.cast(student_logits, "float32")
    token_ids = ops.cast(token_ids, "int32")
    teacher = ops.cast(teacher_logits, "float32") / temperature
    if teacher_tail is not None:
        tail = ops.cast(teacher_tail, "float32")[:, None]
        teacher = ops.concatenate([teacher, tail], axis=-1)
    k = token_ids.shape[-1]
    row = ops.arange(ops.shape(token_ids)[0], dtype="int32")[:, None]
    places = ops.stack([row + ops.zeros_like(token_ids), token_ids], axis=-1)
    places = ops.reshape(places, [-1, 2])

    def put(table: Tensor, values: Tensor) -> Tensor:
        """Returns the table with `values` at the top choices."""
        return ops.scatter_update(table, places, ops.reshape(values, [-1]))

    @ops.custom_gradient
    def divergence(student: Tensor) -> tuple[Tensor, Any]:
        student = student / temperature
        largest = ops.max(
            student, axis=-1, keepdims=True, initial=float("-inf")
        )
        powers = ops.exp(student - largest)
        q = ops.take_along_axis(powers, token_ids, axis=-1)
        total = ops.sum(q, axis=-1, keepdims=True)
        ours = ops.take_along_axis(student, token_ids, axis=-1) - largest
        # Not the difference of two sums, which rounding may dominate.
        others = put(powers, ops.zeros_like(q))
        rest = ops.sum(others, axis=-1, keepdims=True)
        rest = ops.maximum(rest, _POWER_FLOOR)
        if teacher_tail is not None:
            total += rest
            ours = ops.concatenate([ours, ops.log(rest)], axis=-1)
            q = ops.concatenate([q, rest], axis=-1)
        q /= total
        p, normaliser = softmax(ops.stop_gradient(teacher))
        ratio = (teacher - ours) - (normaliser - ops.log(total))
        value = temperature**2 * divergence_of_softmaxes(p, q, ratio)

        def gradient(*args: Tensor, upstream: Tensor | None = None) -> Tensor:
            (upstream,) = args if upstream is None else (upstream,)
            inside = upstream[:, None] * (temperature * (q - p))
            outside = ops.zeros_like(rest)
            if teacher_tail is not None:
                outside = inside[:, k:] / rest
            return put(outside * others, inside[:, :k])

        return value, gradient

    return divergence(student_logits)


def cosine_distance(
    teacher_hidden_states: Tensor, student_hidden_states: Tensor
) -> Tensor:
    """One minus the cosine of two hidden states, per token.

    Formula:
        loss = 1 - <t, s> / (|t| |s|)                 # 0 to 2, no unit

    A zero vector has distance 1 and a zero gradient.

    Args:
        teacher_hidden_states: float, (..., width).
        student_hidden_states: float, (..., width).

    Returns:
        float32, (...,).
    """
    return 1.0 - ops.sum(
        unit(teacher_hidden_states) * unit(student_hidden_states), axis=-1
    )


def mean_squared_error(targets: Tensor, outputs: Tensor) -> Tensor:
    """Mean squared difference over the last axis.

    Formula:
        loss = mean((outputs - targets)**2)   # squared unit of the targets

    Args:
        targets: float, (..., width): labels, a teacher's outputs or its
            hidden states.
        outputs: float, (..., width), the student's.

    Returns:
        float32, (...,).
    """
    return keras.losses.mean_squared_error(
        ops.cast(targets, "float32"), ops.cast(outputs, "float32")
    )


def squared_error_of_outputs(
    teacher_logits: Tensor, student_logits: Tensor
) -> Tensor:
    """Mean squared difference of the outputs that exist.

    Formula:
        loss = mean((student_logits - teacher_logits)**2)

    Args:
        teacher_logits: float, (..., outputs); `NEVER` where there is none.
        student_logits: float, the same shape.

    Returns:
        float32, (...,).
    """
    # Padding must not change the mean over the positions of a span.
    exists = ops.cast(teacher_logits, "float32") > NEVER / 2.0
    share = ops.mean(ops.cast(exists, "float32"), axis=-1)
    error = mean_squared_error(
        ops.where(exists, teacher_logits, 0.0),
        ops.where(exists, student_logits, 0.0),
    )
    return ops.divide_no_nan(error, share)


def weighted_mean(values: Tensor, sample_weight: Tensor | None) -> Tensor:
    """Mean of `values` under `sample_weight`; 0 if the weights sum to 0.

    Values of weight 0 are ignored, even if they are NaN.

    Args:
        values: float, any shape.
        sample_weight: float, the same shape, or None for equal weights.

    Returns:
        Scalar float32.

    Raises:
        ValueError: if the shapes differ.
    """
    if sample_weight is None:
        sample_weight = ops.ones_like(values)
    sample_weight = ops.cast(sample_weight, "float32")
    check_same_shape("the values", values, "`sample_weight`", sample_weight)
    return ops.divide_no_nan(
        weighted_sum(values, sample_weight), ops.sum(sample_weight)
    )


def weighted_sum(values: Tensor, sample_weight: Tensor) -> Tensor:
    """Sum of `values * sample_weight`, without the values of weight 0."""
    values = ops.cast(values, "float32")
    sample_weight = ops.cast(sample_weight, "float32")
    # Not a plain product: 0 * NaN is NaN, and padding may hold anything.
    return ops.sum(ops.where(sample_weight > 0.0, values * sample_weight, 0.0))


def check_same_shape(
    name: str, value: Tensor, other_name: str, other: Tensor
) -> None:
    """Raises ValueError unless the known sizes of two tensors are equal."""
    sizes = tuple(value.shape), tuple(other.shape)
    same = len(sizes[0]) == len(sizes[1]) and all(
        None in pair or pair[0] == pair[1] for pair in zip(*sizes, strict=True)
    )
    if not same:
        raise BatchError(
            f"The shapes of {name} and {other_name} must be equal. Received: "
            f"{sizes[0]} and {sizes[1]}."
        )


def unit(vectors: Tensor) -> Tensor:
    """Scales vectors to length 1; zero stays zero, with a zero gradient.

    Args:
        vectors: float, (..., width).

    Returns:
        float32, (..., width).
    """
    vectors = ops.cast(vectors, "float32")
    squared_norm = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squared_norm, _SQUARED_NORM_FLOOR))
