"""Latency, memory and size of models.

Names are loaded on first use: contestants that do not need TensorFlow do not
import it, so their memory is theirs alone.
"""

import importlib
from typing import Any

_HOMES = {
    "Contestant": "race",
    "Latency": "race",
    "Measured": "race",
    "elmo_call": "latency",
    "masked_lm_encoder_call": "latency",
    "measure_latency_ms": "latency",
    "parameter_count": "size",
    "run_race": "race",
    "size_mb": "size",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
