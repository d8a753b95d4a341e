"""The table of checks, and how others are entered in it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from recording import Recording
from runs import Runs

from keras_distil.losses import registry

# Stands for the recipe's own value.
ITSELF = object()


@dataclasses.dataclass(frozen=True)
class Check:
    """How a key is checked.

    Attributes:
        run: name of a run.
        see: gets the actual value from all runs and this run.
        wanted: the expected value.
        at: where the recipe has the key, if not at the key's own path.
    """

    run: str
    see: Callable[[Runs, Recording], Any]
    wanted: Any = ITSELF
    at: str | None = None


CHECKS: dict[str, Check] = {}


def seen(key: str, run: str, wanted: Any = ITSELF, at: str | None = None):
    """Registers a function of all runs and this run as a check."""

    def register(see: Callable[[Runs, Recording], Any]) -> Callable:
        assert key not in CHECKS, key
        CHECKS[key] = Check(run, see, wanted, at)
        return see

    return register


def of_fit(prefix: str, run: str, stage: str, **by_key: Any) -> None:
    """Checks what one `fit` was given: by key, a function of the `fit`."""
    for key, see in by_key.items():
        seen(f"{prefix}{key}", run)(
            lambda runs, made, see=see: see(made.fit(stage))
        )


def of_call(prefix: str, run: str, function: str, **by_key: Any) -> None:
    """Checks the arguments of a watched function, by key."""
    for key, see in by_key.items():
        seen(f"{prefix}{key}", run)(
            lambda runs, made, see=see: see(made.calls[function])
        )


def of_others(
    prefix: str, run: str, stage: str, names: Any, kinds: Any
) -> None:
    """Checks the settings of losses that are not named above."""
    rows = registry.rows_for(kinds)
    for name in names:
        for key in rows[name].settings.model_fields:
            seen(f"{prefix}{name}.{key}", run)(
                lambda runs, made, name=name, key=key: (
                    made.fit(stage).loss(name).get_config()[key]
                )
            )
