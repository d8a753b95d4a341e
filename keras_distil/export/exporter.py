"""The base class of the exporters of text encoders."""

import abc
import inspect
from pathlib import Path
from typing import Any, ClassVar

import tokenizers

from keras_distil.export import parity
from keras_distil.export.base_exporter import BaseExporter
from keras_distil.export.student import Student
from keras_distil.export.vocabulary import check_vocabulary


class Exporter(BaseExporter):
    """One export of a student in one format.

    The keyword-only arguments of a subclass are the options of its format.

    Args:
        student: the model to export.
        tokenizer: its tokenizer; None for an export without one.
        folder: the final folder.

    Attributes:
        needs_tokenizer: whether a tokenizer is required.
        takes_tables: whether it can write a static table of token vectors.
    """

    needs_tokenizer: ClassVar[bool] = False
    takes_tables: ClassVar[bool] = False

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer | None,
        folder: Path,
    ) -> None:
        super().__init__(folder)
        self.student = student
        self.tokenizer = tokenizer
        if tokenizer is not None or self.needs_tokenizer:
            check_vocabulary(student, tokenizer)

    @classmethod
    def check_installed(cls) -> None:
        """Raises ImportError if a package the format needs is missing."""
        return None

    @classmethod
    def check_takes(cls, student: Student) -> None:
        """Raises ValueError if the format has no place for a static table."""
        if student.is_static and not cls.takes_tables:
            raise ValueError(
                f"`model` must have an encoder for format={cls.format!r}: a "
                "static table of token vectors is exported with format="
                "'static_table', 'saved_model' or 'hugging_face'. Received: "
                f"{type(student.model).__name__}."
            )

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The format's options with their defaults."""
        return {
            name: each.default
            for name, each in inspect.signature(cls).parameters.items()
            if each.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @abc.abstractmethod
    def read_layers(self, scratch: Path) -> parity.Runner:
        """Loads the hidden states under the names of `Student.layers`.

        Called if the outputs differ, to find where the difference begins. A
        format that holds no hidden states writes them now, below `scratch`.
        """

    def cut(self, examples: parity.Examples) -> parity.Examples:
        """Cuts examples to lengths that the export accepts."""
        return examples

    def make_examples(self, held_out: Any) -> parity.Examples:
        """Returns the examples that the export is compared on.

        Args:
            held_out: texts or `parity.Examples`; some English sentences if
                None.
        """
        return self.cut(
            parity.make_examples(self.student, self.tokenizer, held_out)
        )

    def compare_on(
        self, examples: parity.Examples, artifact: parity.Runner
    ) -> parity.Comparison:
        """Compares what was read back with the student."""
        return parity.compare(self.student, examples, artifact)

    def find_origin(
        self,
        scratch: Path,
        examples: parity.Examples,
        bound: parity.Tolerance,
    ) -> str:
        """Names the layer where a difference begins."""
        return parity.first_difference(
            self.student, examples, self.read_layers(scratch), bound
        )
