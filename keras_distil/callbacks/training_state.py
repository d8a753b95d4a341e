"""A callback that saves everything needed to resume training exactly."""

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
from keras_distil.training.objectives import live_teachers
from keras_distil.training.snapshots import Snapshot
from keras_distil.training.sources import Position, Source
from keras_distil.utils import private_api

DEFAULT_EVERY_STEPS = 200
_log = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NUMBER = re.compile(r"_\d+(?=[/_]|$)")


class TrainingState(keras.callbacks.Callback):
    """Keeps the training state on disk and resumes from it.

    A state is written every `every_steps` updates, at the end of every epoch,
    and when the process is asked to end (SIGTERM, or Ctrl-C). It holds the
    student's weights and random generators, projections, the optimizer,
    weights and temperatures of the losses, the position in the data, running
    metrics, and the states of the other callbacks. The next `fit` with the
    same arguments continues there. With deterministic operations, as set by
    `tf.config.experimental.enable_op_determinism()`, its final weights equal
    those of an uninterrupted training, bit for bit.

    A state is written atomically, with checksums. If the newest is damaged,
    the one before is used and a warning says so.

    The states of these callbacks are kept: keras_distil's, those of Keras's
    that have one (EarlyStopping, ReduceLROnPlateau, ModelCheckpoint,
    SwapEMAWeights, TensorBoard, CSVLogger, History), and every callback with
    the methods `get_training_state()`, which returns numbers, text, None,
    lists, dicts with text as keys and NumPy arrays, and
    `set_training_state(state)`, which restores them. The latter may be called
    several times: before and after `on_train_begin`, and after
    `on_epoch_begin` of an interrupted epoch. A callback of another class
    whose numbers changed in the interrupted training is refused by name,
    unless its attribute `has_training_state` is False. Keras's
    `BackupAndRestore` and `OrbaxCheckpoint` are refused.

    The dataset must be one of keras_distil's, which is entered where training
    stopped; a finite one that gives the same batches in each pass, which is
    entered by `skip`; or an endless one whose iterator TensorFlow can save.

    Args:
        directory: folder for the states.
        every_steps: int >= 1, updates between states.
        keep: int >= 1, how many of the newest states to keep.

    Attributes:
        saved_step: int, number of updates before the newest state; None
            before the first.
        saved_at: float, time of writing, from `time.monotonic()`; None if
            this process has written none.

    Raises:
        TypeError: in `fit`, if the data is not a `tf.data.Dataset`, or the
            state of a callback has another form.
        ValueError: if a count is below 1; in `fit`, if the dataset or a
            callback cannot be continued, or the state belongs to another
            model, another `steps_per_epoch`, or a version of keras_distil
            that reads the data in another order.

    Example:
        >>> state = TrainingState("checkpoints", every_steps=500)
    """

    # Lets `Distiller.fit` find this callback.
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
        """The optimizer's number of updates before this training."""
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
            Where training continues.
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
        # States of earlier versions have numbers in some names.
        renamed = {_NUMBER.sub("", k): v for k, v in snapshot.tensors.items()}
        snapshot = snapshot._replace(tensors={**renamed, **snapshot.tensors})
        try:
            self._restore(model, snapshot)
        # No version of keras_distil wrote it, though the checksums match.
        except (LookupError, TypeError, AttributeError) as error:
            raise _make_foreign_error(snapshot.path) from error
        self._first_update = _updates(model) - self._position.batches
        self.saved_step = snapshot.step
        return self._position

    def _restore(self, model: keras.Model, snapshot: Snapshot) -> None:
        values = snapshot.values
        self._check_same(values, snapshot.path)
        position = Position(**values["position"])
        if not all(type(x) is int and 0 <= x < 2**63 for x in position):
            raise _make_foreign_error(snapshot.path)
        # Before there was a choice, the default was False.
        jit_compiled = values.get("jit_compile", False)
        if jit_compiled not in (False, True, "products"):
            raise _make_foreign_error(snapshot.path)
        states = self._others.read(values, snapshot.tensors)
        _check_fit(_list_metrics(model), snapshot)
        _check_fit(_list_variables(model), snapshot)
        self._source.restore(snapshot.path)
        model.keep_jit_compile(jit_compiled)
        _assign(_list_variables(model), snapshot.tensors)
        self._others.put_back(states, keras_too=False)
        self._states, self._snapshot = states, snapshot
        self._position = position

    def _check_same(self, values: dict[str, Any], path: Path) -> None:
        if values["steps_per_epoch"] != self._source.steps_per_epoch:
            raise ValueError(
                f"The training state in {path} belongs to a training with "
                f"steps_per_epoch={values['steps_per_epoch']}. Received: "
                f"steps_per_epoch={self._source.steps_per_epoch}."
            )
        order, expected = (
            values.get("order_version"),
            self._source.order_version,
        )
        if expected is not None and order != expected:
            raise ValueError(
                f"The training state in {path} was written by another version "
                f"of keras_distil, which reads the data in another order "
                f"(order version {order or 1}, this one has {expected}): it "
                "cannot be continued exactly. Finish it with the version that "
                "began it, or start again in another folder or with --fresh."
            )

    def _put_back(self) -> None:
        """Undoes changes that the other callbacks make when they begin."""
        if self._snapshot is not None:
            _assign(_list_variables(self.model), self._snapshot.tensors)
            self._others.put_back(self._states)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Restores what callbacks have reset, and starts to catch signals."""
        self._put_back()
        if self._position.step == 0:
            self._snapshot = None
        self._others.begin()
        # Python allows signal handlers only in the main thread.
        if threading.current_thread() is threading.main_thread():
            self._signal = None
            self._handlers = {
                number: signal.signal(number, self._handle_signal)
                for number in _SIGNALS
            }

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Restores the state in which an interrupted epoch stopped."""
        self._epoch = epoch
        self._step = 0
        if self._snapshot is not None:
            self._put_back()
            # Keras has reset them.
            _assign(_list_metrics(self.model), self._snapshot.tensors)
            self._step = self._position.step
            self._snapshot = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the state if it is due, or the process should end."""
        self._step = batch + 1
        # At the end of an epoch, `on_epoch_end` must run first.
        if self._step < self._source.steps_per_epoch:
            since = _updates(self.model) - (self.saved_step or 0)
            is_last = self._signal is not None or self.model.stop_training
            if is_last or since >= self.every_steps:
                self._save(Position(self._epoch, self._step))
        if self._signal is not None:
            self._end_process()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the state; this callback runs last."""
        # An epoch that a callback ended early continues where it ended.
        if self._step >= self._source.steps_per_epoch:
            self._save(Position(epoch + 1))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Restores the previous signal handlers."""
        self._restore_handlers()

    def _save(self, position: Position) -> None:
        step = _updates(self.model)
        variables = {**_list_variables(self.model), **_list_metrics(self.model)}
        # Reading may need all workers; only the chief writes.
        tensors = {name: _to_array(v) for name, v in variables.items()}
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
                "jit_compile": self.model.jit_compiled,
                **kept.values,
            },
            keep=self.keep,
            write_more=self._source.save,
        )

    def _handle_signal(self, number: int, frame: Any) -> None:
        """Ends after the step; on a second signal, at once."""
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
    """Raises RuntimeError before a state with NaN could become the newest."""
    wrong = [
        name
        for name, value in tensors.items()
        if value.dtype.kind == "f" and not np.isfinite(value).all()
    ]
    if wrong:
        raise RuntimeError(
            f"Training stopped at step {step}: its update produced "
            f"{len(wrong)} variables that are not finite, such as {wrong[0]}. "
            "It was not "
            "saved; the training state before it is intact. Try a lower "
            "learning rate or `clip_norm`, in a new folder or with --fresh."
        )


def _updates(model: keras.Model) -> int:
    return int(model.optimizer.iterations.numpy())


def _list_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns all variables that training changes, without the metrics.

    The teacher is frozen and can be loaded again.
    """
    left_out = {id(v) for v in _list_metrics(model).values()}
    for teacher in live_teachers(model.teacher):
        left_out |= {id(v) for v in teacher.variables}
    variables = [v for v in model.variables if id(v) not in left_out]
    names = [f"model/{v.path}" for v in variables]
    variables += model.optimizer.variables
    names += [f"optimizer/{v.path}" for v in model.optimizer.variables]
    # The state from which random operations without a seed draw.
    variables.append(private_api.global_seed_generator().state)
    names.append("global_seed_generator")
    return _key_by_order(names, variables)


