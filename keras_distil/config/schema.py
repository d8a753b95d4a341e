"""What a recipe may say: one class for each section of the YAML file.

The classes hold values and check them; they build nothing. A check across
keys is a validator of the later key that reads the earlier ones, and is
skipped when one of those is itself wrong: so all errors of a recipe are found
in one pass, each at the key to change.
"""

import math
import reprlib
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from keras_distil.config.schedules import TemperatureSchedule, WeightSchedule
from keras_distil.config.search_section import (
    HELD_OUT_OBJECTIVES,
    SearchSection,
    check_space,
)
from keras_distil.config.section import (
    Count,
    NonEmptyText,
    NonNegative,
    Positive,
    Section,
    StepCount,
)

DOCUMENTED_PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "keras_hub")
LOSS_NAMES = ("mlm", "soft_target", "cosine")
LAYER_CHOICES = ("alternate", "paper_code", "first", "last")
DEFAULT_ADAPTER_RANK = 16

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
ExportFormat: TypeAlias = Literal[
    "saved_model",
    "sentence_embedding",
    "hugging_face",
    "preset",
    "litert_float32",
    "litert_float16",
    "litert_dynamic_int8",
    "litert_full_int8",
    "litert_int4",
    "onnx",
]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
TaskRow: TypeAlias = Literal["teacher", "student", "undistilled", "elmo"]

# BERT's position table has 512 rows.
Length: TypeAlias = Annotated[int, Field(ge=8, le=512)]
# One name, no dots: looking up a submodule would import its parent.
PackageName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


class TeacherTraining(Section):
    """`teacher.train`: masked language modelling of the teacher itself.

    `adapter` trains low-rank additions to the encoder and the head, and needs
    `rank`; with `initial_adapter`, a file, it goes on from there.
    `all_weights` trains everything and has neither.
    """

    method: Literal["all_weights", "adapter"]
    rank: Annotated[Count | None, Field(validate_default=True)] = None
    initial_adapter: NonEmptyText | None = None
    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_steps: StepCount = 0
    weight_decay: NonNegative = 0.01
    clip_norm: Positive | None = 1.0

    @field_validator("rank")
    @classmethod
    def _rank_belongs_to_adapter(
        cls, rank: int | None, info: ValidationInfo
    ) -> int | None:
        method = info.data.get("method")
        if method == "all_weights" and rank is not None:
            raise ValueError(
                "is for `method: adapter` only; remove it, or change the "
                f"method. Received: method='all_weights', rank={rank}."
            )
        if method == "adapter" and rank is None:
            return DEFAULT_ADAPTER_RANK
        return rank

    @field_validator("initial_adapter")
    @classmethod
    def _only_an_adapter_goes_on(
        cls, initial_adapter: str | None, info: ValidationInfo
    ) -> str | None:
        if initial_adapter and info.data.get("method") == "all_weights":
            raise ValueError(
                "is for `method: adapter` only; remove it, or change the "
                f"method. Received: {initial_adapter!r}."
            )
        return initial_adapter


class TeacherCache(Section):
    """`teacher.cache`: the student learns from outputs that are on disk.

    The teacher sees every training sequence under `maskings` masks, before
    the student is trained; epochs cycle through them. The `top_k` largest
    logits of each position are kept, with the weight of all others together,
    and the hidden states if a loss reads them. Then the teacher leaves
    memory.
    """

    top_k: Count = 64
    maskings: Count = 4


class TeacherSection(Section):
    """`teacher`: where the teacher comes from, and its own training if any.

    `license` is for the model card; null takes what the checkpoint says.
    """

    source: NonEmptyText
    allow_new_head: bool = False
    license: NonEmptyText | None = None
    train: TeacherTraining | None = None
    cache: TeacherCache | None = None


