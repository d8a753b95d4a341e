"""The parts of a batch for each task, checked and in a uniform form."""

from collections.abc import Collection
from typing import Any, NamedTuple

import tensorflow as tf

from keras_distil.training.objectives.batch_checks import (
    BatchChecks,
    Limits,
    check_dense,
    check_fit,
    check_shape,
    parts_of,
)
from keras_distil.utils import graph_checks
from keras_distil.utils.graph_checks import BatchError

Tensor = Any

_MASKED_LM = (
    "A batch must be `({'token_ids', 'padding_mask'}, token_ids, "
    "sample_weight)`, with 'segment_ids' if needed; or what KerasHub's "
    "masked-LM preprocessors make, with 'mask_positions'."
)
_TASK = (
    "A batch must be `({'token_ids', 'padding_mask'}, labels)`, with "
    "'segment_ids' if needed, 'label_weight' if some examples have no label, "
    "and with weights as a third part."
)
_TEXTS = (
    "A batch must be {'token_ids', 'padding_mask'}, with 'segment_ids' if "
    "needed, or a triple of it, the teacher's vectors or None, and weights."
)
_CALL = (
    "The inputs must be {'token_ids', 'padding_mask'}, with 'segment_ids' if "
    "needed, and for masked language modelling with 'mask_positions'."
)
_SEGMENTS = ("segment_ids",)
_MASKED = ("segment_ids", "mask_positions")
LABEL_WEIGHT = "label_weight"


class Parts(NamedTuple):
    """The parts of a batch that an objective reads.

    Attributes:
        inputs: "token_ids", "padding_mask" and perhaps "segment_ids", int32,
            (batch, length).
        targets: int32 (batch, length) for masked language modelling; for
            tasks as in `TaskBatch`; for embeddings the teacher's vectors,
            float32, (batch, dimension), or None.
        weight: float32, (batch, length) for masked language modelling; for
            tasks as in `TaskBatch`.
        checks: see `graph_checks.after`.
        labelled: for tasks, the weight of the labels, in the shape of
            `weight`; None if it is equal to that.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    weight: Tensor
    checks: list[Tensor]
    labelled: Tensor | None = None


def call_inputs(
    x: Any, limits: Limits, *, masked_lm: bool
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Returns inputs without labels, as in `predict`, and their checks.

    Args:
        x: the user's inputs.
        limits: limits of the student.
        masked_lm: whether "mask_positions" may be among the inputs.
    """
    checks = BatchChecks()
    optional = _MASKED if masked_lm else _SEGMENTS
    inputs = checks.inputs(x, limits, optional=optional, form=_CALL)
    if "mask_positions" in x:
        places = check_shape(
            "mask_positions", x["mask_positions"], "batch", "masks"
        )
        places = check_fit(
            "mask_positions", places, "token_ids", inputs["token_ids"], 1
        )
        inputs["mask_positions"] = _places(checks, places, inputs)
    return inputs, checks.made


def _places(
    checks: BatchChecks, places: Tensor, inputs: dict[str, Tensor]
) -> Tensor:
    length = tf.shape(inputs["token_ids"])[1]
    return checks.numbers(
        "mask_positions", places, length, "positions of the sequences"
    ).values


# === Masked language modelling ===


def masked_lm_parts(data: Any, limits: Limits) -> Parts:
    """Returns the checked parts of a masked-LM triple.

    The target of a token that was not masked is the token itself.

    Raises:
        BatchError: if the parts do not match each other or `limits`.
    """
    x, y, sample_weight = parts_of(data)
    checks = BatchChecks()
    inputs = checks.inputs(x, limits, optional=_MASKED, form=_MASKED_LM)
    if y is None or sample_weight is None:
        missing = "y" if y is None else "sample_weight"
        raise BatchError(
            "A batch must hold the original token ids as `y` and the masked "
            f"positions as `sample_weight`. Received: {missing}=None."
        )
    like_name, like = "token_ids", inputs["token_ids"]
    axes = ("batch", "length")
    if "mask_positions" in x:
        axes = ("batch", "masks")
        like_name = "mask_positions"
        like = check_shape(like_name, x[like_name], *axes)
        like = check_fit(like_name, like, "token_ids", inputs["token_ids"], 1)
    y = check_shape("y", y, *axes, squeezed=True)
    y = check_fit("y", y, like_name, like)
    weight = check_shape("sample_weight", sample_weight, *axes, squeezed=True)
    weight = check_fit("sample_weight", weight, like_name, like)
    targets, ignored = checks.numbers(
        "y",
        y,
        limits.vocabulary_size,
        "rows of the vocabulary",
        may_ignore=True,
    )
    weight = checks.weights("sample_weight", weight)
    weight = tf.where(ignored, 0.0, weight)
    token_ids = inputs["token_ids"]
    if "mask_positions" in x:
        places = _places(checks, like, inputs)
        targets, weight = _scatter(checks, places, targets, weight, token_ids)
    else:
        targets = tf.where(ignored, token_ids, targets)
    # Padding is never a target.
    weight *= tf.cast(inputs["padding_mask"], tf.float32)
    return Parts(inputs, targets, weight, checks.made)


