"""Checks that the training step supports an optimizer.

The step passes `optimizer.apply` the gradient of the whole global batch. An
optimizer that does more than one update of each variable would act on a
replica's share, or undo a scaling that the step does not apply.
"""

from collections.abc import Sequence

import keras

from keras_distil.utils import private_api

# Methods between the gradient and `update_step` that must be Keras's.
_METHODS = (
    "apply",
    "apply_gradients",
    "scale_loss",
    "finalize_variable_values",
    "_backend_apply_gradients",
    "_clip_gradients",
)


def check_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises an error for an optimizer that the step does not support.

    Args:
        optimizer: a Keras optimizer.

    Raises:
        TypeError: if it replaces Keras's path from a gradient to an update.
        ValueError: if it clips, accumulates, scales or averages by itself.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "`optimizer` must be a Keras optimizer or its name. "
            f"Received: {optimizer!r}."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "The optimizer must not scale the loss (`LossScaleOptimizer`): "
            "the step computes in float32 or bfloat16 and needs none. Use "
            f"the {type(optimizer.inner_optimizer).__name__} inside of it."
        )
    _check_settings(optimizer)
    for name in _METHODS:
        if name in vars(optimizer) or not _is_of_keras(type(optimizer), name):
            raise TypeError(
                "The optimizer must update its variables as Keras's do, "
                "by `update_step`. Received: "
                f"{type(optimizer).__name__} with its own `{name}`."
            )


def _check_settings(optimizer: keras.optimizers.Optimizer) -> None:
    for name in ("clipnorm", "clipvalue", "global_clipnorm"):
        if getattr(optimizer, name, None) is not None:
            raise ValueError(
                f"The optimizer must not clip by itself (`{name}`). Use "
                "`compile(clip_norm=...)`, which clips the gradient of the "
                "whole batch."
            )
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "The optimizer must not accumulate gradients "
            "(`gradient_accumulation_steps`). Use "
            "`compile(micro_batches=...)`, whose update is that of the whole "
            "batch."
        )
    if getattr(optimizer, "loss_scale_factor", None) is not None:
        raise ValueError(
            "The optimizer must not scale the loss (`loss_scale_factor`): the "
            "step computes in float32 or bfloat16 and needs none. Received: "
            f"loss_scale_factor={optimizer.loss_scale_factor}."
        )
    if getattr(optimizer, "use_ema", False):
        raise ValueError(
            "The optimizer must not average the weights (`use_ema=True`): its "
            "averages would replace them at the end of every `fit`, in the "
            "middle of a training that is resumed. Use use_ema=False."
        )


def _is_of_keras(kind: type, name: str) -> bool:
    """Checks whether a class inherits a method from a Keras optimizer."""
    owner = next((c for c in kind.__mro__ if name in vars(c)), None)
    if owner is None:
        # This version of Keras lacks the method.
        return True
    several = getattr(keras.optimizers, "MultiOptimizer", ())
    return owner.__module__.startswith("keras.") and owner is not several


def check_known_variables(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> None:
    """Raises ValueError unless the optimizer was built for these variables.

    Args:
        optimizer: a Keras optimizer.
        variables: the variables that will be updated.
    """
    if not optimizer.built:
        return
    known_ids = {id(v) for v in private_api.variables_built_for(optimizer)}
    unknown = [v.path for v in variables if id(v) not in known_ids]
    if unknown:
        raise ValueError(
            "The optimizer was built for other variables, of another model or "
            "before more layers became trainable. Compile again with a new "
            f"optimizer. Received: {optimizer.name!r} without "
            f"{len(unknown)} of {len(variables)} variables, such as "
            f"{unknown[0]!r}."
        )
