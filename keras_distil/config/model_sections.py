"""`teacher` and `student`: the two models of a recipe."""

import reprlib
from typing import Annotated, Any, Literal, Self, TypeAlias, get_args

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from keras_distil.utils.section import (
    Count,
    NonEmptyText,
    NonNegative,
    PathText,
    Positive,
    Section,
    StepCount,
    as_list,
)

LayerChoice: TypeAlias = Literal["alternate", "paper_code", "first", "last"]
LAYER_CHOICES: tuple[str, ...] = get_args(LayerChoice)
DEFAULT_ADAPTER_RANK = 16
# Keys of a student that a static table lacks.
_OF_ENCODERS = (
    "source",
    "baseline_source",
    "num_layers",
    "layers",
    "initialization",
    "hidden_dim",
    "intermediate_dim",
    "num_heads",
    "dropout",
)


class TeacherTraining(Section):
    """`teacher.train`: masked language modelling of the teacher itself.

    `adapter` trains low-rank additions to the encoder and the head, and needs
    `rank`; with `initial_adapter`, a file, it continues from there.
    `all_weights` trains everything and takes neither.
    """

    method: Literal["all_weights", "adapter"]
    rank: Annotated[Count | None, Field(validate_default=True)] = None
    initial_adapter: PathText | None = None
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
    """`teacher.cache`: the student learns from outputs stored on disk.

    Before the student is trained, the teacher sees every training sequence
    under `maskings` masks; the student's epochs cycle through them. For each
    position, the `top_k` largest logits are kept, with the combined weight of
    all others, and the hidden states if a loss reads them. Then the teacher is
    released from memory.
    """

    top_k: Count = 64
    maskings: Count = 4


class TeacherSection(Section):
    """`teacher`: where the teacher comes from, and its own training if any.

    With `task_source`, the recipe's only task has a teacher that is fine-tuned
    already: a folder of Hugging Face or KerasHub, `hf://organisation/name`, a
    KerasHub preset by name or a `.keras` file. `source` is then only read for
    its tokenizer, and may be left out if the folder has one. With
    `predictions`, JSONL files, the task's teacher is known by these alone;
    `source` then brings the tokenizer, and the encoder of which students are
    made. A teacher that scores no better than a constant answer stops the run,
    unless `allow_chance_score` is true.

    `license` is for the model card; null uses the checkpoint's. `dimension`
    is for embeddings: the teacher's vectors are reduced to that many principal
    components, which at full size only sorts their coordinates. Where a loss
    is on cut vectors, the first ones are turned for it.
    """

    task_source: PathText | None = None
    predictions: (
        Annotated[list[PathText], BeforeValidator(as_list), Field(min_length=1)]
        | None
    ) = None
    allow_chance_score: bool = False
    source: Annotated[PathText | None, Field(validate_default=True)] = None
    allow_new_head: bool = False
    dimension: Count | None = None
    license: NonEmptyText | None = None
    train: TeacherTraining | None = None
    cache: TeacherCache | None = None

    @property
    def is_given(self) -> bool:
        """Whether the teacher of the task is there already."""
        return self.task_source is not None or self.predictions is not None

    @property
    def given_key(self) -> str:
        """The key that gives the teacher of the task."""
        return "task_source" if self.predictions is None else "predictions"

    @property
    def tokenizer_source(self) -> str:
        """The source whose tokenizer all models share."""
        return self.source or self.task_source or ""

    @property
    def encoder_source(self) -> str:
        """The source whose encoder students are made from."""
        return self.task_source or self.source or ""

    @field_validator("predictions")
    @classmethod
    def _one_teacher_is_given(
        cls, predictions: list[str] | None, info: ValidationInfo
    ) -> list[str] | None:
        if predictions is not None and info.data.get("task_source"):
            raise ValueError(
                "are those of a teacher that is not at hand; remove them, or "
                f"`task_source`. Received: {predictions!r:.80}."
            )
        return predictions

    @field_validator("source")
    @classmethod
    def _there_is_a_teacher(
        cls, source: str | None, info: ValidationInfo
    ) -> str | None:
        # Missing if the key itself is invalid.
        if source is None and info.data.get("task_source", "") is None:
            raise ValueError(
                "is required, unless `task_source` names a teacher that is "
                "fine-tuned already. Received: none."
            )
        return source


class StudentSection(Section):
    """`student`: the shape of the student; null uses the teacher's.

    `num_layers: null` is half the teacher's layers, or the length of `layers`
    if that is a list of teacher layer indices. `initialization: random` copies
    nothing from the teacher, as in the paper's ablation. With `source`, a
    `.keras` file, the student is already distilled and the tasks start from it;
    `baseline_source` is the same model, trained without a teacher. With neither
    `source` nor `distill`, the student of each task and seed is cut from the
    teacher that was fine-tuned there, output layer included, and so is the
    baseline. `dropout` is for distilling from text; tasks have their own.

    `pooling_mode`, `normalize` and `dimension` are for embeddings: how the
    states of tokens become a vector, whether it has length 1, and its size.
    `kind: static` is a table with one vector per token in place of an encoder;
    a `vocabulary` above the teacher's adds the corpus's most frequent words.
    """

    kind: Literal["encoder", "static"] = "encoder"
    source: PathText | None = None
    baseline_source: PathText | None = None
    num_layers: Count | None = None
    layers: LayerChoice | list[int] = "alternate"
    initialization: Literal["teacher", "random"] = "teacher"
    hidden_dim: Count | None = None
    intermediate_dim: Count | None = None
    num_heads: Count | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pooling_mode: Literal["mean", "cls", "max"] | None = None
    normalize: bool | None = None
    dimension: Count | None = None
    vocabulary: Count | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        foreign = ["vocabulary"]
        if self.kind == "static":
            foreign = [*_OF_ENCODERS, "pooling_mode", "normalize"]
        other = "encoder" if self.kind == "static" else "static"
        for name in foreign:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(
                    f"`{name}` is for `kind: {other}`; remove it, or change "
                    f"the kind. Received: kind={self.kind!r}, {name}={value!r}."
                )
        return self

    @property
    def of_embeddings(self) -> list[str]:
        """The given keys that only sentence embedders have."""
        names = ("kind", "pooling_mode", "normalize", "dimension", "vocabulary")
        fields = type(self).model_fields
        return [x for x in names if getattr(self, x) != fields[x].default]

    def shape(self) -> dict[str, Any]:
        """Depth and widths, by key."""
        return {
            "num_layers": self.num_layers,
            "layers": self.layers,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
        }

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
