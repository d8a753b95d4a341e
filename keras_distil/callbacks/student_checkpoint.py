"""A callback that keeps the student on disk."""

import os
from pathlib import Path

import keras

from keras_distil import disk

MODES = ("min", "max")


class StudentCheckpoint(keras.callbacks.Callback):
    """Saves the student, alone, at the end of every epoch.

    The file is replaced in one step: a crash while saving leaves the old one.
    Of several workers only the chief writes.

    Args:
        filepath: where to save, ending in `.keras`.
        monitor: string or None. Save only when this log improves, such as
            "val_mlm_accuracy"; None saves every time.
        mode: "min" or "max", what improving means.

    Raises:
        ValueError: if `filepath` does not end in `.keras`, `mode` is unknown
            or the logs lack `monitor`.

    Example:
        >>> checkpoint = StudentCheckpoint("student.keras")
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        *,
        monitor: str | None = None,
        mode: str = "min",
    ) -> None:
        super().__init__()
        self.filepath = Path(filepath)
        if self.filepath.suffix != ".keras":
            raise ValueError(
                "`filepath` must end in `.keras`. "
                f"Received: filepath={str(filepath)!r}."
            )
        if mode not in MODES:
            raise ValueError(
                f"`mode` must be one of {list(MODES)}. Received: mode={mode!r}."
            )
        self.monitor = monitor
        self.mode = mode
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves if there is nothing to monitor, or it improved."""
        if self.monitor is not None and not self._improved(logs or {}):
            return
        if not self.model.distribute_strategy.extended.should_checkpoint:
            return
        partial = self.filepath.with_name(f".{self.filepath.name}")
        with disk.replacing(self.filepath, partial):
            self.model.student.save(partial)

    def get_training_state(self) -> dict[str, float | None]:
        """What `TrainingState` keeps of this callback."""
        return {"best": self.best}

    def set_training_state(self, state: dict[str, float | None]) -> None:
        """Puts back what `get_training_state` returned."""
        best = state["best"]
        if best is not None and type(best) is not float:
            raise TypeError(f"`best` must be a float. Received: {best!r:.60}.")
        self.best = best

    def _improved(self, logs: dict) -> bool:
        if self.monitor not in logs:
            raise ValueError(
                f"StudentCheckpoint monitors {self.monitor!r}, which is not "
                f"logged. The logs: {sorted(logs)}."
            )
        value = float(logs[self.monitor])
        better = self.best is None or (
            value < self.best if self.mode == "min" else value > self.best
        )
        if better:
            self.best = value
        return better
