"""The base class of exporters, which write a student and read it back.

All exports take the same steps: the exporter writes to a scratch folder, the
result is read back by the format's own reader and compared with the student,
the report is written, and the folder is renamed.
"""

import abc
import functools
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import tokenizers

from keras_distil.export import parity
from keras_distil.export.embedding_note import embedding_note
from keras_distil.export.folders import replacing_folder
from keras_distil.export.report import ExportReport
from keras_distil.export.student import Student, make_student
from keras_distil.export.vocabulary import check_vocabulary, find_tokenizer
from keras_distil.utils.disk import file_size_mb


class Exporter(abc.ABC):
    """One export of a student in one format.

    The keyword-only arguments of a subclass are the options of its format.

    Args:
        student: the model to export.
        tokenizer: its tokenizer; None for an export without one.
        folder: the final folder, for messages and titles. Files are written
            to a scratch folder first.

    Attributes:
        format: its name in reports and recipes.
        title: the name of an export in messages.
        mark: a file that every export of the format holds. A folder without
            it is never replaced.
        needs_tokenizer: whether a tokenizer is required.
        embeds_sentences: whether it can output sentence embeddings.
        precision: precision of the written weights.
        operators: names of the operators that the runtime needs, known once
            the export is written.
    """

    format: ClassVar[str]
    title: ClassVar[str]
    mark: ClassVar[str]
    needs_tokenizer: ClassVar[bool] = False
    embeds_sentences: ClassVar[bool] = False
    precision: str = "float32"
    operators: Sequence[str] = ()

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer | None,
        folder: Path,
    ) -> None:
        self.student = student
        self.tokenizer = tokenizer
        self.folder = folder
        if tokenizer is not None or self.needs_tokenizer:
            check_vocabulary(student, tokenizer)

    @classmethod
    def check_installed(cls) -> None:
        """Raises ImportError if a package the format needs is missing."""
        return None

    @classmethod
    def options(cls) -> list[str]:
        """Names of the format's options."""
        return [
            name
            for name, each in inspect.signature(cls).parameters.items()
            if each.kind is inspect.Parameter.KEYWORD_ONLY
        ]

    @property
    def what(self) -> str:
        """The name of this export in messages."""
        return f"{self.title} for {self.folder}"

    @property
    def tolerance(self) -> parity.Tolerance:
        """How far the export may differ from the student."""
        return parity.TOLERANCES[self.format, self.precision]

    @functools.cached_property
    def note(self) -> str | None:
        """A caveat for users of the export, or None."""
        return embedding_note(self.student)

    @abc.abstractmethod
    def write(self, scratch: Path) -> None:
        """Writes the student into an empty folder."""

    @abc.abstractmethod
    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the written export with the format's own reader.

        Returns:
            A function from the student's inputs to its outputs by name.
        """

    @abc.abstractmethod
    def read_layers(self, scratch: Path) -> parity.Runner:
        """Loads the hidden states under the names of `Student.layers`.

        Called if the outputs differ, to find where the difference begins. A
        format that holds no hidden states writes them now, below `scratch`.
        """

    def cut(self, examples: parity.Examples) -> parity.Examples:
        """Cuts examples to lengths that the export accepts."""
        return examples

    def check_more(
        self,
        scratch: Path,
        examples: parity.Examples,
        tolerance: parity.Tolerance,
    ) -> None:
        """Raises an error if anything other than the outputs is wrong."""
        return None

    def shipped(self, scratch: Path) -> Path:
        """The file or folder whose size counts."""
        return scratch

    def make_examples(self, held_out: Any) -> Any:
        """Returns the examples that the export is compared on."""
        return self.cut(
            parity.make_examples(self.student, self.tokenizer, held_out)
        )

    def compare_on(
        self, examples: Any, artifact: parity.Runner
    ) -> parity.Comparison:
        """Compares what was read back with the student."""
        return parity.compare(self.student, examples, artifact)

    def find_origin(
        self, scratch: Path, examples: Any, bound: parity.Tolerance
    ) -> str:
        """Says where a difference begins."""
        return parity.first_difference(
            self.student, examples, self.read_layers(scratch), bound
        )

    def export(
        self,
        *,
        overwrite: bool,
        held_out: parity.Examples | Sequence[str] | None,
        tolerance: parity.Tolerance | None,
    ) -> ExportReport:
        """Writes the folder, if the export matches the student.

        Args:
            overwrite: whether an earlier export may be replaced.
            held_out: texts or `parity.Examples` for the comparison with the
                student. Some English sentences if None.
            tolerance: largest allowed difference; None for the format's own.
        """
        bound = tolerance or self.tolerance
        examples = self.make_examples(held_out)
        with replacing_folder(
            self.folder, overwrite=overwrite, mark=self.mark
        ) as scratch:
            self.write(scratch)
            comparison = self.compare_on(examples, self.read_back(scratch))
            parity.check(
                comparison,
                bound,
                what=self.what,
                origin=lambda: self.find_origin(scratch, examples, bound),
            )
            self.check_more(scratch, examples, bound)
            report = ExportReport(
                self.folder,
                self.format,
                self.precision,
                comparison,
                bound,
                file_size_mb(self.shipped(scratch)),
                tuple(self.operators),
                note=self.note,
            )
            report.write(scratch)
        return report


def export_as(
    exporter: type[Exporter],
    model: keras.Model,
    folder: Any,
    tokenizer: tokenizers.Tokenizer | None,
    *,
    overwrite: bool,
    held_out: parity.Examples | Sequence[str] | None,
    tolerance: parity.Tolerance | None,
    sentence_embedding: bool = False,
    normalize: bool = False,
    **options: Any,
) -> ExportReport:
    """Exports a model with one exporter; see `export`.

    Args:
        exporter: the exporter of the format.
        model: the model.
        folder: the output folder.
        tokenizer: its tokenizer; None for the one it was loaded with, if any.
        overwrite: whether an earlier export may be replaced.
        held_out: texts or `parity.Examples` for the comparison.
        tolerance: largest allowed difference.
        sentence_embedding: whether to output sentence embeddings.
        normalize: whether they are scaled to length 1.
        **options: options of the exporter.
    """
    # It imports this module.
    from keras_distil.export import any_model

    if any_model.is_any_model(model):
        return any_model.export_any_model(
            exporter.format,
            model,
            Path(folder),
            tokenizer,
            overwrite=overwrite,
            held_out=held_out,
            tolerance=tolerance,
            sentence_embedding=sentence_embedding,
            normalize=normalize,
            **options,
        )
    exporter.check_installed()
    if tokenizer is None:
        tokenizer = find_tokenizer(model, required=exporter.needs_tokenizer)
    student = make_student(
        model, sentence_embedding=sentence_embedding, normalize=normalize
    )
    return exporter(student, tokenizer, Path(folder), **options).export(
        overwrite=overwrite, held_out=held_out, tolerance=tolerance
    )
