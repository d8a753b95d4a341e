"""What the losses between a teacher's and a student's outputs share."""

from typing import Any

from keras_distil.losses import functional
from keras_distil.losses.base import LogitsLoss, _number

Tensor = Any

POSITIONS = ("all", "masked")


class SoftTargetLoss(LogitsLoss):
    """A loss between the outputs of teacher and student; see its subclasses."""

    reads = frozenset({"teacher_logits", "student_logits"})

    def call(
        self,
        teacher_logits: Tensor,
        student_logits: Tensor,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Returns the mean over the weighted tokens, or examples."""
        values = self.token_values(
            teacher_logits=teacher_logits, student_logits=student_logits
        )
        return functional.weighted_mean(values, sample_weight)


class SoftenedLoss(SoftTargetLoss):
    """One that divides both outputs by a temperature; see its subclasses."""

    unit = "nats"

    def __init__(self, *, weight: float, temperature: float, name: str) -> None:
        super().__init__(weight=weight, name=name)
        self.temperature = self.add_temperature(temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make an equal loss."""
        return {
            **super().get_config(),
            "temperature": _number(self.temperature),
        }


def check_positions(positions: str) -> str:
    """Returns what a loss counts at these positions.

    Raises:
        ValueError: if they are not one of `POSITIONS`.
    """
    if positions not in POSITIONS:
        raise ValueError(
            f"`positions` must be one of {list(POSITIONS)}. "
            f"Received: positions={positions!r}."
        )
    return "masked" if positions == "masked" else "tokens"
