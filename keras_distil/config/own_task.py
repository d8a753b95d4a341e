"""An entry of `finetune.tasks` that is a mapping: a task of one's own files."""

import difflib
import re
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from keras_distil.utils.checks import check_tfds_name
from keras_distil.utils.section import (
    Count,
    NonEmptyText,
    Section,
    as_list,
    each_once,
)

Kind: TypeAlias = Literal[
    "classification",
    "multi_label",
    "regression",
    "token_classification",
    "span",
]
# By kind, the metrics that a task may be scored by; the first is the default.
METRICS: dict[str, tuple[str, ...]] = {
    "classification": (
        "accuracy",
        "macro_f1",
        "weighted_f1",
        "matthews",
        "log_loss",
    ),
    "multi_label": ("macro_f1", "weighted_f1", "accuracy"),
    "regression": ("pearson", "spearman", "mean_absolute_error"),
    "token_classification": ("entity_f1", "accuracy"),
    "span": ("f1", "exact_match"),
}
# By kind, what a row may have. `id` is common to all.
COLUMNS: dict[str, tuple[str, ...]] = {
    "classification": ("text", "text_pair", "label", "id"),
    "multi_label": ("text", "text_pair", "label", "id"),
    "regression": ("text", "text_pair", "label", "id"),
    "token_classification": ("tokens", "tags", "id"),
    "span": ("question", "context", "answers", "id"),
}
# Kinds whose outputs are named labels.
_LABELLED = ("classification", "multi_label", "token_classification")


def _as_text(value: Any) -> Any:
    """Returns a whole number in a list of labels as text."""
    if isinstance(value, bool):
        raise ValueError(
            "must be text; YAML reads the words yes, no, on, off, true and "
            f"false as truth values: write them in quotes. Received: {value}."
        )
    return str(value) if isinstance(value, int) else value


def _check_encoding(name: str) -> str:
    try:
        "a".encode(name)
    except (LookupError, UnicodeError):
        raise ValueError(
            "must be the name of an encoding, such as utf-8, latin-1, cp1252 "
            f"or utf-16. Received: {name!r}."
        ) from None
    return name


Paths: TypeAlias = Annotated[
    list[NonEmptyText], BeforeValidator(as_list), Field(min_length=1)
]
Label: TypeAlias = Annotated[NonEmptyText, BeforeValidator(_as_text)]


