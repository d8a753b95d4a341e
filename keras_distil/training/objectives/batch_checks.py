"""Whether a batch fits together and fits the models: the one place.

Shapes and types are checked when a step is traced, as far as they are known
then. What depends on values is asserted in the graph: sizes that are not
known before the step runs, ahead of everything that reads the tensor, and the
values themselves ahead of the update. Values that fail their check are also
brought into their range, so that no operation fails first with an error of
its own and the forward pass need not wait for the check.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_distil.utils import graph_checks
from keras_distil.utils.graph_checks import BatchError

Tensor = Any

# The label that Hugging Face ignores: its weight is 0.
IGNORED = -100
# Labels given as probabilities may miss a sum of 1 by their rounding.
SUM_TOLERANCE = 1e-3
# Every integer up to here is a float64.
_EXACT = 2**53


class Limits(NamedTuple):
    """What the models of an objective can read; None is no limit.

    Attributes:
        vocabulary_size: rows of the token embedding.
        max_length: rows of the position embedding.
        num_segments: rows of the token-type embedding, of those models that
            have one.
    """

    vocabulary_size: int | None = None
    max_length: int | None = None
    num_segments: int | None = None


NO_LIMITS = Limits()


def limits_of(models: Sequence[Any]) -> Limits:
    """What all of some task models can read.

    Args:
        models: task models; anything else, such as a cached teacher or None,
            sets no limit.
    """
    backbones = [m.backbone for m in models if isinstance(m, keras.Model)]

    def least(name: str) -> int | None:
        found = [getattr(backbone, name, None) for backbone in backbones]
        return min((x for x in found if x is not None), default=None)

    return Limits(
        *map(least, ("vocabulary_size", "max_sequence_length", "num_segments"))
    )


class Numbers(NamedTuple):
    """Whole numbers that were checked.

    Attributes:
        values: int32, in their range.
        ignored: bool, the same shape, where -100 stood; None if it may not.
    """

    values: Tensor
    ignored: Tensor | None


class BatchChecks:
    """Checks the parts of one batch.

    Attributes:
        made: assertions on values, which must hold before an update; see
            `graph_checks.after`.
    """

    def __init__(self) -> None:
        self.made: list[Tensor] = []

    def require(self, condition: Tensor, message: str, values: Any) -> None:
        """Asserts something of values; see `graph_checks.require`."""
        self.made += graph_checks.require(condition, message, values)

    def inputs(
        self, x: Any, limits: Limits, *, optional: Sequence[str], form: str
    ) -> dict[str, Tensor]:
        """What the encoders read, int32, (batch, length).

        Args:
            x: as the user gave it.
            limits: of the models.
            optional: keys that `x` may have besides "token_ids" and
                "padding_mask".
            form: what a batch must be, for the message.
        """
        wanted = ("token_ids", "padding_mask")
        if not isinstance(x, dict) or not (
            set(wanted) <= set(x) <= {*wanted, *optional}
        ):
            received = sorted(x) if isinstance(x, dict) else type(x).__name__
            raise BatchError(f"{form} Received: x={received}.")
        token_ids = shaped("token_ids", x["token_ids"], "batch", "length")
        token_ids = _of_length(token_ids, limits.max_length)
        ranges = {
            "token_ids": (limits.vocabulary_size, "rows of the vocabulary"),
            "padding_mask": (2, "1 for a token, 0 for padding"),
            "segment_ids": (limits.num_segments, "rows of the token types"),
        }
        checked = {}
        for name in ranges:
            if name in x:
                value = token_ids
                if name != "token_ids":
                    value = shaped(name, x[name], "batch", "length")
                    value = fitting(name, value, "token_ids", token_ids)
                limit, what = ranges[name]
                checked[name] = self.numbers(name, value, limit, what).values
        return checked

    def numbers(
        self,
        name: str,
        value: Tensor,
        limit: int | Tensor | None,
        what: str,
        *,
        may_ignore: bool = False,
    ) -> Numbers:
        """Whole numbers from 0 to below a limit.

        Args:
            name: of the part, for messages.
            value: integers, bools, or floats that are whole numbers.
            limit: int > 0, or None for any number that is not negative.
            what: what the numbers choose among, for messages.
            may_ignore: whether -100 is allowed, too.
        """
        value = self._whole(name, value)
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

    def _whole(self, name: str, value: Tensor) -> Tensor:
        """The same numbers as int32 or int64; none are cut or wrapped."""
        if value.dtype == tf.int32:
            return value
        if not value.dtype.is_floating:
            wide = value.dtype in (tf.int64, tf.uint32, tf.uint64)
            whole = tf.cast(value, tf.int64 if wide else tf.int32)
            if value.dtype == tf.uint64:
                # What int64 cannot hold has become negative.
                whole = tf.where(whole < 0, tf.int64.max, whole)
            return whole
        exact = tf.cast(value, tf.float64)
        # Not a number is not equal to itself.
        whole = (exact == tf.floor(exact)) & (tf.abs(exact) <= _EXACT)
        self.require(
            tf.reduce_all(whole),
            f"`{name}` must hold whole numbers. Received: {{}}.",
            lambda: (tf.boolean_mask(value, ~whole)[0],),
        )
        return tf.cast(tf.where(whole, exact, 0.0), tf.int64)

    def weights(self, name: str, value: Tensor) -> Tensor:
        """Weights as float32, finite and at least 0."""
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
        """Labels as distributions, float32, (batch, classes)."""
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

    def finite(self, value: Tensor, weight: Tensor) -> Tensor:
        """Labels of a regression, float32, (batch,), 0 if not finite."""
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
        """Texts whose class is wanted must have the token that says it."""
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
        """Starts and ends of answers must be tokens, not padding."""
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
    """`x`, `y` and `sample_weight` of a Keras triple, None where absent."""
    if isinstance(data, list | tuple) and not 1 <= len(data) <= 3:
        raise BatchError(
            "A batch must be `(x, y, sample_weight)`. "
            f"Received: {len(data)} parts."
        )
    return keras.utils.unpack_x_y_sample_weight(data)


def shaped(name: str, value: Any, *axes: str, squeezed: bool = False) -> Tensor:
    """A dense tensor of numbers with as many axes as are named.

    Args:
        name: of the part, for messages.
        value: what the user gave.
        *axes: names of the axes, for messages.
        squeezed: whether one more axis of size 1 is taken away, as Keras does
            with labels and weights.
    """
    value = dense(name, value)
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


def dense(name: str, value: Any) -> Tensor:
    """A dense tensor of numbers."""
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


def fitting(
    name: str,
    value: Tensor,
    other_name: str,
    other: Tensor,
    axes: int | None = None,
) -> Tensor:
    """The value, whose first axes have the sizes of the other's.

    Args:
        name: of the part, for messages.
        value: with a known number of axes.
        other_name: of the tensor that it must fit, for messages.
        other: with at least as many axes.
        axes: int, how many are compared; None for all of the value's.
    """
    axes = axes or value.shape.rank
    same = "shape" if axes == other.shape.rank else "number of examples"
    message = f"`{name}` must have the {same} of `{other_name}`. Received: "
    mine, theirs = value.shape[:axes], other.shape[:axes]
    if not mine.is_compatible_with(theirs):
        raise BatchError(
            f"{message}`{name}` of shape {value.shape}, `{other_name}` of "
            f"shape {other.shape}."
        )
    if mine.is_fully_defined() and theirs.is_fully_defined():
        return value
    sizes, wanted = tf.shape(value), tf.shape(other)
    checks = graph_checks.require(
        tf.reduce_all(sizes[:axes] == wanted[:axes]),
        f"{message}`{name}` of shape ({{}}), `{other_name}` of shape ({{}}).",
        lambda: (sizes, wanted),
    )
    return graph_checks.after(checks, value)


def _of_length(token_ids: Tensor, longest: int | None) -> Tensor:
    """Token ids that are not longer than the position embedding."""
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