class StudentSection(Section):
    """`student`: the shape of the student; null takes the teacher's.

    `num_layers: null` is half the teacher's layers, or the length of `layers`
    when that is a list of teacher layer indices. `initialization: random`
    copies none of them, as in the paper's ablation. With `source`, a `.keras`
    file, the student was distilled already, and the tasks start from it;
    `undistilled_source` is its twin that learned without a teacher.
    """

    source: NonEmptyText | None = None
    undistilled_source: NonEmptyText | None = None
    num_layers: Count | None = None
    layers: Literal["alternate", "paper_code", "first", "last"] | list[int] = (
        "alternate"
    )
    initialization: Literal["teacher", "random"] = "teacher"
    hidden_dim: Count | None = None
    intermediate_dim: Count | None = None
    num_heads: Count | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @field_validator("layers", mode="before")
    @classmethod
    def _layers_are_known(cls, layers: Any, info: ValidationInfo) -> Any:
        if isinstance(layers, str) and layers in LAYER_CHOICES:
            return layers
        if not isinstance(layers, list) or not all(
            type(index) is int and index >= 0 for index in layers
        ):
            raise ValueError(
                f"must be one of {', '.join(LAYER_CHOICES)}, or a list of "
                "teacher layer indices counted from 0. "
                f"Received: {reprlib.repr(layers)}."
            )
        if not layers or len(set(layers)) < len(layers):
            raise ValueError(
                "must name at least one teacher layer, and each once. "
                f"Received: {reprlib.repr(layers)}."
            )
        num_layers = info.data.get("num_layers")
        if num_layers is not None and num_layers != len(layers):
            raise ValueError(
                f"must list `num_layers` indices, here {num_layers}; leave "
                f"`num_layers` out to take the list's length. Received: "
                f"{len(layers)} indices, {reprlib.repr(layers)}."
            )
        return layers

    @field_validator("num_heads")
    @classmethod
    def _heads_divide_width(
        cls, num_heads: int | None, info: ValidationInfo
    ) -> int | None:
        width = info.data.get("hidden_dim")
        if num_heads and width and width % num_heads:
            raise ValueError(
                "must divide `hidden_dim`. "
                f"Received: num_heads={num_heads}, hidden_dim={width}."
            )
        return num_heads


class DocumentationSource(Section):
    """A source of text: the docstrings of installed packages."""

    kind: Literal["documentation"]
    packages: Annotated[list[PackageName], Field(min_length=1)] = list(
        DOCUMENTED_PACKAGES
    )


class FilesSource(Section):
    """A source of text: files under `data.root` that match a glob pattern.

    `field` is the key that holds the text in the records of JSON lines files.
    """

    kind: Literal["files"]
    pattern: NonEmptyText
    field: NonEmptyText | None = None


class TfdsSource(Section):
    """A source of text: a feature of a TensorFlow Datasets data set."""

    kind: Literal["tfds"]
    name: NonEmptyText
    split: NonEmptyText = "train"
    field: NonEmptyText = "text"


Source: TypeAlias = Annotated[
    DocumentationSource | FilesSource | TfdsSource, Field(discriminator="kind")
]


class MaskingSettings(Section):
    """`data.masking`: which tokens the model has to guess.

    Tokens are chosen with weight `count ** -rare_token_exponent`: 0 treats
    all alike, 0.7 favours rare ones as the authors of DistilBERT did.
    """

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    rare_token_exponent: Annotated[float, Field(ge=0, le=1)] = 0.0


class DataSection(Section):
    """`data`: the corpus and how it becomes batches.

    `root` is the folder of all files, those of tasks, too. `prepared` is a
    folder that `keras-distil prepare --output` wrote; the
    sources are then not read. `layout` is `packed`, full sequences of joined
    paragraphs, or `bucketed`, a sequence a paragraph and batches of like
    lengths. `license` is for the model card.
    """

    root: NonEmptyText | None = None
    prepared: NonEmptyText | None = None
    sources: list[Source] = []
    layout: Literal["packed", "bucketed"] = "packed"
    sequence_length: Length = 128
    held_out_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    masking: MaskingSettings = MaskingSettings()
    license: NonEmptyText | None = None


