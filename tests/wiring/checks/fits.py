"""What is seen in one training."""

from typing import Any


def batch_size(fit: Any) -> int:
    (size,) = {len(x["token_ids"]) for x, *_ in fit.batches}
    return size


def dropout_rates(model: Any) -> float:
    """The rate of all dropout layers, which must be the same."""
    layers = [x for x in model._flatten_layers() if hasattr(x, "rate")]
    (rate,) = {x.rate for x in layers}
    return rate


def compiled(fit: Any) -> dict[str, Any]:
    return fit.distiller.get_compile_config()
