"""A `fit` that continues where an interrupted one stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from keras_distil.data import ORDER_VERSION, Stream, first_step_of, stream_of
from keras_distil.utils import private_api

_ITERATOR = "iterator"


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

    def enter(self, position: Position) -> Any:
        """Returns the dataset from a position on."""
        ...

    def save(self, folder: Path) -> None:
        """Writes whatever is needed besides a position into `folder`."""
        ...

    def restore(self, folder: Path) -> None:
        """Reads what `save` wrote."""
        ...


def find_training_state(callbacks: Any) -> Any:
    """Returns the callback that keeps the training state, if any.

    Args:
        callbacks: as for `fit`: a callback, a list, or Keras's container.

    Raises:
        ValueError: if there are several.
    """
    states = [
        callback
        for callback in _listed(callbacks)
        if getattr(callback, "keeps_training_state", False)
    ]
    if len(states) > 1:
        raise ValueError(
            "`callbacks` may hold one TrainingState. "
            f"Received: {len(states)} of them."
        )
    return states[0] if states else None


def fit(
    model: keras.Model,
    keras_fit: Callable[..., Any],
    dataset: Any,
    y: Any,
    state: Any,
    *,
    callbacks: Any,
    epochs: int = 1,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    verbose: Any = "auto",
    **kwargs: Any,
) -> Any:
    """Runs Keras's `fit` from the newest state in `state`.

    A state in mid-epoch leads to two calls: one for the rest of that epoch,
    one for the epochs after it. To callbacks they are one training.

    Args:
        model: the Distiller, compiled.
        keras_fit: `keras.Model.fit`, bound to the model.
        dataset: a `tf.data.Dataset` of keras_distil, or an endless one whose
            iterator can be saved.
        y: as for `fit`, which rejects it with a dataset.
        state: the callback that keeps the state.
        callbacks: all callbacks.
        epochs: int, as for `fit`.
        initial_epoch: int, as for `fit`.
        steps_per_epoch: int or None, as for `fit`.
        verbose: as for `fit`.
        **kwargs: further arguments of `fit`.

    Returns:
        The history of all epochs, including those of earlier processes.

    Raises:
        TypeError: if `dataset` is not a `tf.data.Dataset`.
        ValueError: if the dataset or a callback cannot be continued exactly.
    """
    source = _source(model, dataset, steps_per_epoch)
    others = [x for x in _listed(callbacks) if x is not state]
    if not any(isinstance(x, keras.callbacks.History) for x in others):
        others.append(keras.callbacks.History())
    position = _position(state, model, source, others, initial_epoch)
    steps = source.steps_per_epoch
    listed = _OneTraining(
        # Other callbacks finish the end of an epoch before the state says
        # that the epoch is complete.
        [*others, state],
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=epochs,
        steps=steps,
        model=model,
    )
    kwargs["callbacks"] = listed
    # Restored callbacks may decide that the training has ended.
    model.stop_training = False
    listed.on_train_begin()
    ended = model.stop_training
    if ended:
        position = Position(epochs, 0, position.batches)
    if position.step and position.epoch < epochs:
        listed.offset = position.step
        keras_fit(
            source.enter(position),
            y,
            initial_epoch=position.epoch,
            epochs=position.epoch + 1,
            steps_per_epoch=steps - position.step,
            **kwargs,
        )
        listed.offset = 0
        position = Position(
            position.epoch + 1, 0, position.batches + steps - position.step
        )
    if ended or not model.stop_training:
        keras_fit(
            source.enter(position),
            y,
            initial_epoch=min(position.epoch, epochs),
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            **kwargs,
        )
    listed.end()
    model.stop_training = model.stop_training or ended
    return model.history


def _position(
    state: Any,
    model: keras.Model,
    source: Source,
    others: list[Any],
    initial_epoch: int,
) -> Position:
    """Returns where training begins or continues."""
    position = state.start(model, source, others)
    if position == Position():
        return position._replace(epoch=initial_epoch)
    if initial_epoch > position.epoch:
        raise ValueError(
            f"The training state in {state.directory} belongs to a training "
            f"that is in epoch {position.epoch}, counted from 0. "
            f"Received: initial_epoch={initial_epoch}. Leave it out, or train "
            "into another folder."
        )
    return position


class _OneTraining(keras.callbacks.CallbackList):
    """Callbacks for which several calls of `fit` are one training."""

    offset = 0  # batches of the current epoch done by an earlier process
    begun = False
    _logs: dict | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if not self.begun:
            self.begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: dict | None = None) -> None:
        self._logs = logs

    def end(self) -> None:
        """Ends the training for all callbacks."""
        super().on_train_end(self._logs)

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        super().on_train_batch_begin(batch + self.offset, logs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        super().on_train_batch_end(batch + self.offset, logs)


def _listed(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    # As in Keras.
    return keras.tree.flatten(callbacks) if callbacks else []


def _source(
    model: keras.Model, dataset: Any, steps_per_epoch: int | None
) -> Source:
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "Training with `TrainingState` needs a `tf.data.Dataset`, such as "
            "`data.masked_lm_dataset` returns. "
            f"Received: x of type {type(dataset).__name__}."
        )
    stream = stream_of(dataset)
    if stream is not None:
        return _StreamSource(model, dataset, stream, steps_per_epoch)
    return _IteratorSource(model, dataset, steps_per_epoch)


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
        length = None
        if stream.steps is not None:
            length = stream.steps - self._first_step
        steps = steps_per_epoch or length
        if steps is None:
            raise ValueError(
                "`steps_per_epoch` is needed with an endless dataset. "
                "Received: steps_per_epoch=None."
            )
        self.steps_per_epoch = steps
        if length is not None and length % self.steps_per_epoch:
            raise ValueError(
                "Training with `TrainingState` needs a dataset that is "
                "endless or a whole number of epochs long. Received: "
                f"{length} batches, steps_per_epoch={steps_per_epoch}."
            )
        self._length = length

    def enter(self, position: Position) -> Any:
        step = position.batches
        if self._length is not None:
            # As in Keras, which restarts a finite dataset at its end.
            step %= self._length
        return self._model.distributed(
            self._dataset, first_step=self._first_step + step
        )

    def save(self, folder: Path) -> None:
        """Does nothing, because a stream's position is a number."""

    def restore(self, folder: Path) -> None:
        """Does nothing, because a stream's position is a number."""


