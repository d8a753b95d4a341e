"""A callback that balances the losses' shares of the update."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_distil.training.distiller import Distiller


class GradientBalancer(keras.callbacks.Callback):
    """Sets the weights of losses so that their gradients have given ratios.

    Every `every_steps` updates, the norm of each loss's own gradient is
    measured on `examples`, and the weights move towards those at which the
    weighted norms have the given ratios; the sum of the weights stays the
    same. A measurement costs a forward and backward pass of `examples` per
    loss.

    Formula:
        wanted_i = c * ratio_i / norm_i
        log weight_i <- smoothing * log weight_i
                        + (1 - smoothing) * log wanted_i

    Args:
        examples: a batch as `fit` takes it: inputs, targets and weights.
        ratios: by loss, its share of the update relative to the others, > 0.
            A loss that is not named keeps its weight.
        every_steps: int >= 1, number of updates between measurements.
        smoothing: float in [0, 1), how much of the old weights remains.

    Raises:
        TypeError: if the model is not a Distiller.
        ValueError: if a value is out of range, there are fewer than two
            ratios, the Distiller lacks a loss, a loss has weight 0 or a
            schedule for it, or there is a distribution strategy.

    Example:
        >>> balancer = GradientBalancer(
        ...     examples, {"mlm": 1.0, "soft_target": 2.0, "cosine": 1.0}
        ... )                                               # doctest: +SKIP

    Reference:
        Chen et al. 2018, arXiv:1711.02257 (GradNorm). Differs: the ratios are
        given, not derived from the rates at which losses fall, and the weights
        are set, not learned.
    """

    def __init__(
        self,
        examples: tuple[dict[str, Any], Any, Any],
        ratios: Mapping[str, float],
        *,
        every_steps: int = 50,
        smoothing: float = 0.5,
    ) -> None:
        super().__init__()
        if len(ratios) < 2 or not all(x > 0 for x in ratios.values()):
            raise ValueError(
                "`ratios` must name at least two losses, each with a number "
                f"above 0. Received: ratios={dict(ratios)}."
            )
        if every_steps < 1:
            raise ValueError(
                "`every_steps` must be at least 1. "
                f"Received: every_steps={every_steps}."
            )
        if not 0 <= smoothing < 1:
            raise ValueError(
                "`smoothing` must be at least 0 and below 1. "
                f"Received: smoothing={smoothing}."
            )
        self.examples = examples
        self.ratios = dict(ratios)
        self.every_steps = every_steps
        self.smoothing = smoothing

    def set_model(self, model: keras.Model) -> None:
        """Looks up the losses, before the training begins."""
        if not isinstance(model, Distiller):
            raise TypeError(
                "GradientBalancer works with a Distiller only. "
                f"Received: a model of type {type(model).__name__}."
            )
        super().set_model(model)
        self._weights = {
            name: model.get_loss(name).weight for name in self.ratios
        }
        for name, weight in self._weights.items():
            if not float(weight.numpy()) > 0:
                raise ValueError(
                    f"The loss {name!r} has weight 0: it cannot be balanced. "
                    "Leave it out of `ratios`, or give it a weight."
                )
        self._norms = model.gradient_norms(self.examples)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Rejects strategies, and weights that also have a schedule."""
        if self.model.is_distributed:
            raise ValueError(
                "GradientBalancer needs a model that no distribution strategy "
                "holds. Leave it out, or train without a strategy."
            )
        for name, weight in self._weights.items():
            if self.model.is_scheduled(weight):
                raise ValueError(
                    f"The weight of the loss {name!r} has a schedule: it "
                    "cannot be balanced, too. Leave one of both out."
                )
        # Balances at the first update if that is due. In a resumed training,
        # `TrainingState` sets the actual value.
        self._last = self._step - self.model.steps_per_execution

    def on_train_batch_begin(
        self, batch: int, logs: dict | None = None
    ) -> None:
        """Balances if due, before the update so that its logs are right."""
        step = self._step
        if step // self.every_steps > self._last // self.every_steps:
            self._balance()
        self._last = step

    def get_training_state(self) -> dict[str, int]:
        """Returns the update of the last call, for `TrainingState`."""
        return {"last": self._last}

    def set_training_state(self, state: dict[str, int]) -> None:
        """Restores what `get_training_state` returned."""
        self._last = int(state["last"])

    @property
    def _step(self) -> int:
        return int(self.model.optimizer.iterations.numpy())

    def _balance(self) -> None:
        norms = self._norms.measure()
        names = list(self._weights)
        before = np.array([float(self._weights[n].numpy()) for n in names])
        wanted = np.array(
            [self.ratios[n] / max(norms[n], 1e-12) for n in names]
        )
        wanted *= before.sum() / wanted.sum()
        after = before**self.smoothing * wanted ** (1.0 - self.smoothing)
        after *= before.sum() / after.sum()
        for name, value in zip(names, after, strict=True):
            self._weights[name].assign(value)
