"""Checks that a batch is consistent and fits the models.

Shapes and types are checked when a step is traced, as far as they are known
by then. The rest is asserted in the graph: sizes that are unknown before the
step runs are checked before any operation reads the tensor, and values before
the update. Invalid values are also clipped to their range, so that no
operation fails first with another error and the forward pass need not wait for
the check.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.utils import graph_checks
from keras_distil.utils.graph_checks import BatchError

Tensor = Any

# The label that Hugging Face ignores; it gets weight 0.
IGNORED = -100
# The sum of probabilities as labels may differ from 1 by rounding.
SUM_TOLERANCE = 1e-3
# float64 can represent every integer up to here.
_EXACT = 2**53


class Limits(NamedTuple):
    """Limits on what an objective's models can read; None means no limit.

    Attributes:
        vocabulary_size: rows of the token embedding.
        max_length: rows of the position embedding.
        num_segments: rows of the token-type embedding, if a model has one.
    """

    vocabulary_size: int | None = None
    max_length: int | None = None
    num_segments: int | None = None


NO_LIMITS = Limits()


def limits_of(models: Sequence[Any]) -> Limits:
    """Returns the limits that hold for all given models.

    Args:
        models: task models; anything else, such as a cached teacher or None,
            sets no limit.
    """
    backbones = [m.backbone for m in models if isinstance(m, keras.Model)]

    def least(name: str) -> int | None:
        limits = [getattr(backbone, name, None) for backbone in backbones]
        return min((x for x in limits if x is not None), default=None)

    return Limits(
        *map(least, ("vocabulary_size", "max_sequence_length", "num_segments"))
    )


class Numbers(NamedTuple):
    """Whole numbers that have been checked.

    Attributes:
        values: int32, clipped to their range.
        ignored: bool, same shape, True for -100; None if that is not allowed.
    """

    values: Tensor
    ignored: Tensor | None


class BatchChecks:
    """Checks the parts of one batch.

    Attributes:
        made: assertions on values that must hold before an update; see
            `graph_checks.after`.
    """

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def require(self, condition: Tensor, message: str, values: Any) -> None:
        """Asserts a condition on values; see `graph_checks.require`."""
        self.made += graph_checks.require(condition, message, values)

    def inputs(
        self, x: Any, limits: Limits, *, optional: Sequence[str], form: str
    ) -> dict[str, Tensor]:
        """Returns the encoders' inputs, int32, (batch, length).

        Args:
            x: the user's inputs.
            limits: limits of the models.
            optional: keys that `x` may have besides "token_ids" and
                "padding_mask".
            form: the required form of a batch, for the message.
        """
        required = ("token_ids", "padding_mask")
        if not isinstance(x, dict) or not (
            set(required) <= set(x) <= {*required, *optional}
        ):
            received = sorted(x) if isinstance(x, dict) else type(x).__name__
            raise BatchError(f"{form} Received: x={received}.")
        token_ids = check_shape("token_ids", x["token_ids"], "batch", "length")
        token_ids = _check_length(token_ids, limits.max_length)
        ranges = {
            "token_ids": (limits.vocabulary_size, "rows of the vocabulary"),
            "padding_mask": (2, "1 for a token, 0 for padding"),
            "segment_ids": (limits.num_segments, "rows of the token types"),
        }
        inputs = {}
        for name in ranges:
            if name in x:
                value = token_ids
                if name != "token_ids":
                    value = check_shape(name, x[name], "batch", "length")
                    value = check_fit(name, value, "token_ids", token_ids)
                limit, what = ranges[name]
                inputs[name] = self.numbers(name, value, limit, what).values
        return inputs

    def numbers(
        self,
        name: str,
        value: Tensor,
        limit: int | Tensor | None,
        what: str,
        *,
        may_ignore: bool = False,
    ) -> Numbers:
        """Checks for whole numbers from 0 to below a limit.

        Args:
            name: name of the part, for messages.
            value: integers, bools, or floats that are whole numbers.
            limit: int > 0, or None for any number that is not negative.
            what: name of the indexed items, for messages.
            may_ignore: whether -100 is also allowed.
        """
        value = self._check_whole(name, value)
        ignored = None
        if may_ignore:
            ignored = value == IGNORED
            value = tf.where(ignored, tf.zeros_like(value), value)
        highest = value.dtype.max if limit is None else limit - 1
        highest = tf.cast(highest, value.dtype)
        hint = f", or {IGNORED} to leave one out" if may_ignore else ""
        self.require(
            tf.reduce_all((value >= 0) & (value <= highest)),
            f"`{name}` must be from 0 to {{}} ({what}){hint}. Received: "
            "values from {} to {}.",
            lambda: (highest, tf.reduce_min(value), tf.reduce_max(value)),
        )
        zero = tf.zeros([], value.dtype)
        value = tf.clip_by_value(value, zero, tf.maximum(highest, zero))
        return Numbers(tf.cast(value, tf.int32), ignored)

    def _check_whole(self, name: str, value: Tensor) -> Tensor:
        """Converts whole numbers to int32 or int64, without truncation."""
        if value.dtype == tf.int32:
            return value
        if not value.dtype.is_floating:
            wide = value.dtype in (tf.int64, tf.uint32, tf.uint64)
            whole = tf.cast(value, tf.int64 if wide else tf.int32)
            if value.dtype == tf.uint64:
                # Numbers too large for int64 have become negative.
                whole = tf.where(whole < 0, tf.int64.max, whole)
            return whole
        exact = tf.cast(value, tf.float64)
        # NaN is not equal to itself.
        whole = (exact == tf.floor(exact)) & (tf.abs(exact) <= _EXACT)
        self.require(
            tf.reduce_all(whole),
            f"`{name}` must hold whole numbers. Received: {{}}.",
            lambda: (tf.boolean_mask(value, ~whole)[0],),
        )
        return tf.cast(tf.where(whole, exact, 0.0), tf.int64)

    def weights(self, name: str, value: Tensor) -> Tensor:
        """Checks that weights are finite and at least 0; returns float32."""
        value = tf.cast(value, tf.float32)
        good = tf.math.is_finite(value) & (value >= 0.0)
        self.require(
            tf.reduce_all(good),
            f"`{name}` must be finite and at least 0; 0 leaves one out. "
            "Received: {}.",
            lambda: (tf.boolean_mask(value, ~good)[0],),
        )
        return tf.where(good, value, 0.0)

    def probabilities(self, value: Tensor, weight: Tensor) -> Tensor:
        """Checks labels that are distributions, float32, (batch, classes)."""
        value = tf.cast(value, tf.float32)
        total = tf.reduce_sum(value, axis=1)
        good = tf.reduce_all(value >= 0.0, axis=1) & (
            tf.abs(total - 1.0) <= SUM_TOLERANCE
        )
        wrong = ~good & (weight > 0.0)
        self.require(
            ~tf.reduce_any(wrong),
            "`y` of shape (batch, classes) must hold probabilities: at least "
            f"0, with a sum of 1 (within {SUM_TOLERANCE:g}) for each example. "
            "Received: a sum of {} with a least value of {}.",
            lambda: (
                tf.boolean_mask(total, wrong)[0],
                tf.reduce_min(tf.boolean_mask(value, wrong)[0]),
            ),
        )
        return tf.where(good[:, tf.newaxis], value, 0.0)

    def label_shares(self, value: Tensor, weight: Tensor) -> Tensor:
        """Checks a number from 0 to 1 per label, float32, (batch, labels)."""
        value = tf.cast(value, tf.float32)
        good = (value >= 0.0) & (value <= 1.0)
        wrong = ~good & (weight > 0.0)[:, tf.newaxis]
        self.require(
            ~tf.reduce_any(wrong),
            "`y` must hold a number from 0 to 1 for each label. Received: {}.",
            lambda: (tf.boolean_mask(value, wrong)[0],),
        )
        return tf.where(good, value, 0.0)

    def finite(self, value: Tensor, weight: Tensor) -> Tensor:
        """Checks regression labels, float32, (batch,); sets non-finite to 0."""
        value = tf.cast(value, tf.float32)
        counts = weight > 0.0
        good = tf.math.is_finite(value)
        self.require(
            tf.reduce_all(good | ~counts),
            "`y` of a regression must be finite where the weight is not 0. "
            "Received: {}.",
            lambda: (tf.boolean_mask(value, counts & ~good)[0],),
        )
        return tf.where(good, value, 0.0)

    def first_tokens(
        self, padding_mask: Tensor, weight: Tensor, place: int
    ) -> None:
        """Requires every text to have the token whose state is classified."""
        wrong = (padding_mask[:, place] == 0) & (weight > 0.0)
        self.require(
            ~tf.reduce_any(wrong),
            f"`padding_mask` must be 1 at position {place}, whose state is "
            "classified: an example there is padding, or has no token at all. "
            "Give it the weight 0, or pad on the right. Received: 0 in row "
            "{}.",
            lambda: (tf.where(wrong)[0, 0],),
        )

    def span(
        self, name: str, place: Tensor, padding_mask: Tensor, weight: Tensor
    ) -> None:
        """Requires starts and ends of answers to be tokens, not padding."""
        real = tf.gather(padding_mask, place, axis=1, batch_dims=1) > 0
        wrong = ~real & (weight > 0.0)
        self.require(
            ~tf.reduce_any(wrong),
            f"`{name}` must be the position of a token, not of padding: the "
            f"answer was cut off. Use {IGNORED} or the weight 0 to leave such "
            "an example out. Received: position {} in row {}.",
            lambda: (
                tf.boolean_mask(place, wrong)[0],
                tf.where(wrong)[0, 0],
            ),
        )


def parts_of(data: Any) -> tuple[Any, Any, Any]:
    """Returns `x`, `y` and `sample_weight` of a triple, None if absent."""
    if isinstance(data, list | tuple) and not 1 <= len(data) <= 3:
        raise BatchError(
            "A batch must be `(x, y, sample_weight)`. "
            f"Received: {len(data)} parts."
        )
    return keras.utils.unpack_x_y_sample_weight(data)


def check_shape(
    name: str, value: Any, *axes: str, squeezed: bool = False
) -> Tensor:
    """Returns a dense tensor of numbers with the named axes.

    Args:
        name: name of the part, for messages.
        value: the user's value.
        *axes: names of the axes, for messages.
        squeezed: whether an extra axis of size 1 is removed, as in Keras for
            labels and weights.
    """
    value = check_dense(name, value)
    rank, shape = len(axes), value.shape
    form = f"({', '.join(axes)}{',' if rank == 1 else ''})"
    if shape.rank is None:
        raise BatchError(
            f"`{name}` must have a known number of axes, {form}. Received: a "
            "tensor of unknown shape; use `tf.ensure_shape` where it is made."
        )
    if squeezed and shape.rank == rank + 1 and shape[-1] in (1, None):
        checks = []
        if shape[-1] is None:
            full = tf.shape(value)
            checks = graph_checks.require(
                full[-1] == 1,
                f"`{name}` must have shape {form}. Received: shape ({{}}).",
                lambda: (full,),
            )
        return tf.squeeze(graph_checks.after(checks, value), axis=-1)
    if shape.rank != rank:
        hint = ""
        if shape.rank == rank - 1 and name in ("token_ids", "padding_mask"):
            hint = " Batch the data first."
        raise BatchError(
            f"`{name}` must have shape {form}. Received: shape {shape}.{hint}"
        )
    return value


def check_dense(name: str, value: Any) -> Tensor:
    """Returns a dense tensor of numbers."""
    if isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        raise BatchError(
            f"`{name}` must be a dense tensor, padded to one length. "
            f"Received: a {type(value).__name__} of shape {value.shape}."
        )
    try:
        tensor = tf.convert_to_tensor(value)
    except (ValueError, TypeError):
        received = (
            sorted(value)
            if isinstance(value, dict)
            else (
                f"an object of type {type(value).__name__} that is not an array"
            )
        )
        raise BatchError(
            f"`{name}` must be one array of numbers. Received: {received}."
        ) from None
    dtype = tensor.dtype
    if not (dtype.is_integer or dtype.is_floating or dtype.is_bool):
        raise BatchError(
            f"`{name}` must hold numbers. Received: dtype {dtype.name}."
        )
    return tensor


def check_fit(
    name: str,
    value: Tensor,
    other_name: str,
    other: Tensor,
    axes: int | None = None,
) -> Tensor:
    """Returns the value after checking that its first axes match another's.

    Args:
        name: name of the part, for messages.
        value: a tensor with a known number of axes.
        other_name: name of the tensor that it must match, for messages.
        other: a tensor with at least as many axes.
        axes: int, number of axes to compare; None for all axes of the value.
    """
    axes = axes or value.shape.rank
    same = "shape" if axes == other.shape.rank else "number of examples"
    message = f"`{name}` must have the {same} of `{other_name}`. Received: "
    own, theirs = value.shape[:axes], other.shape[:axes]
    if not own.is_compatible_with(theirs):
        raise BatchError(
            f"{message}`{name}` of shape {value.shape}, `{other_name}` of "
            f"shape {other.shape}."
        )
    if own.is_fully_defined() and theirs.is_fully_defined():
        return value
    sizes, other_sizes = tf.shape(value), tf.shape(other)
    checks = graph_checks.require(
        tf.reduce_all(sizes[:axes] == other_sizes[:axes]),
        f"{message}`{name}` of shape ({{}}), `{other_name}` of shape ({{}}).",
        lambda: (sizes, other_sizes),
    )
    return graph_checks.after(checks, value)


def _check_length(token_ids: Tensor, longest: int | None) -> Tensor:
    """Checks that token ids are not longer than the position embedding."""
    highest = tf.int32.max if longest is None else longest
    message = (
        "`token_ids` must have at least 1 token per example"
        + (f" and at most {longest}, the positions" if longest else "")
        + ". Received: "
    )
    length = token_ids.shape[1]
    if length is not None:
        if not 1 <= length <= highest:
            raise BatchError(f"{message}shape {token_ids.shape}.")
        return token_ids
    shape = tf.shape(token_ids)
    checks = graph_checks.require(
        (shape[1] >= 1) & (shape[1] <= highest),
        f"{message}shape ({{}}).",
        lambda: (shape,),
    )
    return graph_checks.after(checks, token_ids)