class ScheduleSettings(Section):
    """`distill.schedules`: each replaces the constant of the same name."""

    temperature: TemperatureSchedule | None = None
    mlm_weight: WeightSchedule | None = None
    soft_target_weight: WeightSchedule | None = None
    cosine_weight: WeightSchedule | None = None


def _some_weight(
    first: str, cosine_weight: float, info: ValidationInfo
) -> float:
    """Returns `cosine_weight` if a weight of the section is positive."""
    others = [info.data.get(name) for name in (first, "soft_target_weight")]
    if [*others, cosine_weight] == [0, 0, 0]:
        raise ValueError(
            f"at least one of `{first}`, `soft_target_weight` and "
            "`cosine_weight` must be positive. Received: 0 for all."
        )
    return cosine_weight


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
        return _some_weight("mlm_weight", cosine_weight, info)


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


class TaskLossSettings(Section):
    """`finetune.losses`: what a student learns a task from.

    Weights of the true labels, of the fine-tuned teacher's outputs and of the
    distance to its hidden states.
    """

    label_weight: NonNegative = 1.0
    soft_target_weight: NonNegative = 1.0
    cosine_weight: Annotated[float, Field(ge=0)] = 1.0
    temperature: Positive = 2.0
    confidence_slope: NonNegative = 0.0

    @field_validator("cosine_weight")
    @classmethod
    def _some_weight_is_positive(
        cls, cosine_weight: float, info: ValidationInfo
    ) -> float:
        return _some_weight("label_weight", cosine_weight, info)


def _each_once(values: list) -> list:
    if len(set(values)) < len(values):
        raise ValueError(f"must name each once. Received: {values}.")
    return values


Seeds: TypeAlias = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**31)]],
    Field(min_length=1),
    AfterValidator(_each_once),
]


class TaskOverrides(Section):
    """`finetune.by_task.TASK`: what replaces the settings of all tasks."""

    seeds: Seeds | None = None
    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None


class FineTuneSection(Section):
    """`finetune`: tasks, and the models that are trained on them.

    Every row is trained on every task with every seed: the teacher and the
    undistilled student on the labels, the student from the teacher of the
    same task and seed. `by_task` replaces settings of single tasks, as the
    seeds of large ones that are trained once. The row `elmo`, the biLSTM
    baseline of the paper, is not trained: it has parameters and latency alone.
    `source: files` reads the tasks' official files under `data.root`, `tfds`
    takes them from TensorFlow Datasets.

    Longer contexts of SQuAD are read in windows of `max_length` tokens that
    share `stride` of them, after at most `max_question` of the question.
    `jit_compile` lets XLA compile the optimizer's update. The student sees
    `augment_copies` copies of every example with words replaced by those that
    the untuned teacher expects there.

    What is null depends on the task: see `training.task_defaults`. A training
    ends early after `patience` epochs without a better score on the
    development set; the best epoch is kept.
    """

    tasks: Annotated[list[Task], Field(min_length=1)]
    source: Literal["files", "tfds"] = "tfds"
    rows: Annotated[list[TaskRow], Field(min_length=1)] = [
        "teacher",
        "student",
        "undistilled",
    ]
    seeds: Seeds = [0]
    by_task: dict[Task, TaskOverrides] = {}
    max_length: Length = 128
    stride: Count = 128
    max_question: Count = 64
    epochs: Count | None = None
    patience: Count | None = None
    batch_size: Count | None = None
    learning_rate: Positive | None = None
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: NonNegative = 0.01
    clip_norm: Positive | None = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    jit_compile: bool = True
    losses: TaskLossSettings = TaskLossSettings()
    augment_copies: StepCount = 0

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

    def of_task(self, task: str) -> "FineTuneSection":
        """The settings with which a task is trained."""
        own = self.by_task.get(task)  # type: ignore[call-overload]
        if own is None:
            return self
        return self.model_copy(update=own.model_dump(exclude_none=True))

    @field_validator("tasks", "rows")
    @classmethod
    def _names_are_different(cls, values: list) -> list:
        return _each_once(values)

    @field_validator("rows")
    @classmethod
    def _student_has_a_teacher(cls, rows: list[str]) -> list[str]:
        if "student" in rows and "teacher" not in rows:
            raise ValueError(
                "must hold teacher with student, which learns from it. "
                f"Received: {rows}."
            )
        return rows