def _scatter(
    checks: BatchChecks,
    places: Tensor,
    targets: Tensor,
    weight: Tensor,
    token_ids: Tensor,
) -> tuple[Tensor, Tensor]:
    """Spreads targets and weights of some positions over all positions.

    KerasHub pads the positions with zeros of weight 0.
    """
    masks = tf.shape(places)
    rows = tf.repeat(tf.range(masks[0])[:, tf.newaxis], masks[1], axis=1)
    where = tf.stack([rows, places], axis=-1)
    shape = tf.shape(token_ids)
    counts = weight > 0.0
    times = tf.scatter_nd(where, tf.cast(counts, tf.int32), shape)
    checks.require(
        tf.reduce_all(times <= 1),
        "`mask_positions` must name a position once if its weight is not 0. "
        "Received: a position that is named {} times.",
        lambda: (tf.reduce_max(times),),
    )
    named = tf.scatter_nd(where, tf.where(counts, targets, 0), shape)
    return (
        tf.where(times == 1, named, token_ids),
        tf.scatter_nd(where, weight, shape),
    )


# === Tasks ===


def task_parts(
    data: Any,
    kind: str,
    limits: Limits,
    *,
    classes: int,
    class_position: int,
) -> Parts:
    """Returns the checked parts of a task's pair or triple.

    Args:
        data: the user's batch.
        kind: kind of the task.
        limits: limits of the models.
        classes: number of classes of a classification.
        class_position: position of the token whose state is classified.

    Raises:
        BatchError: if the parts do not match each other or `limits`.
    """
    x, y, sample_weight = parts_of(data)
    checks = BatchChecks()
    optional = (*_SEGMENTS, LABEL_WEIGHT)
    inputs = checks.inputs(x, limits, optional=optional, form=_TASK)
    if y is None:
        raise BatchError(
            "A batch must hold the labels as `y`. Received: y=None."
        )
    if kind != "span" and isinstance(y, dict):
        raise BatchError(
            f"The labels of a {kind.replace('_', ' ')} must be one array. "
            f"Received: y={sorted(y)}."
        )
    weight = _task_weight(checks, kind, sample_weight, inputs)
    of_label = _label_weight(checks, x, inputs)
    parts = _targets(
        checks, kind, y, weight, inputs, of_label=of_label, classes=classes
    )
    if kind in ("classification", "regression"):
        checks.first_tokens(
            inputs["padding_mask"], parts.weight, class_position
        )
    if of_label is None:
        return parts
    return parts._replace(labelled=_times(parts.weight, of_label))


def _targets(
    checks: BatchChecks,
    kind: str,
    y: Any,
    weight: Tensor,
    inputs: dict[str, Tensor],
    *,
    of_label: Tensor | None,
    classes: int,
) -> Parts:
    """Returns the parts with checked labels, and weights where they count."""
    if kind == "span":
        return _span(checks, y, weight, inputs, of_label)
    if kind == "token_classification":
        y = check_shape("y", y, "batch", "length", squeezed=True)
        y = check_fit("y", y, "token_ids", inputs["token_ids"])
        targets, ignored = checks.numbers(
            "y", y, classes, "classes", may_ignore=True
        )
        weight = tf.where(ignored, 0.0, weight)
        weight *= tf.cast(inputs["padding_mask"], tf.float32)
        return Parts(inputs, targets, weight, checks.made)
    if kind == "regression":
        y = check_shape("y", y, "batch", squeezed=True)
        y = check_fit("y", y, "token_ids", inputs["token_ids"])
        targets = checks.finite(y, _times(weight, of_label))
    elif kind == "multi_label":
        y = check_shape("y", y, "batch", "labels")
        y = check_fit("y", y, "token_ids", inputs["token_ids"], 1)
        y = _columns(y, classes, "Labels must be numbers from 0 to 1")
        targets = checks.label_shares(y, _times(weight, of_label))
    else:
        targets, weight = _classes(
            checks, y, weight, inputs, of_label=of_label, classes=classes
        )
    return Parts(inputs, targets, weight, checks.made)


