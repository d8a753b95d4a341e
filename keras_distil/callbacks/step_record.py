"""The values of the latest updates, for callbacks that record steps."""

import time
from collections.abc import Sequence

import keras


class StepRecorder:
    """Reads the values of a Distiller's updates and measures its speed.

    Args:
        model: the Distiller, compiled.
        before: int >= 0, updates that earlier trainings made of the student,
            from which this one goes on counting.
    """

    def __init__(self, model: keras.Model, before: int = 0) -> None:
        self._model = model
        self._before = before
        self._seen = self.step
        self._time = time.perf_counter()
        self._tokens = self._tokens_seen()

    @property
    def step(self) -> int:
        """Updates made so far."""
        return self._before + int(self._model.optimizer.iterations.numpy())

    def new_updates(self) -> Sequence[int]:
        """Returns the numbers, from 1, of the updates since the last call.

        They are the updates of one execution at most.
        """
        step = self.step
        first = max(self._seen, step - self._model.update_record.updates) + 1
        self._seen = step
        return range(first, step + 1)

    def read(self, updates: Sequence[int]) -> list[dict[str, float]]:
        """Returns the values of some of the latest updates.

        Args:
            updates: their numbers, all in the latest execution.

        Returns:
            For each, losses, metrics, weights, temperature, learning rate and
            the tokens per second since the last call.
        """
        now, tokens = time.perf_counter(), self._tokens_seen()
        speed = (tokens - self._tokens) / max(now - self._time, 1e-9)
        self._time, self._tokens = now, tokens
        own = [number - self._before for number in updates]
        return [
            {**values, "tokens_per_second": speed}
            for values in self._model.update_record.read(own)
        ]

    def restart_clock(self) -> None:
        """Excludes the time since the last reading from the speed."""
        self._time = time.perf_counter()
        self._tokens = self._tokens_seen()

    def _tokens_seen(self) -> int:
        return int(self._model.tokens_seen.numpy())
