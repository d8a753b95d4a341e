"""What `finetune` says of single stages, and of single tasks."""

from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from keras_distil.config.losses_section import StageLosses
from keras_distil.utils.section import (
    Count,
    NonEmptyText,
    Positive,
    Section,
    each_once,
)

Seeds: TypeAlias = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    Field(min_length=1),
    AfterValidator(each_once),
]


class FineTuneStage(Section):
    """One of `finetune.stages`, with losses of its own.

    Without a `learning_rate` it has that of the task.
    """

    losses: StageLosses
    epochs: Count
    learning_rate: Positive | None = None


def _ends_on_outputs(stages: list[FineTuneStage]) -> list[FineTuneStage]:
    last = stages[-1].losses
    if not last.read_outputs:
        raise ValueError(
            f"the last stage, `stages.{len(stages) - 1}.losses`, needs a loss "
            "on the outputs, such as soft_target: its epochs are scored. "
            f"Received: {', '.join(last.by_name)}."
        )
    return stages


Stages: TypeAlias = Annotated[
    list[FineTuneStage],
    Field(min_length=1),
    AfterValidator(_ends_on_outputs),
]


class TaskOverrides(Section):
    """`finetune.by_task.TASK`: replaces settings for a single task.

    `unlabelled` names files under `data.root` with text of the task that has
    no labels, by a path or a glob pattern. The student learns from it by its
    teacher alone. With `cut_student`, student and baseline of this task begin
    as layers of its fine-tuned teacher, whatever those of other tasks begin as.
    """

    seeds: Seeds | None = None
    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    unlabelled: NonEmptyText | None = None
    cut_student: bool = False
    stages: Annotated[Stages | None, Field(validate_default=True)] = None

    @field_validator("stages")
    @classmethod
    def _stages_have_the_epochs(
        cls, stages: list[FineTuneStage] | None, info: ValidationInfo
    ) -> list[FineTuneStage] | None:
        return epochs_once(stages, info.data.get("epochs"))


def epochs_once(
    stages: list[FineTuneStage] | None, epochs: int | None
) -> list[FineTuneStage] | None:
    """Raises ValueError if stages have epochs beside them; returns them."""
    if stages is not None and epochs is not None:
        raise ValueError(
            "every stage has its own epochs, and all rows train for their sum; "
            f"remove `epochs`. Received: epochs: {epochs}."
        )
    return stages