class EvaluateSection(Section):
    """`evaluate`: the held-out measures; `sequences: null` takes all."""

    sequences: Count | None = None
    batch_size: Count = 32
    latency_length: Length = 128


class ExportSection(Section):
    """`export`: what the students are written as at the end of a run.

    `saved_model`, `hugging_face` and `preset` (KerasHub) hold the distilled
    student or that of a task; `sentence_embedding` is a SavedModel of the
    distilled one's mean hidden states, scaled to length 1. SavedModels cut
    texts to `max_length` tokens; null takes all positions. `litert_...` are
    files for phones, with a signature for each of `lengths`; null takes the
    tasks' `max_length`, or that of the sequences. `onnx` needs the extra of
    that name.
    """

    formats: Annotated[list[ExportFormat], Field(min_length=1)] = [
        "saved_model",
        "hugging_face",
        "preset",
    ]
    max_length: Length | None = None
    lengths: Annotated[list[Length], Field(min_length=1)] | None = None

    @field_validator("formats")
    @classmethod
    def _formats_are_different(cls, formats: list) -> list:
        return _each_once(formats)


class BenchmarkSection(Section):
    """`benchmark`: what `keras-distil benchmark` measures.

    Every model takes one sequence of each of `lengths` in every round, with
    each number of `threads`, and batches of 32 sequences of
    `throughput_length`. `threads: null` takes 1, 2, 4 and so on up to the
    number of cores.
    """

    lengths: Annotated[list[Length], Field(min_length=1)] = [
        16,
        32,
        64,
        128,
        256,
        512,
    ]
    threads: Annotated[list[Count], Field(min_length=1)] | None = None
    throughput_length: Length = 128
    rounds: Count = 10

    @field_validator("lengths", "threads")
    @classmethod
    def _numbers_are_different(cls, values: list | None) -> list | None:
        return None if values is None else _each_once(values)


