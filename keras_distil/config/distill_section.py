"""`distill`: how the student learns from the teacher on text."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from keras_distil.config.losses_section import (
    BalanceSettings,
    TextLosses,
    TextSchedules,
    check_outputs,
    default_losses,
)
from keras_distil.losses import registry
from keras_distil.utils.section import (
    Count,
    NonNegative,
    Positive,
    Section,
    StepCount,
)

# Keys of which one says how long the student trains.
DURATIONS = ("steps", "epochs", "minutes")


class DistillSection(Section):
    """`distill`: the training of the student with AdamW.

    `task` is what the models do: fill in masked words, or turn a text into a
    vector, an embedding. An embedder learns from its teacher alone, so it has
    no baseline.

    One of `steps`, `epochs` and `minutes` says how long: `minutes` is the time
    of the student and the baseline together, from which a run finds the number
    of updates. `batch_size` is the global batch: all replicas and all
    micro-batches together. `jit_compile` lets XLA compile the optimizer's
    update and the losses' operations on logits where that is faster, as
    `Distiller.compile` does by itself. `losses` names the losses and
    their settings, and `schedules` replaces some of these settings with values
    that depend on the step. With `baseline`, the same student is also trained
    without the teacher.
    """

    task: Literal["masked_lm", "embedding"] = "masked_lm"
    steps: Count | None = None
    epochs: Positive | None = None
    minutes: Annotated[Positive | None, Field(validate_default=True)] = None
    batch_size: Count
    micro_batches: Count = 1
    jit_compile: bool = True
    learning_rate: Positive
    warmup_steps: StepCount = 0
    decay: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: NonNegative = 0.01
    beta_2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    clip_norm: Positive | None = 1.0
    losses: TextLosses = default_losses(TextLosses, registry.TEXT_DEFAULTS)
    schedules: TextSchedules = TextSchedules()
    balance: BalanceSettings | None = None
    baseline: bool = False
    strategy: Literal["auto", "none", "mirrored", "multi_worker"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _losses_of_the_task(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("task") == "embedding":
            names = registry.EMBEDDING_DEFAULTS
            return {"losses": {name: {} for name in names}, **values}
        return values

    @property
    def embeds(self) -> bool:
        """Whether the models turn texts into vectors."""
        return self.task == registry.EMBEDDING

    @property
    def temperature_range(self) -> tuple[float, float]:
        """The lowest and the highest temperature during training."""
        found = []
        for name, settings in self.losses.by_name.items():
            schedule = self.schedules.by_name.get(name, {}).get("temperature")
            if schedule is not None:
                found += schedule.extremes()
            elif "temperature" in type(settings).model_fields:
                found.append(settings.model_dump()["temperature"])
        # Without soft targets, this is the temperature of the plain softmax.
        return min(found, default=1.0), max(found, default=1.0)

    @property
    def positions(self) -> str:
        """Where losses on logits apply: "all" tokens, or the "masked" ones."""
        settings = self.losses.by_name.values()
        everywhere = any(
            getattr(x, "positions", None) == "all" for x in settings
        )
        return "all" if everywhere else "masked"

    @property
    def weighted_losses(self) -> list[str]:
        """Names of the losses whose weight is ever above 0."""
        return [
            name
            for name, settings in self.losses.by_name.items()
            if settings.weight > 0
            or "weight" in self.schedules.by_name.get(name, {})
        ]

    @field_validator("losses")
    @classmethod
    def _losses_fit_the_task(
        cls, losses: TextLosses, info: ValidationInfo
    ) -> TextLosses:
        task = info.data.get("task")
        if task is None:
            return losses
        rows = registry.rows_for([task])
        for name in losses.by_name:
            if name not in rows:
                raise ValueError(
                    f"{name} is not for `task: {task}`. Losses for it: "
                    f"{', '.join(rows)}."
                )
        if task == registry.MASKED_LM:
            check_outputs(losses)
            return losses
        on_vectors = [
            x for x in losses.by_name if rows[x].settings.is_on_vectors
        ]
        if set(on_vectors) <= {"matryoshka"}:
            raise ValueError(
                "needs a loss on the vectors besides matryoshka, which repeats "
                "them: vector_cosine, vector_mse, similarity_kl or "
                f"similarity_mse. Received: {', '.join(losses.by_name)}."
            )
        return losses

    @field_validator("baseline")
    @classmethod
    def _learns_without_teacher(
        cls, baseline: bool, info: ValidationInfo
    ) -> bool:
        if baseline and info.data.get("task") == registry.EMBEDDING:
            raise ValueError(
                "must be false with `task: embedding`: without its teacher an "
                "embedder has nothing to learn from. Received: True."
            )
        return baseline

    @field_validator("schedules")
    @classmethod
    def _schedules_are_of_losses(
        cls, schedules: TextSchedules, info: ValidationInfo
    ) -> TextSchedules:
        if "losses" not in info.data:
            return schedules
        for name in schedules.by_name:
            if name not in info.data["losses"].by_name:
                raise ValueError(
                    f"{name} is not in `distill.losses`: add it there, or "
                    f"remove `distill.schedules.{name}`."
                )
        return schedules

    @field_validator("balance")
    @classmethod
    def _balances_constants(
        cls, balance: BalanceSettings | None, info: ValidationInfo
    ) -> BalanceSettings | None:
        if balance is None or not {"schedules", "losses"} <= set(info.data):
            return balance
        for name, schedules in info.data["schedules"].by_name.items():
            if "weight" in schedules:
                raise ValueError(
                    "sets the weights itself; remove "
                    f"`distill.schedules.{name}.weight`."
                )
        ratios = balance.ratios(info.data["losses"])
        if len(ratios) < 2:
            raise ValueError("needs at least two losses with a weight above 0.")
        for name in balance.by_name:
            if name not in (*ratios, "every_steps"):
                raise ValueError(
                    f"{name} has no weight in `distill.losses`: give it one, "
                    f"or remove `distill.balance.{name}`."
                )
        return balance

    @property
    def duration(self) -> str | None:
        """The key that says how long to train; None if none of them does."""
        given = [x for x in DURATIONS if getattr(self, x) is not None]
        return given[0] if given else None

    @field_validator("minutes")
    @classmethod
    def _one_duration(
        cls, minutes: float | None, info: ValidationInfo
    ) -> float | None:
        values = {**info.data, "minutes": minutes}
        given = [f"{x}={values[x]}" for x in DURATIONS if values.get(x)]
        if len(given) > 1:
            raise ValueError(
                "set only one of `steps`, `epochs` and `minutes`, the others "
                f"to null. Received: {', '.join(given)}."
            )
        return minutes

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
