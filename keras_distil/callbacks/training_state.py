"""A callback that keeps all that a training needs to go on exactly."""

import logging
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_distil.callbacks.kept_states import KeptStates
from keras_distil.training import snapshots
from keras_distil.training.resume import Position, Source
from keras_distil.training.snapshots import Snapshot

DEFAULT_EVERY_STEPS = 200
_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NUMBER = re.compile(r"_\d+(?=/|$)")


class TrainingState(keras.callbacks.Callback):
    """Keeps the training state on disk, and goes on from it.

    Written every `every_steps` updates, at the end of every epoch, and once
    more when the process is asked to end (SIGTERM, or Ctrl-C): the student's
    weights and random generators, projections, the optimizer, weights and
    temperatures of the losses, the position in the data, running metrics, and
    the states of the other callbacks. The next `fit` with the same
    arguments continues there: with deterministic operations, as
    `tf.config.experimental.enable_op_determinism()` gives, its weights at the
    end are those of a training that was never interrupted, bit for bit.

    A state is written whole or not at all, with checksums; if the newest is
    damaged, the one before is used and a warning says so.

    Kept are the states of keras_distil's callbacks, of Keras's that have one
    (EarlyStopping, ReduceLROnPlateau, ModelCheckpoint, SwapEMAWeights,
    TensorBoard, CSVLogger, History), and of every callback with the methods
    `get_training_state()`, which returns numbers, text, None, lists, dicts
    with text as keys and NumPy arrays, and `set_training_state(state)`, which
    puts them back. That one may be called several times: before
    `on_train_begin` and after it, and after `on_epoch_begin` of an epoch that
    was interrupted. A callback of another class whose numbers changed in the
    interrupted training is refused by name, unless its attribute
    `has_training_state` is False. Of Keras's, `BackupAndRestore` and
    `OrbaxCheckpoint` are refused.

    The dataset must be one of keras_distil, which is entered where the
    training stopped, or an endless one whose iterator TensorFlow can save.

    Args:
        directory: folder of the states.
        every_steps: int >= 1, updates from one state to the next.
        keep: int >= 1, how many of the newest states to keep.

    Attributes:
        saved_step: int, the updates before the newest state; None before the
            first.
        saved_at: float, when it was written, of `time.monotonic()`; None if
            this process has written none.

    Raises:
        TypeError: in `fit`, if the data is no `tf.data.Dataset`, or the state
            of a callback has another form.
        ValueError: if a count is below 1; in `fit`, if the dataset or a
            callback cannot be continued, or the state is that of another
            model, of another `steps_per_epoch`, or of a version of
            keras_distil that takes the data in another order.

    Example:
        >>> state = TrainingState("checkpoints", every_steps=500)
    """

    # How `Distiller.fit` finds it.
    keeps_training_state = True

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        every_steps: int = DEFAULT_EVERY_STEPS,
        keep: int = 2,
    ) -> None:
        super().__init__()
        for name, value in (("every_steps", every_steps), ("keep", keep)):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}."
                )
        self.directory = Path(directory)
        self.every_steps = every_steps
        self.keep = keep
        self.saved_step: int | None = None
        self.saved_at: float | None = None
        self._handlers: dict[int, Any] = {}
        self._signal: int | None = None

    @property
    def first_update(self) -> int:
        """Updates of the optimizer from before this training, in all."""
        return self._first_update

    def start(
        self,
        model: keras.Model,
        source: Source,
        others: list[keras.callbacks.Callback],
    ) -> Position:
        """Restores the newest state, if there is one.

        Args:
            model: the Distiller, compiled.
            source: the dataset.
            others: the other callbacks of this training.

        Returns:
            Where training goes on.
        """
        self._source = source
        self._others = KeptStates(others)
        self._states: dict[str, Any] = {}
        self._snapshot: Snapshot | None = None
        self._first_update = _updates(model)
        self._position = Position()
        snapshot = snapshots.newest_snapshot(self.directory, _log.warning)
        if snapshot is None:
            return self._position
        try:
            self._restore(model, snapshot)
        # Written by no version of keras_distil, though the checksums agree.
        except (LookupError, TypeError, AttributeError) as error:
            raise _not_ours(snapshot.path) from error
        self._first_update = _updates(model) - self._position.batches
        self.saved_step = snapshot.step
        return self._position

    def _restore(self, model: keras.Model, snapshot: Snapshot) -> None:
        values = snapshot.values
        self._check_same(values, snapshot.path)
        position = Position(**values["position"])
        if not all(type(x) is int and 0 <= x < 2**63 for x in position):
            raise _not_ours(snapshot.path)
        states = self._others.read(values, snapshot.tensors)
        _check_fit(_metrics(model), snapshot)
        _check_fit(_variables(model), snapshot)
        self._source.restore(snapshot.path)
        _assign(_variables(model), snapshot.tensors)
        self._others.put_back(states, keras_too=False)
        self._states, self._snapshot = states, snapshot
        self._position = position

    def _check_same(self, values: dict[str, Any], path: Path) -> None:
        if values["steps_per_epoch"] != self._source.steps_per_epoch:
            raise ValueError(
                f"The training state in {path} is that of a training with "
                f"steps_per_epoch={values['steps_per_epoch']}. Received: "
                f"steps_per_epoch={self._source.steps_per_epoch}."
            )
        order, wanted = values.get("order_version"), self._source.order_version
        if wanted is not None and order != wanted:
            raise ValueError(
                f"The training state in {path} was written by another version "
                f"of keras_distil, which takes the data in another order "
                f"(order version {order or 1}, this one has {wanted}): it "
                "cannot be continued exactly. Finish it with the version that "
                "began it, or start anew in another folder or with --fresh."
            )

    def _put_back(self) -> None:
        """Undoes what the other callbacks do when they begin."""
        if self._snapshot is not None:
            _assign(_variables(self.model), self._snapshot.tensors)
            self._others.put_back(self._states)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Puts back what callbacks start anew, and waits for signals."""
        self._put_back()
        if self._position.step == 0:
            self._snapshot = None
        self._others.begin()
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._signal = None
            self._handlers = {
                number: signal.signal(number, self._remember)
                for number in _SIGNALS
            }

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Puts back what an interrupted epoch had begun with."""
        self._epoch = epoch
        self._step = 0
        if self._snapshot is not None:
            self._put_back()
            # Keras has reset them.
            _assign(_metrics(self.model), self._snapshot.tensors)
            self._step = self._position.step
            self._snapshot = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the state if it is time, or the process is to end."""
        self._step = batch + 1
        # Otherwise the end of the epoch, with what belongs to it, is due.
        if self._step < self._source.steps_per_epoch:
            since = _updates(self.model) - (self.saved_step or 0)
            is_last = self._signal is not None or self.model.stop_training
            if is_last or since >= self.every_steps:
                self._save(Position(self._epoch, self._step))
        if self._signal is not None:
            self._end_process()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the state; this callback's turn is the last."""
        # An epoch that a callback ended early goes on where it ended.
        if self._step >= self._source.steps_per_epoch:
            self._save(Position(epoch + 1))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Leaves the signals to whom they belonged."""
        self._restore_handlers()

    def _save(self, position: Position) -> None:
        step = _updates(self.model)
        variables = {**_variables(self.model), **_metrics(self.model)}
        # Reading may take all workers; writing takes the chief.
        tensors = {name: _value(v) for name, v in variables.items()}
        _check_finite(tensors, step)
        self.saved_step = step
        self.saved_at = time.monotonic()
        if not self.model.distribute_strategy.extended.should_checkpoint:
            return
        kept = self._others.get()
        position = position._replace(batches=step - self._first_update)
        snapshots.write_snapshot(
            self.directory,
            step,
            {**tensors, **kept.arrays},
            {
                "position": position._asdict(),
                "steps_per_epoch": self._source.steps_per_epoch,
                "order_version": self._source.order_version,
                **kept.values,
            },
            keep=self.keep,
            write_more=self._source.save,
        )

    def _remember(self, number: int, frame: Any) -> None:
        """Ends after the step; asked a second time, at once."""
        if self._signal is not None:
            self._end_process()
        _log.warning(
            "Asked to end: ending after this step. The training state will be "
            "in %s.",
            self.directory,
        )
        self._signal = number

    def _end_process(self) -> None:
        number = self._signal
        self._restore_handlers()
        if number is not None:
            signal.raise_signal(number)

    def _restore_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def _check_finite(tensors: dict[str, np.ndarray], step: int) -> None:
    """Raises RuntimeError rather than let a state with NaN be the newest."""
    wrong = [
        name
        for name, value in tensors.items()
        if value.dtype.kind == "f" and not np.isfinite(value).all()
    ]
    if wrong:
        raise RuntimeError(
            f"Training stopped at step {step}: its update made {len(wrong)} "
            f"variables that are not finite, such as {wrong[0]}. It was not "
            "saved; the training state before it is intact. Try a lower "
            "learning rate or `clip_norm`, in a new folder or with --fresh."
        )


def _updates(model: keras.Model) -> int:
    return int(model.optimizer.iterations.numpy())


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All that training changes, without the metrics.

    The teacher is frozen and can be loaded again.
    """
    left_out = {id(v) for v in _metrics(model).values()}
    if isinstance(model.teacher, keras.Model):
        left_out |= {id(v) for v in model.teacher.variables}
    found = [v for v in model.variables if id(v) not in left_out]
    names = [f"model/{v.path}" for v in found]
    found += model.optimizer.variables
    names += [f"optimizer/{v.path}" for v in model.optimizer.variables]
    # What random operations without a seed of their own draw from.
    generator = keras.src.random.seed_generator.global_seed_generator()
    found.append(generator.state)
    names.append("global_seed_generator")
    return _numbered(names, found)