class Recipe(Section):
    """A whole recipe.

    `checkpoint_steps` is how many updates lie between two training states, to
    one of which an interrupted run goes back.

    A recipe without `distill` only trains its teacher and has no `student`; a
    `distill` without `student` trains a student of the default shape.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$", max_length=100)]
    # The seeds of TensorFlow's stateless random operations are int32.
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    checkpoint_steps: Count = 500
    teacher: TeacherSection
    student: StudentSection | None = None
    data: DataSection = DataSection()
    distill: Annotated[DistillSection | None, Field(validate_default=True)] = (
        None
    )
    finetune: Annotated[
        FineTuneSection | None, Field(validate_default=True)
    ] = None
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection | None = None
    benchmark: BenchmarkSection | None = None
    search: SearchSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_student(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("distill") is not None:
            if values.get("student") is None:
                return {**values, "student": {}}
        return values

    @field_validator("precision", mode="before")
    @classmethod
    def _no_float16(cls, precision: Any) -> Any:
        if precision == "mixed_float16":
            raise ValueError(
                "needs loss scaling, which is not supported; use "
                "mixed_bfloat16. Received: 'mixed_float16'."
            )
        return precision

    @field_validator("distill")
    @classmethod
    def _distills_from_text(
        cls, distill: DistillSection | None, info: ValidationInfo
    ) -> DistillSection | None:
        if distill is None:
            teacher = info.data.get("teacher")
            if teacher is not None and teacher.cache is not None:
                raise ValueError(
                    "this section is required with `teacher.cache`, which it "
                    "reads; add it, or remove `teacher.cache`."
                )
            return None
        _check_sources(info)
        teacher = info.data.get("teacher")
        if teacher is not None and teacher.cache is not None:
            if distill.balance is not None:
                raise ValueError(
                    "`balance` needs the teacher itself; remove it, or "
                    "`teacher.cache`."
                )
            if distill.losses.confidence_slope:
                raise ValueError(
                    "`losses.confidence_slope` needs the teacher itself; "
                    "remove it, or `teacher.cache`."
                )
        student = info.data.get("student")
        if student is not None and student.source is not None:
            raise ValueError(
                "would train a student that `student.source` says is "
                "distilled already; remove one of the two."
            )
        return distill

    @field_validator("finetune")
    @classmethod
    def _something_to_train(
        cls, finetune: FineTuneSection | None, info: ValidationInfo
    ) -> FineTuneSection | None:
        # Absent where the section itself is wrong.
        if "distill" not in info.data or "teacher" not in info.data:
            return finetune
        distill, student = info.data["distill"], info.data.get("student")
        if finetune is not None:
            _check_models(finetune, distill, student)
        elif distill is None and student is not None:
            raise ValueError(
                "this section or `distill` is required with a `student`, "
                "which it trains; add it, or remove `student`."
            )
        elif distill is None and info.data["teacher"].train is None:
            raise ValueError(
                "this section or `distill` is required, unless "
                "`teacher.train` is given: this recipe would train nothing."
            )
        if info.data["teacher"].train is not None:
            _check_sources(info)
        return finetune

    @field_validator("export")
    @classmethod
    def _a_student_is_exported(
        cls, export: ExportSection | None, info: ValidationInfo
    ) -> ExportSection | None:
        # Absent where a section itself is wrong.
        if export is None or not {"distill", "finetune"} <= set(info.data):
            return export
        finetune = info.data["finetune"]
        if info.data["distill"] is None and (
            finetune is None or "student" not in finetune.rows
        ):
            raise ValueError(
                "there is no student to export: add `distill`, or the row "
                "`student` to `finetune.rows`."
            )
        return export

    @field_validator("search")
    @classmethod
    def _something_is_searched(
        cls, search: SearchSection | None, info: ValidationInfo
    ) -> SearchSection | None:
        # Absent where a section itself is wrong.
        needed = {"teacher", "student", "distill", "finetune"}
        if search is None or not needed <= set(info.data):
            return search
        if info.data["distill"] is None:
            raise ValueError("needs `distill`, whose values it searches.")
        if info.data["teacher"].cache is not None:
            raise ValueError(
                "needs the teacher itself, whose kept outputs fit one setting; "
                "remove `teacher.cache`."
            )
        tasks = info.data["finetune"].tasks if info.data["finetune"] else []
        computed = [*HELD_OUT_OBJECTIVES, *tasks]
        if search.objective not in computed:
            raise ValueError(
                "`objective` must be what this recipe computes: "
                f"{', '.join(computed)}. Received: {search.objective!r}."
            )
        check_space(
            search.space, {x: info.data[x] for x in ("student", "distill")}
        )
        return search


def _check_sources(info: ValidationInfo) -> None:
    data = info.data.get("data")
    if data is not None and not data.sources:
        raise ValueError(
            "there is no text to train on: add `data.sources`. Received: none."
        )


def _check_models(
    finetune: FineTuneSection,
    distill: DistillSection | None,
    student: StudentSection | None,
) -> None:
    """Raises ValueError if a row of the table has no model to start from."""
    sources = {
        "student": student.source if student else None,
        "undistilled": student.undistilled_source if student else None,
    }
    made = {
        "teacher": True,
        "elmo": True,
        "student": distill is not None,
        "undistilled": distill is not None and distill.twin,
    }
    remedies = {
        "student": "`student.source`, or a `distill` section",
        "undistilled": "`student.undistilled_source`, or `distill.twin: true`",
    }
    for row in finetune.rows:
        if not (made[row] or sources[row]):
            raise ValueError(
                f"the row {row!r} has no model to start from: give "
                f"{remedies[row]}, or leave it out of `rows`."
            )