def _label_weight(
    checks: BatchChecks, x: Any, inputs: dict[str, Tensor]
) -> Tensor | None:
    """Returns the factors of the labels' weights, (batch,); None if all 1."""
    if LABEL_WEIGHT not in x:
        return None
    value = check_shape(LABEL_WEIGHT, x[LABEL_WEIGHT], "batch", squeezed=True)
    value = check_fit(LABEL_WEIGHT, value, "token_ids", inputs["token_ids"])
    return checks.weights(LABEL_WEIGHT, value)


def _times(weight: Tensor, of_label: Tensor | None) -> Tensor:
    """Returns the weight of the labels, in the shape of `weight`."""
    if of_label is None:
        return weight
    if weight.shape.rank == 2:
        of_label = of_label[:, tf.newaxis]
    return weight * of_label


def _task_weight(
    checks: BatchChecks,
    kind: str,
    sample_weight: Any,
    inputs: dict[str, Tensor],
) -> Tensor:
    """Returns the weights of examples or tokens; 1 if there are none."""
    token_ids = inputs["token_ids"]
    per_token = kind == "token_classification"
    axes = ("batch", "length") if per_token else ("batch",)
    if sample_weight is None:
        return tf.ones(tf.shape(token_ids)[: len(axes)])
    arrays = [sample_weight]
    if kind == "span" and isinstance(sample_weight, dict):
        # Keras's `fit` passes the weights once per array of `y`.
        if set(sample_weight) != {"start", "end"}:
            raise BatchError(
                "The weights of a span must be one array, or {'start', "
                f"'end'}}. Received: sample_weight={sorted(sample_weight)}."
            )
        arrays = [sample_weight[name] for name in ("start", "end")]
    weights = []
    for value in arrays:
        value = check_shape("sample_weight", value, *axes, squeezed=True)
        value = check_fit("sample_weight", value, "token_ids", token_ids)
        weights.append(checks.weights("sample_weight", value))
    if len(weights) == 2:
        checks.require(
            tf.reduce_all(weights[0] == weights[1]),
            "`sample_weight` must be the same for the start and the end of a "
            "span. Received: weights that differ by up to {}.",
            lambda: (tf.reduce_max(tf.abs(weights[0] - weights[1])),),
        )
    return weights[0]


