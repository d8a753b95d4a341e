"""An exporter: writes a student in one format, and reads it back.

All exports go the same way, which is written here once: a scratch folder, what
the exporter writes there, the comparison with the student by the format's own
reader, the report, and one rename.
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
from keras_distil.export.vocabulary import check_vocabulary
from keras_distil.utils.disk import file_size_mb


class Exporter(abc.ABC):
    """One export of a student in one format.

    Its keyword-only arguments are the options of the format.

    Args:
        student: what is exported.
        tokenizer: of its vocabulary; None for an export without one.
        folder: where the export will be, for messages and titles. What is
            written goes to a scratch folder first.

    Attributes:
        format: its name in reports and recipes.
        title: what messages call an export.
        mark: a file that every export of the format holds. A folder without
            it is never replaced.
        needs_tokenizer: whether there is no export without a tokenizer.
        embeds_sentences: whether it can put out sentence embeddings.
        precision: of the weights that are written.
        operators: names of those that the runtime must have, known once it is
            written.
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
        """Raises ImportError if the format needs an absent package."""
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
        """What messages call this export."""
        return f"{self.title} for {self.folder}"

    @property
    def tolerance(self) -> parity.Tolerance:
        """How far the export may be off."""
        return parity.TOLERANCES[self.format, self.precision]

    @functools.cached_property
    def note(self) -> str | None:
        """What must be known before the export is used."""
        return embedding_note(self.student)

    @abc.abstractmethod
    def write(self, scratch: Path) -> None:
        """Writes the student into an empty folder."""

    @abc.abstractmethod
    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads what `write` wrote, with the format's own reader.

        Returns:
            A function from the student's inputs to its outputs by name.
        """

    @abc.abstractmethod
    def read_layers(self, scratch: Path) -> parity.Runner:
        """Loads the hidden states, by the names of `Student.layers`.

        It is called if the outputs differ, to find where that begins. A
        format that holds no hidden states writes them now, below `scratch`.
        """

    def cut(self, examples: parity.Examples) -> parity.Examples:
        """Cuts examples to what the export takes."""
        return examples

    def check_more(
        self,
        scratch: Path,
        examples: parity.Examples,
        tolerance: parity.Tolerance,
    ) -> None:
        """Raises an error if something besides the outputs is wrong."""
        return None

    def shipped(self, scratch: Path) -> Path:
        """The file or folder whose size counts."""
        return scratch

    def export(
        self,
        *,
        overwrite: bool,
        held_out: parity.Examples | Sequence[str] | None,
        tolerance: parity.Tolerance | None,
    ) -> ExportReport:
        """Writes the folder, unless what it holds is not the student.

        Args:
            overwrite: whether an earlier export may be replaced.
            held_out: what it is compared on: texts, or `parity.Examples`.
                Some lines of English if None.
            tolerance: how far it may be off; None for the format's own.
        """
        bound = tolerance or self.tolerance
        examples = self.cut(
            parity.make_examples(self.student, self.tokenizer, held_out)
        )
        with replacing_folder(
            self.folder, overwrite=overwrite, mark=self.mark
        ) as scratch:
            self.write(scratch)
            comparison = parity.compare(
                self.student, examples, self.read_back(scratch)
            )
            parity.check(
                comparison,
                bound,
                what=self.what,
                origin=lambda: parity.first_difference(
                    self.student, examples, self.read_layers(scratch), bound
                ),
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
        exporter: of the format.
        model: the model.
        folder: where it goes.
        tokenizer: of its vocabulary, or None.
        overwrite: whether an earlier export may be replaced.
        held_out: what it is compared on.
        tolerance: how far it may be off.
        sentence_embedding: whether sentence embeddings are put out.
        normalize: whether they are scaled to length 1.
        **options: those of the exporter.
    """
    exporter.check_installed()
    student = make_student(
        model, sentence_embedding=sentence_embedding, normalize=normalize
    )
    return exporter(student, tokenizer, Path(folder), **options).export(
        overwrite=overwrite, held_out=held_out, tolerance=tolerance
    )
