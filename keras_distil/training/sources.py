"""Datasets whose reading can be continued where a training stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from keras_distil.data import ORDER_VERSION, Stream, first_step_of, stream_of
from keras_distil.training import passes
from keras_distil.utils import private_api

_ITERATOR = "iterator"
_FIRST_BATCH = "first_batch.sha256"


class Position(NamedTuple):
    """A position in the training and its data.

    Attributes:
        epoch: int, number of complete epochs.
        step: int, number of finished batches of the next epoch.
        batches: int, number of batches read since the very beginning.
    """

    epoch: int = 0
    step: int = 0
    batches: int = 0


class Source(Protocol):
    """A dataset whose reading can be continued.

    Attributes:
        steps_per_epoch: int, batches of an epoch.
        order_version: int, version of the code that shuffles the data; None
            if that is not keras_distil's.
    """

    steps_per_epoch: int
    order_version: int | None

    @property
    def length(self) -> int | None:
        """Batches of one pass over the data; None if it is endless."""
        ...

    def enter(self, position: Position) -> Any:
        """Returns the dataset from a position on, to the end of its pass."""
        ...

    def save(self, folder: Path) -> None:
        """Writes whatever is needed besides a position into `folder`."""
        ...

    def restore(self, folder: Path) -> None:
        """Reads what `save` wrote."""
        ...


def make_source(
    model: keras.Model, dataset: Any, steps_per_epoch: int | None
) -> Source:
    """Returns the dataset of a `fit` as a source.

    Args:
        model: the Distiller.
        dataset: the data given to `fit`.
        steps_per_epoch: as given to `fit`.

    Raises:
        TypeError: if `dataset` is not a `tf.data.Dataset`.
        ValueError: if its reading cannot be continued exactly.
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "Training with `TrainingState` needs a `tf.data.Dataset`, such as "
            "`data.masked_lm_dataset` returns. "
            f"Received: x of type {type(dataset).__name__}.{_advice(dataset)}"
        )
    stream = stream_of(dataset)
    if stream is not None:
        return _StreamSource(model, dataset, stream, steps_per_epoch)
    if model.distribute_strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "Under a distribution strategy `TrainingState` can resume "
            "keras_distil's own datasets only, such as "
            "`data.masked_lm_dataset` returns, before any `map` or "
            f"`batch`. Received: {dataset!r}."
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        return _IteratorSource(dataset, steps_per_epoch)
    return _FiniteSource(dataset, steps_per_epoch)


def _advice(x: Any) -> str:
    """Says how to make a dataset of what `fit` was given."""
    if isinstance(x, keras.utils.PyDataset):
        return (
            " Give `tf.data.Dataset.from_generator(lambda: (x[i] for i in "
            "range(len(x))), output_signature=...)`, and its number of batches "
            "by `.apply(tf.data.experimental.assert_cardinality(len(x)))`."
        )
    values = list(x.values()) if isinstance(x, Mapping) else [x]
    if values and all(isinstance(v, np.ndarray | tf.Tensor) for v in values):
        return (
            " Give `tf.data.Dataset.from_tensor_slices((x, y, sample_weight))"
            ".batch(batch_size)`; for another order in each epoch, with "
            "`.shuffle(count, seed=0)` before `batch`, `.repeat()` after it, "
            "and `steps_per_epoch`."
        )
    return ""


def _check_whole_epochs(length: int, steps_per_epoch: int) -> None:
    if length % steps_per_epoch:
        raise ValueError(
            "Training with `TrainingState` needs a dataset that is endless or "
            f"a whole number of epochs long. Received: {length} batches, "
            f"steps_per_epoch={steps_per_epoch}."
        )


class _StreamSource:
    """A dataset of keras_distil, entered at a step without replay."""

    order_version: int | None = ORDER_VERSION

    def __init__(
        self,
        model: keras.Model,
        dataset: tf.data.Dataset,
        stream: Stream,
        steps_per_epoch: int | None,
    ) -> None:
        self._model = model
        self._dataset = dataset
        # The number of batches that the dataset skips at its beginning.
        self._first_step = first_step_of(dataset)
        self.length = None
        if stream.steps is not None:
            self.length = stream.steps - self._first_step
        steps = steps_per_epoch or self.length
        if steps is None:
            raise ValueError(
                "`steps_per_epoch` is needed with an endless dataset. "
                "Received: steps_per_epoch=None."
            )
        if self.length is not None:
            _check_whole_epochs(self.length, steps)
        self.steps_per_epoch = steps

    def enter(self, position: Position) -> Any:
        step = position.batches
        if self.length is not None:
            # As in Keras, which restarts a finite dataset at its end.
            step %= self.length
        return self._model.distributed(
            self._dataset, first_step=self._first_step + step
        )

    def save(self, folder: Path) -> None:
        """Does nothing, because a stream's position is a number."""

    def restore(self, folder: Path) -> None:
        """Does nothing, because a stream's position is a number."""


