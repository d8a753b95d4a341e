"""A callback that appends the values of updates to a JSON lines file."""

import json
import os
from pathlib import Path

import keras

from keras_distil.callbacks.step_record import StepRecorder
from keras_distil.utils import disk


class MetricsLog(keras.callbacks.Callback):
    """Appends one JSON object per update to a file.

    With `steps_per_execution`, the lines of an execution are written together
    and have the same `tokens_per_second`.

    When training continues from an earlier update, the lines of later ones,
    which will be repeated, are dropped. With several workers, only the chief
    writes.

    Args:
        filepath: the file; created if missing.
        stage: string, added to every line to distinguish the stages of a run.
        before: int >= 0, updates of an earlier training of the same stage,
            whose lines these ones continue.

    Example:
        >>> log = MetricsLog("metrics.jsonl", stage="distill")
    """

    # The file is corrected when training continues.
    has_training_state = False

    def __init__(
        self, filepath: str | os.PathLike, *, stage: str, before: int = 0
    ) -> None:
        super().__init__()
        self.filepath = Path(filepath)
        self.stage = stage
        self.before = before

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the file."""
        self._recorder = StepRecorder(self.model, self.before)
        self._file = None
        if not self.model.distribute_strategy.extended.should_checkpoint:
            return
        with disk.writing(self.filepath):
            self.filepath.parent.mkdir(parents=True, exist_ok=True)
        if self.filepath.is_file():
            self._drop_later_lines()
        with disk.writing(self.filepath):
            # Unbuffered, so nothing is left to write when it is closed.
            self._file = self.filepath.open("ab", buffering=0)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Appends a line for every update since the last call."""
        if self._file is None:
            return
        updates = self._recorder.new_updates()
        records = [
            {"stage": self.stage, "step": step, **values}
            for step, values in zip(
                updates, self._recorder.read(updates), strict=True
            )
        ]
        line = b"".join(json.dumps(x).encode() + b"\n" for x in records)
        try:
            with disk.writing(self.filepath):
                while line:
                    line = line[self._file.write(line) :]
        except OSError:
            self._file.close()
            raise

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _drop_later_lines(self) -> None:
        partial = self.filepath.with_name(f".{self.filepath.name}.partial")
        with (
            disk.replacing(self.filepath, partial),
            self.filepath.open(encoding="utf-8", errors="replace") as old,
            partial.open("w", encoding="utf-8") as kept,
        ):
            kept.writelines(line for line in old if self._is_earlier(line))

    def _is_earlier(self, line: str) -> bool:
        """Checks whether a line is another stage's or of an update to keep."""
        try:
            record = json.loads(line)
            return (
                record["stage"] != self.stage
                or record["step"] <= self._recorder.step
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return False  # A crash cut it off.
