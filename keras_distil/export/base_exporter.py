"""The steps that every export takes, whatever its model and its format.

The exporter writes to a scratch folder, the result is read back by the
format's own reader and compared with the model, the report is written, and the
folder is renamed.
"""

import abc
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from keras_distil.export import parity
from keras_distil.export.folders import replacing_folder
from keras_distil.export.report import ExportReport
from keras_distil.utils.disk import file_size_mb

_LOGGER = logging.getLogger("keras_distil")


class BaseExporter(abc.ABC):
    """One export of a model in one format.

    Args:
        folder: the final folder, for messages and titles. Files are written
            to a scratch folder first.

    Attributes:
        format: its name in reports and recipes.
        title: the name of an export in messages.
        mark: a file that every export of the format holds. A folder without
            it is never replaced.
        precision: precision of the written weights.
        operators: names of the operators that the runtime needs, known once
            the export is written.
    """

    format: ClassVar[str]
    title: ClassVar[str]
    mark: ClassVar[str]
    precision: str = "float32"
    operators: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def what(self) -> str:
        """The name of this export in messages."""
        return f"{self.title} for {self.folder}"

    @property
    def tolerance(self) -> parity.Tolerance:
        """How far the export may differ from the model."""
        return parity.TOLERANCES[self.format, self.precision]

    @property
    def note(self) -> str | None:
        """A caveat for users of the export, or None."""
        return None

    @abc.abstractmethod
    def write(self, scratch: Path) -> None:
        """Writes the model into an empty folder."""

    @abc.abstractmethod
    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the written export with the format's own reader.

        Returns:
            A function from the model's inputs to its outputs by name.
        """

    @abc.abstractmethod
    def make_examples(self, held_out: Any) -> Any:
        """Returns the examples that the export is compared on."""

    @abc.abstractmethod
    def compare_on(
        self, examples: Any, artifact: parity.Runner
    ) -> parity.Comparison:
        """Compares what was read back with the model."""

    @abc.abstractmethod
    def find_origin(
        self, scratch: Path, examples: Any, bound: parity.Tolerance
    ) -> str:
        """Says where a difference begins."""

    def check_more(
        self, scratch: Path, examples: Any, tolerance: parity.Tolerance
    ) -> None:
        """Raises an error if anything other than the outputs is wrong."""
        return None

    def shipped(self, scratch: Path) -> Path:
        """The file or folder whose size counts."""
        return scratch

    def export(
        self,
        *,
        overwrite: bool,
        held_out: Any,
        tolerance: parity.Tolerance | None,
    ) -> ExportReport:
        """Writes the folder, if the export matches the model.

        Args:
            overwrite: whether an earlier export may be replaced.
            held_out: examples for the comparison, see `make_examples`.
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
            unjudged = parity.find_unjudged(comparison, bound)
            if unjudged is not None:
                _LOGGER.warning("%s: %s", self.folder, unjudged)
            notes = [note for note in (self.note, unjudged) if note]
            report = ExportReport(
                self.folder,
                self.format,
                self.precision,
                comparison,
                bound,
                file_size_mb(self.shipped(scratch)),
                tuple(self.operators),
                note=" ".join(notes) or None,
            )
            report.write(scratch)
        return report