def _classes(
    checks: BatchChecks,
    y: Any,
    weight: Tensor,
    inputs: dict[str, Tensor],
    *,
    of_label: Tensor | None,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Returns a classification's labels, ids or probabilities, and weights."""
    token_ids = inputs["token_ids"]
    y = check_dense("y", y)
    if y.shape.rank == 2 and y.shape[1] != 1:
        y = check_fit(
            "y", _check_columns(y, classes), "token_ids", token_ids, 1
        )
        return checks.probabilities(y, _times(weight, of_label)), weight
    y = check_shape("y", y, "batch", squeezed=True)
    y = check_fit("y", y, "token_ids", token_ids)
    targets, ignored = checks.numbers(
        "y", y, classes, "classes", may_ignore=True
    )
    return targets, tf.where(ignored, 0.0, weight)


def _check_columns(y: Tensor, classes: int) -> Tensor:
    """Checks that labels have a probability for each class."""
    form = (
        "Labels of a classification must be whole numbers of shape (batch,), "
        "or float probabilities"
    )
    if not y.dtype.is_floating:
        raise BatchError(
            f"{form} of shape (batch, {classes}). Received: `y` of shape "
            f"{y.shape} and dtype {y.dtype.name}."
        )
    return _columns(y, classes, form)


def _columns(y: Tensor, classes: int, form: str) -> Tensor:
    """Checks that labels have a column for each output."""
    form = f"{form} of shape (batch, {classes}). Received: "
    if y.shape[1] not in (None, classes):
        raise BatchError(
            f"{form}`y` of shape {y.shape} and dtype {y.dtype.name}."
        )
    if y.shape[1] is not None:
        return y
    columns = tf.shape(y)[1]
    checks = graph_checks.require(
        columns == classes, f"{form}{{}} columns.", lambda: (columns,)
    )
    return tf.ensure_shape(graph_checks.after(checks, y), [None, classes])


def _span(
    checks: BatchChecks,
    y: Any,
    weight: Tensor,
    inputs: dict[str, Tensor],
    of_label: Tensor | None,
) -> Parts:
    """Returns starts and ends of spans."""
    if not isinstance(y, dict) or set(y) != {"start", "end"}:
        received = sorted(y) if isinstance(y, dict) else type(y).__name__
        raise BatchError(
            "The labels of a span must be {'start', 'end'}, each (batch,). "
            f"Received: y={received}."
        )
    token_ids = inputs["token_ids"]
    length = tf.shape(token_ids)[1]
    places = []
    for name in ("start", "end"):
        value = check_shape(name, y[name], "batch", squeezed=True)
        value = check_fit(name, value, "token_ids", token_ids)
        place, ignored = checks.numbers(
            name, value, length, "positions of the sequences", may_ignore=True
        )
        weight = tf.where(ignored, 0.0, weight)
        places.append(place)
    for name, place in zip(("start", "end"), places, strict=True):
        checks.span(
            name, place, inputs["padding_mask"], _times(weight, of_label)
        )
    return Parts(inputs, tf.stack(places, axis=1), weight, checks.made)


# === Sentence embeddings ===


def embedding_parts(
    data: Any, limits: Limits, *, width: int | None, pooling: Collection[str]
) -> Parts:
    """Returns the checked parts of a batch of texts.

    Args:
        data: the user's batch.
        limits: limits of the models.
        width: size of the teacher's vectors; None without a teacher.
        pooling: the pooling modes of the models.

    Raises:
        BatchError: if the parts do not match each other or `limits`.
    """
    x, y, sample_weight = parts_of(data)
    checks = BatchChecks()
    inputs = checks.inputs(x, limits, optional=_SEGMENTS, form=_TEXTS)
    weight = _task_weight(checks, "embedding", sample_weight, inputs)
    checks.made += require_tokens(inputs["padding_mask"], weight, pooling)
    # Replicas cannot take None, and get vectors without a coordinate.
    if y is None or tf.convert_to_tensor(y).shape[1:] == (0,):
        return Parts(inputs, None, weight, checks.made)
    if width is None:
        raise BatchError(
            "A batch without a teacher has no use for vectors. Received: y."
        )
    vectors = check_shape("y", y, "batch", "dimension")
    if vectors.shape[1] not in (None, width):
        raise BatchError(
            f"`y` must hold the teacher's vectors, (batch, {width}), or be "
            f"None. Received: shape {vectors.shape}."
        )
    vectors = check_fit("y", vectors, "token_ids", inputs["token_ids"], 1)
    vectors = tf.ensure_shape(tf.cast(vectors, tf.float32), [None, width])
    good = tf.reduce_all(tf.math.is_finite(vectors), axis=1)
    checks.require(
        tf.reduce_all(good | (weight == 0.0)),
        "`y` must be finite where the weight is not 0. Received: others in "
        "row {}.",
        lambda: (tf.where(~good & (weight > 0.0))[0, 0],),
    )
    return Parts(inputs, vectors, weight, checks.made)


def require_tokens(
    padding_mask: Tensor, weight: Tensor | None, pooling: Collection[str]
) -> list[Tensor]:
    """Asserts that every text has a token that its vector can be made of.

    Args:
        padding_mask: int32, (batch, length).
        weight: float32, (batch,), 0 for texts that may be padding; None for
            none of them.
        pooling: the pooling modes of the models.

    Returns:
        As `graph_checks.require`.
    """
    real = padding_mask > 0
    good = real[:, 0] if "cls" in pooling else tf.reduce_any(real, axis=1)
    if weight is not None:
        good |= weight == 0.0
    where = " at position 0" if "cls" in pooling else ""
    return graph_checks.require(
        tf.reduce_all(good),
        f"Every text must have a token{where}, where `padding_mask` is 1: "
        "padding has no vector. Leave the text out, or give it the weight 0. "
        "Received: padding in row {}.",
        lambda: (tf.where(~good)[0, 0],),
    )