class OwnTask(Section):
    """An entry of `finetune.tasks` with its own files.

    `train`, `dev` and `test` are paths below `data.root`, or patterns, one or a
    list: `.csv`, `.tsv`, `.jsonl`, `.conll` (words and tags) or `.json`
    (SQuAD), each also with `.gz`. With `tfds`, the name of a data set of
    TensorFlow Datasets, they are its splits. Without `dev`, `dev_fraction` of
    the training rows is held out: of each class those whose texts have the
    smallest hashes. `test` is scored after the training and decides nothing.

    `columns` names the columns of the file by what they hold; those that have
    an obvious name may be left out. `id: false` numbers the rows. `label` may
    be a list of columns of 0 and 1. `labels` are all classes in the order of
    the outputs; by default those of the training rows, sorted. Several labels
    of a row are a list, or texts joined by `separator`.

    `class_weights` are factors of examples by their label; `balanced` makes
    all classes count alike. Longer texts than `finetune.max_length` lose their
    ends, unless `stride` is given: then they are read in windows that share
    `stride` tokens.
    """

    name: Annotated[str, Field(max_length=100)]
    kind: Kind
    tfds: NonEmptyText | None = None
    train: Paths
    dev: Paths | None = None
    test: Paths | None = None
    dev_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    columns: Annotated[Any, Field(validate_default=True)] = {}
    labels: (
        Annotated[list[Label], Field(min_length=2), AfterValidator(each_once)]
        | None
    ) = None
    metric: Annotated[str | None, Field(validate_default=True)] = None
    separator: NonEmptyText = "|"
    encoding: Annotated[str, AfterValidator(_check_encoding)] = "utf-8"
    class_weights: Any = None
    stride: Count | None = None

    @property
    def has_weights(self) -> bool:
        """Whether examples have weights or several labels."""
        return (
            self.kind == "multi_label"
            or self.class_weights is not None
            or self.stride is not None
        )

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            raise ValueError(
                "may hold lower-case letters (a to z), digits, `_` and `-` "
                f"only. Received: {name!r}."
            )
        return name

    @field_validator("tfds")
    @classmethod
    def _name_runs_no_code(cls, tfds: str | None) -> str | None:
        if tfds is not None:
            check_tfds_name(tfds)
        return tfds

    @field_validator("columns")
    @classmethod
    def _columns_of_the_kind(
        cls, columns: Any, info: ValidationInfo
    ) -> dict[str, Any]:
        if not isinstance(columns, dict):
            raise ValueError(
                "must be a mapping such as {text: body, label: topic}. "
                f"Received: {columns!r:.80}."
            )
        # Missing if the kind itself is invalid.
        known = COLUMNS.get(info.data.get("kind", ""))
        if known is None:
            return columns
        for key, column in columns.items():
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1, 0.0)
                raise ValueError(
                    f"may name the columns {', '.join(known)} of a "
                    f"{info.data['kind']}. Received: {key!r:.60}; the nearest "
                    f"is {near[0]!r}."
                )
            _check_column(key, column, info.data["kind"])
        return columns

    @field_validator("labels")
    @classmethod
    def _labels_of_the_kind(
        cls, labels: list[str] | None, info: ValidationInfo
    ) -> list[str] | None:
        kind = info.data.get("kind", "classification")
        if labels is not None and kind not in _LABELLED:
            raise ValueError(
                f"are for classes, and a {kind} has none; leave them out. "
                f"Received: {labels}."
            )
        return labels

    @field_validator("metric")
    @classmethod
    def _metric_of_the_kind(
        cls, metric: str | None, info: ValidationInfo
    ) -> str | None:
        known = METRICS.get(info.data.get("kind", ""))
        if known is None:
            return metric
        if metric is None:
            return known[0]
        if metric not in known:
            near = difflib.get_close_matches(metric, known, 1, 0.0)
            raise ValueError(
                f"must be one of {', '.join(known)} for a "
                f"{info.data['kind']}. Received: {metric!r}; the nearest is "
                f"{near[0]!r}."
            )
        return metric

    @field_validator("class_weights")
    @classmethod
    def _weights_of_classes(cls, weights: Any, info: ValidationInfo) -> Any:
        if weights is None or weights == "balanced":
            pass
        elif not isinstance(weights, dict) or not all(
            isinstance(weight, int | float) and 0 < weight < float("inf")
            for weight in weights.values()
        ):
            raise ValueError(
                "must be balanced, or a mapping from labels to factors above "
                f"0, such as {{spam: 5.0}}. Received: {weights!r:.80}."
            )
        else:
            weights = {_as_text(name): float(x) for name, x in weights.items()}
        kind = info.data.get("kind", "classification")
        if weights is not None and kind != "classification":
            raise ValueError(
                f"are for a classification; leave them out of a {kind}. "
                f"Received: {weights!r:.80}."
            )
        return weights

    @field_validator("stride")
    @classmethod
    def _windows_of_one_text(
        cls, stride: int | None, info: ValidationInfo
    ) -> int | None:
        columns = info.data.get("columns")
        if stride is not None and columns and columns.get("text_pair"):
            raise ValueError(
                "is for single texts, and this task reads pairs; leave it out. "
                f"Received: {stride}."
            )
        return stride


def _check_column(key: str, column: Any, kind: str) -> None:
    several = key == "label" and kind == "multi_label"
    allowed = isinstance(column, str) and bool(column)
    if several and isinstance(column, list):
        allowed = len(column) > 1 and all(isinstance(x, str) for x in column)
    if key == "id" and column is False:
        allowed = True
    if not allowed:
        form = "a column's name"
        form += ", or a list of columns of 0 and 1" if several else ""
        form += ", or false to number the rows" if key == "id" else ""
        raise ValueError(f"`{key}` must be {form}. Received: {column!r:.80}.")