def _list_metrics(model: keras.Model) -> dict[str, keras.Variable]:
    variables = [
        v for metric in model.running_metrics for v in metric.variables
    ]
    return _key_by_order([f"metric/{v.path}" for v in variables], variables)


def _key_by_order(
    names: list[str], variables: list[keras.Variable]
) -> dict[str, keras.Variable]:
    """Keys variables by order and name.

    The numbers that Keras adds to names are left out, because they count what
    the process has created before.
    """
    return {
        f"{index:05d}/{_NUMBER.sub('', name)}": variable
        for index, (name, variable) in enumerate(
            zip(names, variables, strict=True)
        )
    }


def _to_array(variable: keras.Variable) -> np.ndarray:
    # Safetensors writes raw memory, which must be in C order.
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
            stored = (
                "nothing"
                if value is None
                else f"shape {value.shape} of {value.dtype.name}"
            )
            raise ValueError(
                f"The training state in {snapshot.path} belongs to another "
                f"model: for {name.split('/', 1)[1]!r} of shape {expected[0]} "
                f"of {expected[1]} it holds {stored}. Train into another "
                "folder."
            )


def _assign(
    variables: dict[str, keras.Variable], tensors: dict[str, np.ndarray]
) -> None:
    for name, variable in variables.items():
        variable.assign(tensors[name])


def _make_foreign_error(path: Path) -> ValueError:
    return ValueError(
        f"The training state in {path} was not written by keras_distil. "
        "Remove the folder, or start again with --fresh."
    )
