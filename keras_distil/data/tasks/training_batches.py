"""Training batches of a task, from one or several sets of examples."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from keras_distil.data.corpus.shards import reading
from keras_distil.data.order import shuffled
from keras_distil.data.stream import Stream
from keras_distil.data.tasks import mixing
from keras_distil.data.tasks.batches import IGNORED, EncodedExamples, padded

# The number of batches whose examples are sorted by length together.
_WINDOW_BATCHES = 50
# Keep the orders of one seed independent.
_EXAMPLE_ORDERS = (0, 2, 3)
_BATCH_ORDER = 1
_INPUTS = ("token_ids", "padding_mask", "segment_ids")

# From the set of each example, its number there, both int64 (batch,), and the
# length of the batch to more entries of `x`.
MoreInputs: TypeAlias = Callable[
    [tf.Tensor, tf.Tensor, tf.Tensor], dict[str, tf.Tensor]
]
# The same to `y`.
Targets: TypeAlias = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Any]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Sets of examples that every batch has its share of.

    Attributes:
        labelled: examples with labels. An epoch is one pass over them.
        augmented: more examples with labels, such as copies with other words;
            None for none.
        unlabelled: examples without labels, from which a student learns by its
            teacher alone; None for none.
        augmented_share: float in (0, 1), share of augmented examples in a
            batch; None for a share in proportion to their number.
        unlabelled_share: the same of unlabelled examples.
    """

    labelled: EncodedExamples
    augmented: EncodedExamples | None = None
    unlabelled: EncodedExamples | None = None
    augmented_share: float | None = None
    unlabelled_share: float | None = None

    @property
    def parts(self) -> list[EncodedExamples]:
        """The sets that there are, the labelled one first."""
        sets = (self.labelled, self.augmented, self.unlabelled)
        return [examples for examples in sets if examples is not None]

    @property
    def given_shares(self) -> list[float | None]:
        """The given shares of `parts`."""
        given: list[float | None] = [None]
        if self.augmented is not None:
            given.append(self.augmented_share)
        if self.unlabelled is not None:
            given.append(self.unlabelled_share)
        return given


