"""A callback that appends the values of updates to a JSON lines file."""

import json
import os
from pathlib import Path

import keras

from keras_distil.callbacks.step_record import StepRecorder


class MetricsLog(keras.callbacks.Callback):
    """Appends one JSON object an update to a file.

    Args:
        filepath: the file; made if missing, never truncated.
        stage: string, kept in every line to tell the stages of a run apart.

    Example:
        >>> log = MetricsLog("metrics.jsonl", stage="distill")
    """

    def __init__(self, filepath: str | os.PathLike, *, stage: str) -> None:
        super().__init__()
        self.filepath = Path(filepath)
        self.stage = stage

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the file."""
        self.filepath.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.filepath.open("a", encoding="utf-8")
        self._recorder = StepRecorder(self.model)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Appends a line."""
        record = {
            "stage": self.stage,
            "step": self._recorder.step,
            **self._recorder.read(logs or {}),
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the file."""
        self._file.close()
