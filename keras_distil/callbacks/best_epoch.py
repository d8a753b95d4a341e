"""A callback that keeps the student of the best epoch."""

import os
from collections.abc import Callable
from pathlib import Path

import keras

from keras_distil.utils import disk


class BestEpoch(keras.callbacks.Callback):
    """Scores the student after every epoch and keeps the best on disk.

    Of equal epochs the first is kept. The file is replaced atomically.

    Args:
        filepath: where to save the student, ending in `.keras`.
        score: function from the student to a number; more is better.
        patience: int >= 1, or None. Training ends after this many epochs
            without a better score.
        log_name: name of the score in the logs, which says on what data it is
            computed.
        is_error: whether the score is an error, counted negative: the logs have
            the error itself.

    Raises:
        ValueError: if `filepath` does not end in `.keras`, or `patience` is
            below 1.

    Example:
        >>> best = BestEpoch("best.keras", lambda student: 0.5)
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        score: Callable[[keras.Model], float],
        *,
        patience: int | None = None,
        log_name: str = "dev_score",
        is_error: bool = False,
    ) -> None:
        super().__init__()
        self.filepath = Path(filepath)
        if self.filepath.suffix != ".keras":
            raise ValueError(
                "`filepath` must end in `.keras`. "
                f"Received: filepath={str(filepath)!r}."
            )
        if patience is not None and patience < 1:
            raise ValueError(
                f"`patience` must be at least 1. Received: patience={patience}."
            )
        self.score = score
        self.patience = patience
        self.log_name = log_name
        self.is_error = is_error
        self.scores: list[float] = []

    @property
    def best_epoch(self) -> int:
        """The best epoch, from 0; -1 before the first has ended."""
        return self.scores.index(max(self.scores)) if self.scores else -1

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Resets the scores, unless a training state has set them."""
        if self._is_out_of_patience():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Scores, saves if it is better, and may end the training."""
        self.scores.append(float(self.score(self.model.student)))
        if logs is not None:
            score = self.scores[-1]
            logs[self.log_name] = -score if self.is_error else score
        if self.best_epoch == len(self.scores) - 1:
            partial = self.filepath.with_name(f".{self.filepath.name}")
            with disk.replacing(self.filepath, partial):
                self.model.student.save(partial)
        if self._is_out_of_patience():
            self.model.stop_training = True

    def get_training_state(self) -> dict[str, list[float]]:
        """Returns the state of this callback for `TrainingState`."""
        return {"scores": self.scores}

    def set_training_state(self, state: dict[str, list[float]]) -> None:
        """Restores what `get_training_state` returned."""
        scores = state["scores"]
        if not all(type(score) is float for score in scores):
            raise TypeError(
                f"`scores` must be floats. Received: {scores!r:.60}."
            )
        self.scores = list(scores)

    def _is_out_of_patience(self) -> bool:
        since = len(self.scores) - 1 - self.best_epoch
        return self.patience is not None and since >= self.patience
