"""`distill`: how the student learns from the teacher on text."""

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from keras_distil.config.schedules import TemperatureSchedule, WeightSchedule
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Positive,
    Section,
    StepCount,
    some_weight,
)

LOSS_NAMES = ("mlm", "soft_target", "cosine")


class ScheduleSettings(Section):
    """`distill.schedules`: each replaces the constant of the same name."""

    temperature: TemperatureSchedule | None = None
    mlm_weight: WeightSchedule | None = None
    soft_target_weight: WeightSchedule | None = None
    cosine_weight: WeightSchedule | None = None


class LossSettings(Section):
    """`distill.losses`: the parts of the triple loss.

    `confidence_slope` is how far the temperature of a token follows the
    student's confidence there.
    """

    mlm_weight: NonNegative = 1.0
    soft_target_weight: NonNegative = 1.0
    cosine_weight: NonNegative = 1.0
    temperature: Positive = 2.0
    confidence_slope: NonNegative = 0.0
    soft_target_positions: Literal["all", "masked"] = "all"

    @field_validator("cosine_weight")
    @classmethod
    def _some_weight_is_positive(
        cls, cosine_weight: float, info: ValidationInfo
    ) -> float:
        return some_weight("mlm_weight", cosine_weight, info)


class BalanceSettings(Section):
    """`distill.balance`: weights that keep gradients in chosen ratios.

    `mlm`, `soft_target` and `cosine` are the shares of the losses in an update,
    in relation to each other; a loss of weight 0 has none. Every `every_steps`
    updates the weights of `losses` go halfway to those that give them.
    """

    mlm: Positive = 1.0
    soft_target: Positive = 1.0
    cosine: Positive = 1.0
    every_steps: Count = 50


class DistillSection(Section):
    """`distill`: the training of the student with AdamW.

    `batch_size` is the global batch: all replicas and all micro-batches.
    `jit_compile` lets XLA compile the optimizer's update and what the losses
    do with logits.
    """

    steps: Count | None = None
    epochs: Annotated[Positive | None, Field(validate_default=True)] = None
    batch_size: Count
    micro_batches: Count = 1
    jit_compile: bool = True
    learning_rate: Positive
    warmup_steps: StepCount = 0
    decay: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: NonNegative = 0.01
    beta_2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    clip_norm: Positive | None = 1.0
    losses: LossSettings = LossSettings()
    schedules: ScheduleSettings = ScheduleSettings()
    balance: BalanceSettings | None = None
    twin: bool = False
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"

    @property
    def temperature_range(self) -> tuple[float, float]:
        """The lowest and the highest temperature of the training."""
        found = [self.losses.temperature]
        if self.schedules.temperature is not None:
            found = self.schedules.temperature.extremes()
        return min(found), max(found)

    @property
    def reads_hidden_states(self) -> bool:
        """Whether the loss on hidden states ever has a weight."""
        schedule = self.schedules.cosine_weight
        return self.losses.cosine_weight > 0 or schedule is not None

    @field_validator("balance")
    @classmethod
    def _balances_constants(
        cls, balance: BalanceSettings | None, info: ValidationInfo
    ) -> BalanceSettings | None:
        schedules = info.data.get("schedules")
        losses = info.data.get("losses")
        if balance is None or schedules is None or losses is None:
            return balance
        for name in LOSS_NAMES:
            if getattr(schedules, f"{name}_weight") is not None:
                raise ValueError(
                    "sets the weights itself; remove "
                    f"`distill.schedules.{name}_weight`."
                )
        if sum(getattr(losses, f"{x}_weight") > 0 for x in LOSS_NAMES) < 2:
            raise ValueError("needs at least two losses with a weight above 0.")
        return balance

    @field_validator("epochs")
    @classmethod
    def _one_duration(
        cls, epochs: float | None, info: ValidationInfo
    ) -> float | None:
        # Absent from `info.data` only when `steps` itself is wrong.
        steps = info.data.get("steps", math.nan)
        if (steps is None) == (epochs is None):
            raise ValueError(
                "set exactly one of `steps` and `epochs`, the other to null. "
                f"Received: steps={steps}, epochs={epochs}."
            )
        return epochs

    @field_validator("micro_batches")
    @classmethod
    def _divides_batch(cls, micro_batches: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size", micro_batches)
        if batch_size % micro_batches:
            raise ValueError(
                "must divide `batch_size`. Received: "
                f"micro_batches={micro_batches}, batch_size={batch_size}."
            )
        return micro_batches
