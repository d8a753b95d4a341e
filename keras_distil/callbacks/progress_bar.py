"""A callback that reports updates to a progress bar."""

import keras

from keras_distil.progress import Bar

# One of each kind of task.
_METRICS = ("mlm_accuracy", "accuracy", "mean_absolute_error")


class ProgressBar(keras.callbacks.Callback):
    """Advances a bar by the updates made and shows losses and speed.

    Args:
        bar: an open `progress.Bar` that counts updates.
    """

    def __init__(self, bar: Bar) -> None:
        super().__init__()
        self._bar = bar

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Remembers where the step counter starts."""
        self._start = int(self.model.optimizer.iterations.numpy())

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Shows the latest losses."""
        done = int(self.model.optimizer.iterations.numpy()) - self._start
        values = self.model.step_values
        shown = ["loss", *self._loss_names()]
        shown += [name for name in _METRICS if name in values]
        text = " ".join(
            f"{name.removesuffix('_loss')} {float(values[name].numpy()):.3f}"
            for name in shown
        )
        self._bar.update(done, text)

    def _loss_names(self) -> list[str]:
        losses = self.model.distillation_losses
        if len(losses) == 1:
            return []
        return [f"{loss.name}_loss" for loss in losses]
