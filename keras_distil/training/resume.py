"""A `fit` that continues where an interrupted one stopped."""

from collections.abc import Callable
from typing import Any

import keras

from keras_distil.training.sources import Position, Source, make_source


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
        dataset: a `tf.data.Dataset` of keras_distil, a finite one that gives
            the same batches in each pass, or an endless one whose iterator
            can be saved.
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
    source = make_source(model, dataset, steps_per_epoch)
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
    while True:
        last = _last_epoch(source, position, epochs)
        listed.offset = position.step
        keras_fit(
            source.enter(position),
            y,
            initial_epoch=min(position.epoch, last),
            epochs=last,
            steps_per_epoch=steps - position.step
            if position.step
            else steps_per_epoch,
            **kwargs,
        )
        if last == epochs or model.stop_training:
            break
        position = _position_after(position, last, steps)
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


def _last_epoch(source: Source, position: Position, epochs: int) -> int:
    """Returns the epoch up to which one dataset serves.

    The rest of an interrupted epoch has a dataset of its own, and so has the
    rest of a pass that is several epochs long: Keras starts again at the
    beginning of the dataset that it was given.
    """
    if position.epoch >= epochs:
        return epochs
    if position.step:
        return position.epoch + 1
    done = position.batches % source.length if source.length else 0
    if source.length is None or not done:
        return epochs
    left = (source.length - done) // source.steps_per_epoch
    return min(epochs, position.epoch + left)


def _position_after(position: Position, epoch: int, steps: int) -> Position:
    """Returns the position at the beginning of a later epoch."""
    read = (epoch - position.epoch) * steps - position.step
    return Position(epoch, 0, position.batches + read)


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