def _metrics(model: keras.Model) -> dict[str, keras.Variable]:
    found = [v for metric in model.running_metrics for v in metric.variables]
    return _numbered([f"metric/{v.path}" for v in found], found)


def _numbered(
    names: list[str], variables: list[keras.Variable]
) -> dict[str, keras.Variable]:
    """Variables by order and name.

    The numbers that Keras adds to names are left out: they count what the
    process made before.
    """
    return {
        f"{index:05d}/{_NUMBER.sub('', name)}": variable
        for index, (name, variable) in enumerate(
            zip(names, variables, strict=True)
        )
    }


def _value(variable: keras.Variable) -> np.ndarray:
    # Safetensors writes the memory as it is: it must be in C order.
    return np.array(variable.numpy(), order="C")


def _check_fit(
    variables: dict[str, keras.Variable], snapshot: Snapshot
) -> None:
    for name, variable in variables.items():
        value = snapshot.tensors.get(name)
        expected = (
            tuple(variable.shape),
            keras.backend.standardize_dtype(variable.dtype),
        )
        if value is None or (value.shape, value.dtype.name) != expected:
            kept = (
                "nothing"
                if value is None
                else f"shape {value.shape} of {value.dtype.name}"
            )
            raise ValueError(
                f"The training state in {snapshot.path} is that of another "
                f"model: for {name.split('/', 1)[1]!r} of shape {expected[0]} "
                f"of {expected[1]} it holds {kept}. Train into another folder."
            )


def _assign(
    variables: dict[str, keras.Variable], tensors: dict[str, np.ndarray]
) -> None:
    for name, variable in variables.items():
        variable.assign(tensors[name])


def _not_ours(path: Path) -> ValueError:
    return ValueError(
        f"The training state in {path} is not one that keras_distil wrote. "
        "Remove the folder, or start anew with --fresh."
    )