def task_dataset(
    examples: EncodedExamples | Mixture,
    *,
    batch_size: int,
    seed: int,
    steps: int | None = None,
    first_step: int = 0,
    more_inputs: Sequence[MoreInputs] = (),
    targets: Targets | None = None,
) -> tf.data.Dataset:
    """Builds an endless stream of training batches of similar length.

    Each epoch has a different order. The examples of about fifty batches at a
    time are sorted by length, and these batches are shuffled. Batches cross
    the ends of epochs, so no example is left out. A batch is a function of
    its step, so the stream can be entered at any step.

    In a mixture, every batch has its share of each set, rounded to whole
    examples so that the shares of all batches together are exact, and each set
    has its own order and epochs. Examples on disk are read from there when
    their batch is made.

    Args:
        examples: with labels; or a mixture.
        batch_size: int >= 1, examples per batch.
        seed: int, determines the order.
        steps: int, number of batches in the stream; endless if None.
        first_step: int >= 0, number of batches to skip.
        more_inputs: functions that return more entries of `x`, such as the
            outputs of a teacher.
        targets: function that returns `y` in place of labels, such as a
            teacher's vectors; examples then need none.

    Returns:
        A dataset of `({"token_ids", "padding_mask", "segment_ids"}, labels,
        weights)`: int32 (batch_size, length), the labels, and float32 weights,
        (batch_size,), or (batch_size, length) for classes of tokens.
        If some examples have no labels, there is also "label_weight", float32
        (batch_size,): 0 for these, whose labels are zeros, and 1 for others.

    Raises:
        ValueError: if examples have no labels where they need some, or
            `batch_size` is below 1.
    """
    mixture = examples
    if isinstance(mixture, EncodedExamples):
        mixture = Mixture(mixture)
    for part in (mixture.labelled, mixture.augmented):
        if part is not None and part.labels is None and targets is None:
            raise ValueError("`examples` must have labels to train on.")
    if batch_size < 1:
        raise ValueError(
            "`batch_size` must be at least 1. "
            f"Received: batch_size={batch_size}."
        )
    parts = mixture.parts
    counts = [len(part) for part in parts]
    shares = mixing.find_shares(counts, mixture.given_shares)
    reader = _Reader(parts, more_inputs, targets)
    in_window = min(
        _WINDOW_BATCHES,
        mixing.count_steps(counts, mixture.given_shares, batch_size),
    )

    def rows_of(number: int, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Returns the examples at some places of a set's own stream."""
        place, count = tf.range(first, last), counts[number]
        return shuffled(
            place % count, seed, place // count, count, _EXAMPLE_ORDERS[number]
        )

    def batch(step: tf.Tensor, places: tf.Tensor):
        number = step // in_window
        within = shuffled(
            (step % in_window)[tf.newaxis],
            seed,
            number[tf.newaxis],
            in_window,
            _BATCH_ORDER,
        )[0]
        first = number * in_window
        # The numbers of a set's examples before the window, before and after
        # the batch, and after the window.
        ends = [
            mixing.split_examples(batches * batch_size, shares)
            for batches in (
                first,
                first + within,
                first + within + 1,
                first + in_window,
            )
        ]
        windows = [
            (rows_of(part, begin, end), start - begin, stop - begin)
            for part, (begin, start, stop, end) in enumerate(
                zip(*ends, strict=True)
            )
        ]
        return reader(places, windows)

    stream = Stream(batch, batch_size=batch_size, steps=steps)
    return stream.dataset(first_step)


class _Reader:
    """Reads padded batches of several sets of examples.

    By NumPy and not in the graph, since examples may be on disk.
    """

    def __init__(
        self,
        parts: Sequence[EncodedExamples],
        more_inputs: Sequence[MoreInputs],
        targets: Targets | None,
    ) -> None:
        self._parts = parts
        self._more_inputs = more_inputs
        self._targets = targets
        if targets is not None:
            self._parts = [dataclasses.replace(x, labels=None) for x in parts]
        # An empty structure without labels.
        labels = () if targets is not None else parts[0].labels
        self._form = tf.nest.map_structure(np.asarray, labels)
        self._has_token_labels = self._parts[0].has_token_labels
        self._all_labelled = targets is not None or all(
            part.labels is not None for part in parts
        )

    def __call__(
        self, places: tf.Tensor, windows: Sequence[tuple[tf.Tensor, ...]]
    ) -> Any:
        """Returns examples of one batch.

        Args:
            places: int64, (n,), places in the batch.
            windows: for each set, the examples of the window, int64, and from
                which of them to which, sorted by length, the batch has its
                own.
        """
        labels = tf.nest.flatten(self._form)
        count = places.shape[0]
        shapes = [[count, None]] * len(_INPUTS)
        shapes += [self._shape(count, array) for array in labels]
        # Marked stateless: under deterministic operations it may still run in
        # parallel.
        arrays = tf.numpy_function(
            self._read,
            [places, *tf.nest.flatten(list(windows))],
            [
                *[tf.int32] * len(_INPUTS),
                *[array.dtype for array in labels],
                *[tf.float32] * 2,
                *[tf.int64] * 2,
            ],
            stateful=False,
        )
        shapes += [[count]] * 4
        for array, shape in zip(arrays, shapes, strict=True):
            array.set_shape(shape)
        *arrays, sets, rows = arrays
        x = dict(zip(_INPUTS, arrays, strict=False))
        *_, label_weight, weight = arrays
        if not self._all_labelled:
            x["label_weight"] = label_weight
        for more in self._more_inputs:
            x |= more(sets, rows, tf.shape(arrays[0])[1])
        y = tf.nest.pack_sequence_as(self._form, arrays[len(_INPUTS) : -2])
        if self._targets is not None:
            y = self._targets(sets, rows, tf.shape(arrays[0])[1])
        if self._has_token_labels:
            weight = weight[:, tf.newaxis] * tf.cast(
                x["padding_mask"], tf.float32
            )
        return x, y, weight

    def _shape(self, count: Any, labels: np.ndarray) -> list[Any]:
        if self._has_token_labels:
            return [count, None]
        return [count, *labels.shape[1:]]

    def _read(self, places: np.ndarray, *windows: Any) -> list[np.ndarray]:
        with reading:
            sets, rows = self._choose(windows)
            sets, rows = sets[places], rows[places]
            return [*self._gather(sets, rows), sets, rows]

    def _choose(self, windows: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the set and the number of each example of a batch."""
        sets, chosen = [], []
        for number, part in enumerate(self._parts):
            rows, start, stop = windows[3 * number : 3 * number + 3]
            lengths = part.starts[rows + 1] - part.starts[rows]
            by_length = np.argsort(lengths, kind="stable")
            chosen.append(rows[by_length[start:stop]])
            sets.append(np.full(stop - start, number))
        return np.concatenate(sets), np.concatenate(chosen)

    def _gather(self, sets: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
        """Returns the arrays of some examples, padded to the longest."""
        label_weight = np.zeros(len(rows), np.float32)
        weight = np.ones(len(rows), np.float32)
        pieces = []
        for number in np.unique(sets):
            part, own = self._parts[number], np.flatnonzero(sets == number)
            pieces.append((own, padded(part, rows[own])))
            if part.labels is not None:
                label_weight[own] = 1.0
            if part.weights is not None:
                weight[own] = part.weights[rows[own]]
        longest = max(x["token_ids"].shape[1] for _, x in pieces)
        labels = self._labels(sets, rows, longest)
        inputs = []
        for name in _INPUTS:
            empty = self._parts[0].pad_id if name == "token_ids" else 0
            array = np.full((len(rows), longest), empty, np.int32)
            for own, x in pieces:
                array[own, : x[name].shape[1]] = x[name]
            inputs.append(array)
        return [*inputs, *labels, label_weight, weight]

    def _labels(
        self, sets: np.ndarray, rows: np.ndarray, longest: int
    ) -> list[np.ndarray]:
        """Returns the labels of some examples, zeros where there are none."""
        if self._has_token_labels:
            return [self._token_labels(sets, rows, longest)]
        labels = [
            np.zeros((len(rows), *array.shape[1:]), array.dtype)
            for array in tf.nest.flatten(self._form)
        ]
        for number in np.unique(sets):
            part, own = self._parts[number], np.flatnonzero(sets == number)
            if part.labels is not None:
                for array, values in zip(
                    labels, tf.nest.flatten(part.labels), strict=True
                ):
                    array[own] = values[rows[own]]
        return labels

    def _token_labels(
        self, sets: np.ndarray, rows: np.ndarray, longest: int
    ) -> np.ndarray:
        """Returns the class of each token, -100 where there is none."""
        labels = np.full((len(rows), longest), IGNORED, self._form.dtype)
        for place, (number, row) in enumerate(zip(sets, rows, strict=True)):
            part = self._parts[number]
            begin, end = part.starts[row : row + 2]
            if part.labels is not None:
                labels[place, : end - begin] = part.labels[begin:end]
        return labels
