"""`finetune`: the tasks of a recipe, and what is trained on them."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

from keras_distil.config.finetune_overrides import (
    FineTuneStage,
    Seeds,
    Stages,
    TaskOverrides,
    epochs_once,
)
from keras_distil.config.losses_section import TaskLosses, default_losses
from keras_distil.config.own_task import OwnTask
from keras_distil.config.task_loss_checks import (
    check_kind,
    check_teacher_labels,
    check_teachers,
    count_teachers,
)
from keras_distil.losses import registry
from keras_distil.utils.section import (
    Count,
    Length,
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
# Tags of the two forms of an entry, for `loading`, which leaves them out.
FORMS = ("<name>", "<mapping>")


def _form(entry: Any) -> str:
    return FORMS[isinstance(entry, dict | OwnTask)]


TaskEntry: TypeAlias = Annotated[
    Annotated[Task, Tag(FORMS[0])] | Annotated[OwnTask, Tag(FORMS[1])],
    Discriminator(_form),
]
TaskRow: TypeAlias = Literal["teacher", "student", "baseline", "ngrams", "elmo"]
_DEFAULT_LOSSES = default_losses(TaskLosses, registry.TASK_DEFAULTS)

NAMES: tuple[str, ...] = get_args(Task)
# The other known tasks are classifications.
_KNOWN_KINDS = {"stsb": "regression", "squad": "span", "squad_v2": "span"}
# Kinds whose answers are parts of the text.
_OF_PARTS = ("span", "token_classification")

# A share of each batch; others have the rest.
_BatchShare: TypeAlias = Annotated[float, Field(gt=0, lt=1)]

# Keys of a task that replace no setting of the section.
_OF_TASKS_ALONE = ("unlabelled", "cut_student")


class FineTuneSection(Section):
    """`finetune`: tasks, and the models that are trained on them.

    Every row is trained on every task with every seed: the teacher and the
    baseline on the labels, the student from the teacher of the same task and
    seed, by `losses`, or in `stages` with losses of their own, after one
    another. The other rows then train for as many epochs as all stages have,
    and the epoch is chosen within the last one. With `teacher_seeds: all`,
    every student learns from the teachers of all seeds of its task together.
    `by_task` replaces settings of single tasks, such as the seeds of large
    tasks that are trained only once.

    The row `ngrams` is a linear model on words and pairs of words, which shows
    whether a transformer is needed; it has no answers that are parts of a text.
    Without `rows`, they are teacher, student and baseline, and ngrams too if
    the student is cut from the fine-tuned teacher. The row `elmo`, the biLSTM
    model of the paper's table, is not trained: it only has parameters and
    latency. `source: files` reads the tasks' official
    files under `data.root`; `tfds` takes them from TensorFlow Datasets. A task
    of one's own is a mapping, see `OwnTask`.

    Longer contexts of SQuAD are read in windows of `max_length` tokens that
    overlap by `stride`, after at most `max_question` tokens of the question.
    `jit_compile` lets XLA compile the optimizer's update. The student also sees
    `augment_copies` copies of every example, with words replaced by ones that
    the untuned teacher expects there, and the `unlabelled` text of a task.
    Null shares are in proportion to the numbers of examples;
    `augmented_share` and `unlabelled_share` replace them by shares of every
    batch. An epoch is a pass over the labelled examples in any case, and the
    baseline has as many updates as the student.

    With `teacher_cache`, the outputs of a task's teacher for all examples of
    its student are written to disk once, in the teacher's folder, and read in
    training in place of the teacher.

    Null is 2 `epochs` (4 below 20,000 examples, 5 below 5,000; twice that for
    several labels), a `batch_size` of 32, a `learning_rate` of 1e-4 (3e-5 from
    a width of 512) and a `patience` of 2. A training ends early after
    `patience` epochs without a better score; the best epoch is kept.
    `selection` says what scores the epochs: the development set (`dev`), or a
    tenth of the training set (`train`), which is taken out for all rows by a
    hash of its text. The development set is then read once, with the epoch that
    was chosen.
    """

    tasks: Annotated[list[TaskEntry], Field(min_length=1)]
    source: Literal["files", "tfds"] = "tfds"
    rows: Annotated[list[TaskRow], Field(min_length=1)] = [
        "teacher",
        "student",
        "baseline",
    ]
    seeds: Seeds = [0]
    by_task: dict[str, TaskOverrides] = {}
    teacher_seeds: Literal["own", "all"] = "own"
    max_length: Annotated[Length, Field(validate_default=True)] = 128
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
    losses: TaskLosses = _DEFAULT_LOSSES
    augment_copies: StepCount = 0
    augmented_share: _BatchShare | None = None
    unlabelled_share: _BatchShare | None = None
    stages: Annotated[Stages | None, Field(validate_default=True)] = None
    teacher_cache: bool = False

    @field_validator("max_length")
    @classmethod
    def _windows_are_longer_than_they_share(
        cls, max_length: int, info: ValidationInfo
    ) -> int:
        for task in info.data.get("tasks", ()):
            stride = getattr(task, "stride", None)
            if stride is not None and stride > max_length - 3:
                raise ValueError(
                    f"must be longer than the `stride` of {task.name}, "
                    f"{stride}, and two tokens more. Received: {max_length}."
                )
        return max_length

    @field_validator("selection")
    @classmethod
    def _own_tasks_have_a_test_set(
        cls, selection: str, info: ValidationInfo
    ) -> str:
        own = [x for x in info.data.get("tasks", ()) if isinstance(x, OwnTask)]
        if selection == "train" and own:
            raise ValueError(
                f"must be dev with the task {own[0].name}, whose `dev` chooses "
                "the epoch; give it a `test` for a score that chooses nothing. "
                f"Received: {selection!r}."
            )
        return selection

    @field_validator("augment_copies")
    @classmethod
    def _whole_texts_are_augmented(
        cls, augment_copies: int, info: ValidationInfo
    ) -> int:
        kinds = _kinds(info.data.get("tasks", ()))
        parts = [k for k, v in kinds.items() if v in _OF_PARTS]
        if augment_copies and parts:
            raise ValueError(
                f"is not for {', '.join(sorted(parts))}, whose answers are "
                f"parts of the text; use 0. Received: {augment_copies}."
            )
        own = [x for x in info.data.get("tasks", ()) if isinstance(x, OwnTask)]
        weighted = [x.name for x in own if x.has_weights]
        if augment_copies and weighted:
            raise ValueError(
                f"is not for {weighted[0]}, a task of several labels, class "
                "weights or windows, which copies do not keep; use 0. "
                f"Received: {augment_copies}."
            )
        return augment_copies

    @field_validator("by_task")
    @classmethod
    def _a_student_reads_what_has_no_label(
        cls, by_task: dict[str, TaskOverrides], info: ValidationInfo
    ) -> dict[str, TaskOverrides]:
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
        for task in _unlabelled_tasks(info)[:1]:
            check_teacher_labels(losses, task, "")
        return losses

    @field_validator("teacher_cache")
    @classmethod
    def _a_student_reads_the_cache(
        cls, teacher_cache: bool, info: ValidationInfo
    ) -> bool:
        # Missing if the key itself is invalid.
        if teacher_cache and "student" not in info.data.get("rows", "student"):
            raise ValueError(
                "needs the row student, which reads it; add it to `rows`, or "
                "remove `teacher_cache`. Received: true."
            )
        return teacher_cache

    @field_validator("losses")
    @classmethod
    def _losses_fit_the_tasks(
        cls, losses: TaskLosses, info: ValidationInfo
    ) -> TaskLosses:
        for task, kind in _kinds(info.data.get("tasks", ())).items():
            check_kind(losses, task, kind, "")
        return losses

    @field_validator("losses")
    @classmethod
    def _teachers_exist(
        cls, losses: TaskLosses, info: ValidationInfo
    ) -> TaskLosses:
        given = info.data
        # The other keys have errors of their own.
        if not {"tasks", "seeds", "by_task", "teacher_seeds"} <= set(given):
            return losses
        names = map(_name, given["tasks"])
        count = min(count_teachers(name, given) for name in names)
        check_teachers(losses, count, "")
        return losses

    @field_validator("stages")
    @classmethod
    def _stages_replace_losses_and_epochs(
        cls, stages: list[FineTuneStage] | None, info: ValidationInfo
    ) -> list[FineTuneStage] | None:
        # Missing if they are invalid themselves.
        by_task = info.data.get("by_task", {})
        for task, kind in _kinds(info.data.get("tasks", ())).items():
            own = by_task.get(task, TaskOverrides()).stages
            key = "stages" if own is None else f"by_task.{task}.stages"
            for number, stage in enumerate(own or stages or ()):
                at = f"{key}.{number}.losses"
                if {"seeds", "teacher_seeds"} <= set(info.data):
                    count = count_teachers(task, info.data)
                    check_teachers(stage.losses, count, f"{at}.")
                check_kind(stage.losses, task, kind, f"{at}.")
                if task in _unlabelled_tasks(info):
                    check_teacher_labels(stage.losses, task, f" in `{at}`")
        if stages is None:
            return None
        losses = info.data.get("losses", _DEFAULT_LOSSES)
        if losses != _DEFAULT_LOSSES:
            raise ValueError(
                "every stage has its own losses; remove `losses`. Received: "
                f"losses: {', '.join(losses.by_name)}."
            )
        for task, own in by_task.items():
            if own.epochs is not None:
                raise ValueError(
                    "every stage has its own epochs, and all rows train for "
                    f"their sum; remove `by_task.{task}.epochs`, or give "
                    f"`by_task.{task}.stages`. Received: {own.epochs}."
                )
        return epochs_once(stages, info.data.get("epochs"))

    @property
    def task_names(self) -> list[str]:
        """The names of all tasks, in order."""
        return [_name(entry) for entry in self.tasks]

    def own_task(self, task: str) -> OwnTask | None:
        """The entry of a task of one's own files; None for a known task."""
        for entry in self.tasks:
            if isinstance(entry, OwnTask) and entry.name == task:
                return entry
        return None

    def of_task(self, task: str) -> "FineTuneSection":
        """The settings used to train a task.

        With stages, `epochs` is the sum of theirs.
        """
        own = self.by_task.get(task)
        changed = {
            name: value
            for name, value in (own or ())
            if value is not None and name not in _OF_TASKS_ALONE
        }
        stages = changed.get("stages", self.stages)
        if stages is not None:
            changed["epochs"] = sum(stage.epochs for stage in stages)
        return self.model_copy(update=changed)

    def split_stages(self) -> list["FineTuneSection"]:
        """The settings of each stage of a student's training, in order.

        Without stages these are the settings themselves.
        """
        if self.stages is None:
            return [self]
        rate = self.learning_rate
        return [
            self.model_copy(
                update={
                    "losses": stage.losses,
                    "epochs": stage.epochs,
                    "learning_rate": stage.learning_rate or rate,
                    "stages": None,
                }
            )
            for stage in self.stages
        ]

    def unlabelled_of(self, task: str) -> str | None:
        """The pattern of a task's unlabelled files; None if it has none."""
        own = self.by_task.get(task)
        return None if own is None else own.unlabelled

    def cuts_student(self, task: str) -> bool:
        """Whether a task's students are cut from its teacher by its own key."""
        own = self.by_task.get(task)
        return own is not None and own.cut_student

    @field_validator("tasks")
    @classmethod
    def _tasks_are_different(cls, tasks: list) -> list:
        taken = [x for x in tasks if isinstance(x, OwnTask) and x.name in NAMES]
        if taken:
            raise ValueError(
                f"the name {taken[0].name!r} is that of a known task; give "
                f"your own another one, such as my_{taken[0].name}. "
                f"Received: {taken[0].name!r}."
            )
        each_once([_name(entry) for entry in tasks])
        return tasks

    @field_validator("by_task")
    @classmethod
    def _overrides_have_a_task(
        cls, by_task: dict[str, TaskOverrides], info: ValidationInfo
    ) -> dict[str, TaskOverrides]:
        # A recipe may override tasks that `--set finetune.tasks` leaves out.
        tasks = info.data.get("tasks", ())
        for own in (x for x in tasks if isinstance(x, OwnTask)):
            settings = by_task.get(own.name)
            if settings and settings.unlabelled and "text" not in own.columns:
                raise ValueError(
                    f"`{own.name}.unlabelled` is for tasks of whole texts that "
                    "name their columns: add `columns: {text: NAME}` to the "
                    f"task, or leave it out. Received: {settings.unlabelled!r}."
                )
        known = [*map(_name, tasks), *NAMES]
        for name in by_task:
            if name not in known and "tasks" in info.data:
                near = difflib.get_close_matches(name, known, 1, 0.0)
                raise ValueError(
                    f"must name tasks. Received: {name!r}; the nearest is "
                    f"{near[0]!r}."
                )
        return by_task

    @field_validator("rows")
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


def _name(entry: str | OwnTask) -> str:
    return entry.name if isinstance(entry, OwnTask) else entry


def _kinds(tasks: Iterable[str | OwnTask]) -> dict[str, str]:
    """The kind of each task, by name."""
    return {
        _name(task): task.kind
        if isinstance(task, OwnTask)
        else _KNOWN_KINDS.get(task, "classification")
        for task in tasks
    }
