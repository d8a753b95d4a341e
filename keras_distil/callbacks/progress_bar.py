"""A callback that reports updates to a progress bar."""

import time

import keras

from keras_distil.callbacks.training_state import TrainingState
from keras_distil.utils.progress import Bar, duration

# The main metric of each kind of task.
_METRICS = ("mlm_accuracy", "accuracy", "mean_absolute_error")
# The speed is an average over about this many seconds.
_SECONDS = 10.0


class ProgressBar(keras.callbacks.Callback):
    """Advances a bar by updates, and shows epoch, losses and speed.

    Args:
        bar: an open `progress.Bar` that counts updates.
        state: the `TrainingState` of the same training. Its newest state is
            shown, and an interrupted training is counted from there.
    """

    # Everything that it shows is counted from the model.
    has_training_state = False

    def __init__(self, bar: Bar, state: TrainingState | None = None) -> None:
        super().__init__()
        self._bar = bar
        self._state = state
        self._epoch = 0
        self._speed: float | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Records where the counters of steps and tokens start."""
        self._start = self._updates()
        if self._state is not None:
            self._start = self._state.first_update
        self._since = time.monotonic(), self._tokens()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Records the epoch's number."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Shows the latest values."""
        parts = [self._epochs(), self._losses(), self._tokens_per_second()]
        if self._state is not None:
            parts.append(_describe_saved_state(self._state))
        text = ", ".join(part for part in parts if part)
        self._bar.update(self._updates() - self._start, text)

    def _epochs(self) -> str:
        epochs = self.params.get("epochs", 1)
        return f"epoch {self._epoch + 1}/{epochs}" if epochs > 1 else ""

    def _losses(self) -> str:
        values = self.model.step_values
        losses = self.model.distillation_losses
        names = ["loss"]
        if len(losses) > 1:
            names += [f"{loss.name}_loss" for loss in losses]
        names += [name for name in _METRICS if name in values]
        return " ".join(
            f"{name.removesuffix('_loss')} {float(values[name].numpy()):.3f}"
            for name in names
        )

    def _tokens_per_second(self) -> str:
        now, (began, before) = time.monotonic(), self._since
        if now - began >= _SECONDS or self._speed is None:
            tokens = self._tokens()
            self._speed = (tokens - before) / max(now - began, 1e-9)
            if now - began >= _SECONDS:
                self._since = now, tokens
        return f"{self._speed:,.0f} tokens/s"

    def _updates(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _tokens(self) -> int:
        return int(self.model.tokens_seen.numpy())


def _describe_saved_state(state: TrainingState) -> str:
    if state.saved_at is None:
        return ""
    ago = duration(time.monotonic() - state.saved_at)
    return f"saved {ago} ago"
