"""Records what layers compute while the model around them is called.

This reaches the layers of functional, sequential and subclassed models alike,
at any depth, in the model's one forward pass.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import keras

Tensor = Any

OUTPUT = "output"
INPUT = "input"
# The output of a layer without its activation.
BEFORE_ACTIVATION = "before_activation"


class Tap(NamedTuple):
    """What is recorded of a layer.

    Attributes:
        layer: the layer.
        what: `OUTPUT`, `INPUT` or `BEFORE_ACTIVATION`.
    """

    layer: keras.layers.Layer
    what: str


class Taps:
    """Layers that are recorded during calls of their model.

    A layer is changed only while a call lasts. Every thread has its own
    records, because replicas are traced in threads that take turns.

    Args:
        taps: what to record, by key.
    """

    def __init__(self, taps: Mapping[str, Tap]) -> None:
        self._taps = dict(taps)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._users = 0
        self._kept: list[tuple[keras.layers.Layer, str, Any]] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[dict[str, list[Any]]]:
        """Records within this context; yields the values of each key."""
        records: dict[str, list[Any]] = {key: [] for key in self._taps}
        with self._lock:
            if self._users == 0:
                self._attach()
            self._users += 1
        self._local.records = records
        try:
            yield records
        finally:
            self._local.records = None
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._detach()

    def _attach(self) -> None:
        for key, tap in self._taps.items():
            # Keras calls this method in place of `call` if it has quantised
            # the layer.
            mode = getattr(tap.layer, "quantization_mode", None)
            name = "call" if mode is None else "quantized_call"
            own = vars(tap.layer)
            self._kept.append((tap.layer, name, own.get(name)))
            own[name] = self._recorded(key, tap, getattr(tap.layer, name))

    def _detach(self) -> None:
        while self._kept:
            layer, name, kept = self._kept.pop()
            if kept is None:
                del vars(layer)[name]
            else:
                vars(layer)[name] = kept

    def _recorded(self, key: str, tap: Tap, call: Callable) -> Callable:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            records = getattr(self._local, "records", None)
            if records is None:
                return call(*args, **kwargs)
            if tap.what == BEFORE_ACTIVATION:
                value, outputs = _split_activation(tap, call, args, kwargs)
            else:
                value = outputs = call(*args, **kwargs)
            if tap.what == INPUT:
                value = args[0] if args else next(iter(kwargs.values()))
            records[key].append(value)
            return outputs

        return recorded


def _split_activation(
    tap: Tap, call: Callable, args: Any, kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Returns a layer's output before and after its activation."""
    activation = tap.layer.activation
    tap.layer.activation = keras.activations.linear
    try:
        before = call(*args, **kwargs)
    finally:
        tap.layer.activation = activation
    return before, activation(before)