class _FiniteSource:
    """Any other finite dataset, each pass over which gives the same batches.

    It is entered by `skip`, so the batches before are read again.
    """

    order_version: int | None = None

    def __init__(
        self, dataset: tf.data.Dataset, steps_per_epoch: int | None
    ) -> None:
        length = int(dataset.cardinality())
        if length == tf.data.UNKNOWN_CARDINALITY:
            raise ValueError(
                "`TrainingState` must know how many batches a finite dataset "
                "has: add `.apply(tf.data.experimental.assert_cardinality("
                f"count))`. Received: {dataset!r} of unknown length."
            )
        if not length:
            raise ValueError(f"The dataset has no batches. Received: {dataset}")
        _check_whole_epochs(length, steps_per_epoch or length)
        passes.check_order(dataset)
        self._first_batch = passes.first_batch_hash(dataset)
        if passes.first_batch_hash(dataset) != self._first_batch:
            raise ValueError(
                "`TrainingState` can continue a finite dataset only if each "
                "pass over it gives the same batches, but two passes over this "
                "one begin differently. Draw random numbers by "
                "`tf.random.stateless_...`, with seeds from the data, and let "
                f"generators start anew. Received: {dataset!r}."
            )
        self.length = length
        self.steps_per_epoch = steps_per_epoch or length
        self._dataset = dataset

    def enter(self, position: Position) -> tf.data.Dataset:
        # As in Keras, which restarts a finite dataset at its end.
        step = position.batches % self.length
        return self._dataset.skip(step) if step else self._dataset

    def save(self, folder: Path) -> None:
        (folder / _FIRST_BATCH).write_text(self._first_batch, "utf-8")

    def restore(self, folder: Path) -> None:
        path = folder / _FIRST_BATCH
        saved = path.read_text("utf-8") if path.is_file() else ""
        if saved != self._first_batch:
            raise ValueError(
                f"The training state in {folder} belongs to a training on "
                "other data: the first batch is another one. Give `shuffle` a "
                "seed if it has none, or train into another folder."
            )


class _IteratorSource:
    """Any other endless dataset, continued by the state of its iterator."""

    order_version: int | None = None
    length: int | None = None

    def __init__(
        self, dataset: tf.data.Dataset, steps_per_epoch: int | None
    ) -> None:
        if steps_per_epoch is None:
            raise ValueError(
                "`steps_per_epoch` is needed with an endless dataset. "
                "Received: steps_per_epoch=None."
            )
        self.steps_per_epoch = steps_per_epoch
        self._dataset = _OneIterator(dataset)
        try:
            # Tries what `save` will do, to fail now and not hours later.
            self._dataset.iterator._serialize_to_tensors()
        except tf.errors.OpError as error:
            raise ValueError(
                "`TrainingState` cannot resume this endless dataset exactly, "
                f"because its iterator cannot be saved: {_first_line(error)} "
                "Leave out `repeat` if every pass gives the same batches, or "
                "use `data.masked_lm_dataset`, or a dataset without Python "
                "functions and generators."
            ) from None

    def enter(self, position: Position) -> tf.data.Dataset:
        return self._dataset

    def save(self, folder: Path) -> None:
        self._checkpoint().write(str(folder / _ITERATOR))

    def restore(self, folder: Path) -> None:
        try:
            self._checkpoint().read(str(folder / _ITERATOR)).assert_consumed()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise ValueError(
                f"The position in the data in {folder} cannot be read: "
                f"{_first_line(error)} Remove the folder."
            ) from error

    def _checkpoint(self) -> tf.train.Checkpoint:
        return tf.train.Checkpoint(iterator=self._dataset.iterator)


class _OneIterator(tf.data.Dataset):
    """A dataset with one iterator, which every loop over it continues."""

    def __init__(self, dataset: tf.data.Dataset) -> None:
        self._dataset = dataset
        super().__init__(private_api.variant_tensor(dataset))
        self.iterator = super().__iter__()

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._dataset]

    @property
    def element_spec(self) -> Any:
        return self._dataset.element_spec

    def __iter__(self) -> Any:
        return self.iterator


def _first_line(error: Exception) -> str:
    message = getattr(error, "message", str(error)).splitlines()[0]
    return (
        message.rsplit("}}", 1)[-1].split("[Op:")[0].strip().rstrip(".") + "."
    )
