"""`finetune`: the tasks of a recipe, and what is trained on them."""

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from keras_distil.config.losses_section import TaskLosses, default_losses
from keras_distil.losses import registry
from keras_distil.utils.section import (
    Count,
    Length,
    NonEmptyText,
    NonNegative,
    Positive,
    Section,
    StepCount,
    each_once,
)

Task: TypeAlias = Literal[
    "cola",
    "sst2",
    "mrpc",
    "stsb",
    "qqp",
    "mnli",
    "qnli",
    "rte",
    "wnli",
    "squad",
    "squad_v2",
]
TaskRow: TypeAlias = Literal["teacher", "student", "baseline", "elmo"]

Seeds: TypeAlias = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    Field(min_length=1),
    AfterValidator(each_once),
]


# A share of each batch; others have the rest.
_BatchShare: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class TaskOverrides(Section):
    """`finetune.by_task.TASK`: replaces settings for a single task.

    `unlabelled` names files under `data.root` with text of the task that has
    no labels, by a path or a glob pattern. The student learns from it by its
    teacher alone.
    """

    seeds: Seeds | None = None
    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    unlabelled: NonEmptyText | None = None


class FineTuneSection(Section):
    """`finetune`: tasks, and the models that are trained on them.

    Every row is trained on every task with every seed: the teacher and the
    baseline on the labels, the student from the teacher of the same task and
    seed, by `losses`. `by_task` replaces settings of single tasks, such as the
    seeds of large tasks that are trained only once. The row `elmo`, the biLSTM
    model of the paper's table, is not trained: it only has parameters and
    latency. `source: files` reads the tasks' official files under `data.root`;
    `tfds` takes them from TensorFlow Datasets.

    Longer contexts of SQuAD are read in windows of `max_length` tokens that
    overlap by `stride`, after at most `max_question` tokens of the question.
    `jit_compile` lets XLA compile the optimizer's update. The student also sees
    `augment_copies` copies of every example, with words replaced by ones that
    the untuned teacher expects there, and the `unlabelled` text of a task.
    Null shares are in proportion to the numbers of examples;
    `augmented_share` and `unlabelled_share` replace them by shares of every
    batch. An epoch is a pass over the labelled examples in any case, and the
    baseline has as many updates as the student.

    Defaults for null depend on the task: see `training.task_defaults`. A
    training ends early after `patience` epochs without a better score; the
    best epoch is kept. `selection` says what scores the epochs: the development
    set (`dev`), or a tenth of the training set (`train`), which is taken out
    for all rows by a hash of its text. The development set is then read once,
    with the epoch that was chosen.
    """

    tasks: Annotated[list[Task], Field(min_length=1)]
    source: Literal["files", "tfds"] = "tfds"
    rows: Annotated[list[TaskRow], Field(min_length=1)] = [
        "teacher",
        "student",
        "baseline",
    ]
    seeds: Seeds = [0]
    by_task: dict[Task, TaskOverrides] = {}
    max_length: Length = 128
    stride: Count = 128
    max_question: Count = 64
    epochs: Count | None = None
    patience: Count | None = None
    selection: Literal["dev", "train"] = "dev"
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: NonNegative = 0.01
    clip_norm: Positive | None = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    jit_compile: bool = True
    losses: TaskLosses = default_losses(TaskLosses, registry.TASK_DEFAULTS)
    augment_copies: StepCount = 0
    augmented_share: _BatchShare | None = None
    unlabelled_share: _BatchShare | None = None

    @field_validator("augment_copies")
    @classmethod
    def _spans_are_not_augmented(
        cls, augment_copies: int, info: ValidationInfo
    ) -> int:
        spans = {"squad", "squad_v2"} & set(info.data.get("tasks", ()))
        if augment_copies and spans:
            raise ValueError(
                f"is not for {', '.join(sorted(spans))}, whose answers are "
                f"parts of the text; use 0. Received: {augment_copies}."
            )
        return augment_copies

    @field_validator("by_task")
    @classmethod
    def _a_student_reads_what_has_no_label(
        cls, by_task: dict[Task, TaskOverrides], info: ValidationInfo
    ) -> dict[Task, TaskOverrides]:
        named = [name for name, own in by_task.items() if own.unlabelled]
        if named and "student" not in info.data.get("rows", ["student"]):
            raise ValueError(
                f"`{named[0]}.unlabelled` is read by the student alone; add "
                "student to `rows`, or leave it out. Received: "
                f"{info.data['rows']}."
            )
        return by_task

    @field_validator("augmented_share")
    @classmethod
    def _something_is_augmented(
        cls, augmented_share: float | None, info: ValidationInfo
    ) -> float | None:
        if augmented_share and info.data.get("augment_copies") == 0:
            raise ValueError(
                "needs `augment_copies`, whose share of a batch it is; add "
                f"them, or leave it out. Received: {augmented_share}."
            )
        return augmented_share

    @field_validator("unlabelled_share")
    @classmethod
    def _something_is_unlabelled(
        cls, unlabelled_share: float | None, info: ValidationInfo
    ) -> float | None:
        if unlabelled_share is None or "by_task" not in info.data:
            return unlabelled_share
        if not _unlabelled_tasks(info):
            raise ValueError(
                "needs `by_task.TASK.unlabelled`, whose share of a batch it "
                "is; add it for a task, or leave this out. Received: "
                f"{unlabelled_share}."
            )
        augmented_share = info.data.get("augmented_share") or 0.0
        if augmented_share + unlabelled_share >= 1:
            raise ValueError(
                "must leave something of a batch for the labelled examples: "
                "its sum with `augmented_share` must be below 1. Received: "
                f"{augmented_share} and {unlabelled_share}."
            )
        return unlabelled_share

    @field_validator("losses")
    @classmethod
    def _the_teacher_labels_what_has_no_label(
        cls, losses: TaskLosses, info: ValidationInfo
    ) -> TaskLosses:
        named = losses.by_name
        if _unlabelled_tasks(info) and not any(
            settings.weight for x, settings in named.items() if x != "label"
        ):
            raise ValueError(
                f"`by_task.{_unlabelled_tasks(info)[0]}.unlabelled` needs a "
                "loss besides label, because only the teacher labels it; "
                f"add soft_target. Received: {', '.join(named)}."
            )
        return losses

    @field_validator("losses")
    @classmethod
    def _losses_fit_the_tasks(
        cls, losses: TaskLosses, info: ValidationInfo
    ) -> TaskLosses:
        if "stsb" not in info.data.get("tasks", ()):
            return losses
        known = registry.rows_for(["regression"])
        wrong = [name for name in losses.by_name if name not in known]
        if wrong:
            raise ValueError(
                f"{wrong[0]} is for classes, and the task stsb predicts a "
                f"number; leave one of them out. Received: {wrong[0]}. Losses "
                f"for all tasks: {', '.join(known)}."
            )
        return losses

    def of_task(self, task: str) -> "FineTuneSection":
        """The settings used to train a task."""
        own = self.by_task.get(task)  # type: ignore[call-overload]
        if own is None:
            return self
        values = own.model_dump(exclude_none=True, exclude={"unlabelled"})
        return self.model_copy(update=values)

    def unlabelled_of(self, task: str) -> str | None:
        """The pattern of a task's unlabelled files; None if it has none."""
        own = self.by_task.get(task)  # type: ignore[call-overload]
        return None if own is None else own.unlabelled

    @field_validator("tasks", "rows")
    @classmethod
    def _names_are_different(cls, values: list) -> list:
        return each_once(values)

    @field_validator("rows")
    @classmethod
    def _student_has_a_teacher(cls, rows: list[str]) -> list[str]:
        if "student" in rows and "teacher" not in rows:
            raise ValueError(
                "must hold teacher with student, which learns from it. "
                f"Received: {rows}."
            )
        return rows


def _unlabelled_tasks(info: ValidationInfo) -> list[str]:
    """Returns the tasks with unlabelled text."""
    by_task = info.data.get("by_task", {})
    return [name for name, own in by_task.items() if own.unlabelled]
