"""What happened in the latest update, for callbacks that record steps."""

import time

import keras


class StepRecorder:
    """Reads a Distiller's latest values and measures its speed."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._time = time.perf_counter()
        self._tokens = int(model.tokens_seen.numpy())

    @property
    def step(self) -> int:
        """Updates made so far."""
        return int(self._model.optimizer.iterations.numpy())

    def read(self, logs: dict) -> dict[str, float]:
        """Values of the latest update.

        Args:
            logs: what Keras hands to the callback after it.

        Returns:
            Losses, metrics, weights, temperature, learning rate and the
            tokens per second since the last reading.
        """
        model = self._model
        values = {
            name: float(variable.numpy())
            for name, variable in model.step_values.items()
        }
        for loss in model.distillation_losses:
            values[f"{loss.name}_weight"] = float(loss.weight.numpy())
        for name in ("temperature", "learning_rate"):
            if name in logs:
                values[name] = float(logs[name])
        now, tokens = time.perf_counter(), int(model.tokens_seen.numpy())
        values["tokens_per_second"] = (tokens - self._tokens) / max(
            now - self._time, 1e-9
        )
        self._time, self._tokens = now, tokens
        return values

    def restart_clock(self) -> None:
        """Leaves out of the speed what has passed since the last reading."""
        self._time = time.perf_counter()
        self._tokens = int(self._model.tokens_seen.numpy())