class _IteratorSource:
    """Any other endless dataset, continued by the state of its iterator."""

    order_version: int | None = None

    def __init__(
        self,
        model: keras.Model,
        dataset: tf.data.Dataset,
        steps_per_epoch: int | None,
    ) -> None:
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "Under a distribution strategy `TrainingState` can resume "
                "keras_distil's own datasets only, such as "
                "`data.masked_lm_dataset` returns, before any `map` or "
                f"`batch`. Received: {dataset!r}."
            )
        endless = dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        if steps_per_epoch is None or not endless:
            raise ValueError(
                "`TrainingState` can resume a dataset that is not "
                "keras_distil's only if one iterator serves all epochs: "
                "`repeat()` it and give `steps_per_epoch`. Received: "
                f"steps_per_epoch={steps_per_epoch}, {dataset!r}."
            )
        self.steps_per_epoch = steps_per_epoch
        self._dataset = _OneIterator(dataset)
        try:
            # Tries what `save` will do, to fail now and not hours later.
            self._dataset.iterator._serialize_to_tensors()
        except tf.errors.OpError as error:
            raise ValueError(
                "`TrainingState` cannot resume this dataset exactly, because "
                f"its iterator cannot be saved: {_first_line(error)} Use "
                "`data.masked_lm_dataset`, or a dataset without Python "
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
