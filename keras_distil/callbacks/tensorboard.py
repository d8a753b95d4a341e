"""Scalars for TensorBoard, at the true global step."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

from keras_distil import disk
from keras_distil.callbacks.step_record import StepRecorder

# What TensorFlow puts around the system's words.
_AROUND = re.compile(r"^\{\{.*?\}\} | \[Op:.*$")


class TensorBoard(keras.callbacks.Callback):
    """Writes every loss, metric and schedule for TensorBoard.

    The run `train` holds the values of single updates under `step/` and the
    means of epochs under `epoch/`; the run `validation` those of validation.
    The step of every point is the number of updates made so far. When
    training goes on from an earlier update, TensorBoard is told to drop the
    points of later ones. Of several workers only the chief writes.

    Args:
        log_dir: folder for the event files.
        every_steps: int >= 1, updates from one point to the next.

    Raises:
        ValueError: if `every_steps` is below 1.

    Example:
        >>> board = TensorBoard("logs", every_steps=10)
    """

    def __init__(
        self, log_dir: str | os.PathLike, *, every_steps: int = 1
    ) -> None:
        super().__init__()
        if every_steps < 1:
            raise ValueError(
                "`every_steps` must be at least 1. "
                f"Received: every_steps={every_steps}."
            )
        self.log_dir = Path(log_dir)
        self.every_steps = every_steps
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the training run."""
        self._recorder = StepRecorder(self.model)
        self._first_step = self._last = self._recorder.step

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Leaves validation out of the tokens per second."""
        self._recorder.restart_clock()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the values of the latest update."""
        step = self._recorder.step
        if step - self._last >= self.every_steps:
            self._last = step
            values = self._recorder.read(logs or {})
            self._write("train", "step", values, step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the means of the epoch and of its validation."""
        logs = logs or {}
        validation = {
            name.removeprefix("val_"): value
            for name, value in logs.items()
            if name.startswith("val_")
        }
        training = {
            name: value
            for name, value in logs.items()
            if not name.startswith("val_")
        }
        step = self._recorder.step
        self._write("train", "epoch", training, step)
        if validation:
            self._write("validation", "epoch", validation, step)
        for run, writer in self._writers.items():
            with self._writing(run):
                writer.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the event files."""
        for run, writer in self._writers.items():
            with self._writing(run):
                writer.close()
        self._writers.clear()

    def _write(
        self, run: str, prefix: str, values: dict[str, float], step: int
    ) -> None:
        if not self.model.distribute_strategy.extended.should_checkpoint:
            return
        with self._writing(run):
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(
                    str(self.log_dir / run)
                )
                self._purge_later_points(run)
        with self._writing(run), self._writers[run].as_default():
            for name, value in values.items():
                tf.summary.scalar(f"{prefix}/{name}", value, step=step)

    @contextlib.contextmanager
    def _writing(self, run: str) -> Iterator[None]:
        """Names the folder if TensorFlow cannot write to it."""
        folder = self.log_dir / run
        try:
            with disk.writing(folder):
                yield
        except tf.errors.OpError as error:
            # "{{node ...}} the file; the system's words\nmore [Op:...]".
            first = (error.message or str(error)).split("\n")[0]
            why = _AROUND.sub("", first).rpartition("; ")[2]
            raise disk.unwritten(folder, why) from error

    def _purge_later_points(self, run: str) -> None:
        """Tells TensorBoard that training starts again at this step.

        It drops the points of an earlier process from there on.
        """
        folder = self.log_dir / run
        if not self._first_step or not folder.is_dir():
            return
        now = time.time()
        event = event_pb2.Event(
            wall_time=now,
            step=self._first_step + 1,
            session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START),
        )
        # TensorBoard reads a folder's files in the order of their names: this
        # is behind those there are, and before the one that follows.
        name = f"events.out.tfevents.{int(now):010d}.-restart"
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            writer.write(event.SerializeToString())
