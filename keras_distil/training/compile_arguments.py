"""Checks of the arguments of `Distiller.compile`."""

from typing import Any

import keras

_NAMED = ("auto", "products")


def check_floatx() -> None:
    """Raises ValueError if Keras's default float is not float32."""
    if keras.config.floatx() != "float32":
        raise ValueError(
            "Keras's `floatx` must be 'float32': losses, metrics and the "
            "learning rate are variables of that type. Call "
            "`keras.config.set_floatx('float32')` first. Received: "
            f"floatx={keras.config.floatx()!r}."
        )


def check_no_losses(loss: Any, loss_weights: Any) -> None:
    """Raises TypeError if `compile` is given losses."""
    given = {"loss": loss, "loss_weights": loss_weights}
    for name, value in given.items():
        if value is not None:
            raise TypeError(
                f"`compile` takes no `{name}`: losses and their weights are "
                "given to the Distiller, as "
                "`Distiller(teacher, student, losses)`. "
                f"Received: {name}={value!r}."
            )


def check_jit_compile(jit_compile: Any) -> None:
    """Raises TypeError unless it is one of those `compile` takes."""
    named = isinstance(jit_compile, str) and jit_compile in _NAMED
    if not (isinstance(jit_compile, bool) or named):
        raise TypeError(
            "`jit_compile` must be True, False, 'auto' or 'products'. "
            f"Received: jit_compile={jit_compile!r}."
        )
