"""`data`: the text of a recipe, and how it becomes batches."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from keras_distil.utils.checks import check_encoding, check_tfds_name
from keras_distil.utils.section import (
    Count,
    Length,
    NonEmptyText,
    PathText,
    Section,
    Share,
)

DOCUMENTED_PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "keras_hub")

# A single name without dots: looking up a submodule would import its parent.
PackageName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


class DocumentationSource(Section):
    """A source of text: the docstrings of installed packages."""

    kind: Literal["documentation"]
    packages: Annotated[list[PackageName], Field(min_length=1)] = list(
        DOCUMENTED_PACKAGES
    )


class FilesSource(Section):
    """A source of text: files under `data.root` that match a glob pattern.

    `field` is the key of the text in the records of JSON lines files.
    `encoding` is the Python name of the files' encoding.
    """

    kind: Literal["files"]
    pattern: NonEmptyText
    field: NonEmptyText | None = None
    encoding: NonEmptyText = "utf-8"

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        check_encoding(encoding)
        return encoding


class TfdsSource(Section):
    """A source of text: a feature of a TensorFlow Datasets data set."""

    kind: Literal["tfds"]
    name: NonEmptyText
    split: NonEmptyText = "train"
    field: NonEmptyText = "text"

    @field_validator("name")
    @classmethod
    def _name_runs_no_code(cls, name: str) -> str:
        check_tfds_name(name)
        return name


Source: TypeAlias = Annotated[
    DocumentationSource | FilesSource | TfdsSource, Field(discriminator="kind")
]


class MaskingSettings(Section):
    """`data.masking`: which tokens the model has to guess.

    Tokens are chosen with weight `count ** -rare_token_exponent`: 0 treats all
    tokens alike, and 0.7 favours rare ones, as the authors of DistilBERT did.
    """

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.15
    rare_token_exponent: Annotated[float, Field(ge=0, le=1)] = 0.0


class DataSection(Section):
    """`data`: the corpus and how it becomes batches.

    `root` is the folder of all files, including those of tasks. Text outside it
    is refused unless `allow_outside_root` is true. `prepared` is a folder
    written by `keras-distil prepare --output`; the sources are then not read.
    `layout` is `packed` (full sequences of joined paragraphs) or `bucketed`
    (one sequence per paragraph, in batches of similar length). `license` is for
    the model card.

    For embeddings, `texts` says what a text is: each of the paragraphs, each of
    their sentences, or both; `sequence_length` is where it is cut. `max_texts`
    are used, evenly spaced; null uses all, or as many as the updates read.
    """

    root: PathText | None = None
    allow_outside_root: bool = False
    prepared: PathText | None = None
    sources: list[Source] = []
    layout: Literal["packed", "bucketed"] = "packed"
    texts: Literal["paragraphs", "sentences", "both"] = "paragraphs"
    max_texts: Count | None = None
    sequence_length: Length = 128
    held_out_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    masking: MaskingSettings = MaskingSettings()
    max_skipped_fraction: Share = 0.2
    license: NonEmptyText | None = None
