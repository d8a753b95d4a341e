"""`evaluate`, `export`, `benchmark`: what is done with the trained models."""

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, field_validator

from keras_distil.utils.section import (
    Count,
    Length,
    PathText,
    Section,
    each_once,
)

ExportFormat: TypeAlias = Literal[
    "saved_model",
    "hugging_face",
    "preset",
    "litert_float32",
    "litert_float16",
    "litert_dynamic_int8",
    "litert_full_int8",
    "litert_int4",
    "onnx",
    "static_table",
]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
# The rows that a run of embeddings makes itself.
OWN_ROWS = ("teacher", "student before", "student", "student, int8")
# Its place is taken by exports of sentence embedders, in every format.
EARLIER_FORMAT = "sentence_embedding"
EARLIER_FORMAT_MESSAGE = (
    "must not be 'sentence_embedding' any more: name 'saved_model', which "
    "holds a sentence embedder where the student is one. "
    "`models.embedding_model(student)` makes one of any student"
)


class EvaluateSection(Section):
    """`evaluate`: the held-out measures; `sequences: null` uses all.

    The report and TensorBoard show words of `samples` held-out sequences, with
    their context; 0 shows none.

    For embeddings, `sts` is a TSV file of sentence pairs with a score and
    `retrieval` a folder in the layout of BEIR, both under `data.root`. What is
    not there is left out of the table. `samples` is the number of texts whose
    nearest neighbours the report shows. `beside` names other embedders, which
    get rows of their own: a model as for `teacher.source`, or the folder of a
    `static_table`.
    """

    sequences: Count | None = None
    batch_size: Count = 32
    latency_length: Length = 128
    samples: Annotated[int, Field(ge=0, le=32)] = 8
    sts: PathText | None = None
    retrieval: PathText | None = None
    beside: dict[str, PathText] = {}

    @field_validator("beside")
    @classmethod
    def _rows_are_new(cls, beside: dict[str, str]) -> dict[str, str]:
        for row in beside:
            if not row.strip() or row in OWN_ROWS:
                raise ValueError(
                    f"names a row {row!r}: choose another name than "
                    f"{', '.join(OWN_ROWS)}."
                )
        return beside


class ExportSection(Section):
    """`export`: the formats in which the students are written after a run.

    `saved_model`, `hugging_face` and `preset` (KerasHub) hold the distilled
    student or a task's student. SavedModels cut texts to `max_length` tokens;
    null uses all positions. `litert_...` are files for phones, with a signature
    for each of `lengths`; null uses the tasks' `max_length`, or that of the
    sequences. `onnx` needs the extra of that name. `static_table` is for a
    student without an encoder.

    `calibrate`: exports of a student of a `classification` or `multi_label`
    task have its temperature in their last layer.
    """

    formats: Annotated[list[ExportFormat], Field(min_length=1)] = [
        "saved_model",
        "hugging_face",
        "preset",
    ]
    max_length: Length | None = None
    lengths: Annotated[list[Length], Field(min_length=1)] | None = None
    calibrate: bool = True

    @field_validator("formats", mode="before")
    @classmethod
    def _earlier_format_is_refused(cls, formats: Any) -> Any:
        if isinstance(formats, list) and EARLIER_FORMAT in formats:
            raise ValueError(EARLIER_FORMAT_MESSAGE)
        return formats

    @field_validator("formats")
    @classmethod
    def _formats_are_different(cls, formats: list) -> list:
        return each_once(formats)


class BenchmarkSection(Section):
    """`benchmark`: what `keras-distil benchmark` measures.

    In every round, every model takes one sequence of each of `lengths`, with
    each number of `threads`, and batches of 32 sequences of
    `throughput_length`. `threads: null` uses 1, 2, 4 and so on up to the number
    of cores.
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
        return None if values is None else each_once(values)
