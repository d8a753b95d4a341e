"""A callback that keeps the student on disk."""

import os
from pathlib import Path

import keras

from keras_distil.utils import disk

MODES = ("min", "max")


class StudentCheckpoint(keras.callbacks.Callback):
    """Saves the student at the end of every epoch.

    The file is replaced atomically: a crash while saving leaves the old one.
    With several workers, only the chief writes. A monitored "val_" log is not
    expected after epochs that `fit` does not validate.

    Args:
        filepath: the file to save to, ending in `.keras`.
        monitor: string or None. Save only when this log improves, such as
            "val_mlm_accuracy"; None saves every time.
        mode: "min" or "max", the direction of improvement.

    Raises:
        ValueError: if `filepath` does not end in `.keras` or `mode` is
            unknown; when training begins, if `monitor` is a "val_" log and no
            epoch is validated; after the first epoch whose logs should
            contain `monitor` but do not, once the student has been saved.

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

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Refuses to monitor a log that will never come."""
        epochs = (self.params or {}).get("epochs")
        if not self._of_validation or not epochs:
            return
        if all(self.model.validates(epoch) is False for epoch in range(epochs)):
            raise ValueError(
                f"StudentCheckpoint monitors {self.monitor!r}, and none of "
                f"the {epochs} epochs is validated. Lower `validation_freq`."
            )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves if nothing is monitored, or the log has improved."""
        logs = logs or {}
        if self.monitor is None:
            self._save()
        elif self.monitor in logs:
            if self._has_improved(float(logs[self.monitor])):
                self._save()
        elif (
            not self._of_validation or self.model.validates(epoch) is not False
        ):
            self._save()
            raise ValueError(
                f"StudentCheckpoint monitors {self.monitor!r}, which is not "
                f"logged. The logs: {sorted(logs)}. The student of epoch "
                f"{epoch + 1} is in {self.filepath}."
            )

    @property
    def _of_validation(self) -> bool:
        return self.monitor is not None and self.monitor.startswith("val_")

    def _save(self) -> None:
        if not self.model.distribute_strategy.extended.should_checkpoint:
            return
        partial = self.filepath.with_name(f".{self.filepath.name}")
        with disk.replacing(self.filepath, partial):
            self.model.student.save(partial)

    def get_training_state(self) -> dict[str, float | None]:
        """Returns the state of this callback for `TrainingState`."""
        return {"best": self.best}

    def set_training_state(self, state: dict[str, float | None]) -> None:
        """Restores what `get_training_state` returned."""
        best = state["best"]
        if best is not None and type(best) is not float:
            raise TypeError(f"`best` must be a float. Received: {best!r:.60}.")
        self.best = best

    def _has_improved(self, value: float) -> bool:
        better = self.best is None or (
            value < self.best if self.mode == "min" else value > self.best
        )
        if better:
            self.best = value
        return better
