"""Exports static embedders as tables that NumPy alone reads."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tokenizers

from keras_distil import edge
from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.report import ExportReport
from keras_distil.export.student import Student
from keras_distil.export.vocabulary import write_vocabulary
from keras_distil.models.embedding_model import embedding_settings

# Largest integer of a row.
_LARGEST = 127


def export_static_table(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    overwrite: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a static embedder as a table of integers, and compares both.

    The folder holds `vectors.bin`, which `keras_distil.edge.StaticStudent`
    maps into memory, `student.json`, `tokenizer.json` and `vocab.txt`. A token
    takes one byte per number and four for the scale of its row: 7,935,720
    bytes for 30,522 tokens of 256 numbers.

    Args:
        model: an embedding model without an encoder, as from
            `models.static_embedding_model`.
        folder: the output folder.
        tokenizer: the model's; None for its own.
        overwrite: bool, whether an earlier export may be replaced.
        held_out: texts or `parity.Examples` for the comparison with the
            model. Some English sentences if None.
        tolerance: largest allowed difference. Defaults to that of
            `TOLERANCES`.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError: if the model is of the wrong kind.
        ValueError: if it has an encoder, or vectors of another length than 1.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its vectors differ from the model's.
    """
    return export_as(
        StaticTableExporter,
        model,
        folder,
        tokenizer,
        overwrite=overwrite,
        held_out=held_out,
        tolerance=tolerance,
    )


class StaticTableExporter(Exporter):
    """Writes tables of token vectors; see `export_static_table`."""

    format = "static_table"
    title = "The static table"
    mark = edge.TABLE_FILE
    precision = "int8"
    needs_tokenizer = True
    takes_tables = True

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer,
        folder: Path,
    ) -> None:
        check_table(student, self.format)
        super().__init__(student, tokenizer, folder)
        self.tokenizer: tokenizers.Tokenizer = tokenizer

    def write(self, scratch: Path) -> None:
        """Writes table, card and tokenizer."""
        table = table_of(self.student)
        (scratch / edge.TABLE_FILE).write_bytes(_quantized(table).tobytes())
        settings = embedding_settings(self.student.model)
        card = {
            "format_version": edge.FORMAT_VERSION,
            "kind": edge.STATIC_KIND,
            "precision": self.precision,
            "max_length": self.student.max_length,
            "tokens": table.shape[0],
            "dimension": table.shape[1],
            "prompts": dict(settings["prompts"] or {}),
            "default_prompt": settings["default_prompt_name"],
        }
        text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
        (scratch / edge.CARD_FILE).write_text(text, "utf-8")
        write_vocabulary(self.tokenizer, scratch)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Opens the table as `edge.StaticStudent` does."""
        read = edge.StaticStudent(scratch)

        def run(inputs: parity.Arrays) -> Mapping[str, np.ndarray]:
            texts = [
                ids[mask > 0]
                for ids, mask in zip(
                    inputs["token_ids"], inputs["padding_mask"], strict=True
                )
            ]
            return {"embedding": read.sum_rows(texts)}

        return run

    def read_layers(self, scratch: Path) -> parity.Runner:
        """Returns the vectors of tokens, from the table."""
        dtype = edge.row_type(self.student.model.backbone.hidden_dim)
        table = np.fromfile(scratch / edge.TABLE_FILE, dtype)
        rows = table["scale"][:, np.newaxis] * table["row"]
        return lambda inputs: {"embeddings": rows[inputs["token_ids"]]}

    def check_more(
        self,
        scratch: Path,
        examples: parity.Examples,
        tolerance: parity.Tolerance,
    ) -> None:
        """Checks that texts give the model's vectors, with each prompt."""
        texts = [text for text in examples.texts if text.strip()]
        read = edge.StaticStudent(scratch)
        model = self.student.model
        if model.preprocessor.tokenizer is not self.tokenizer:
            return
        for name in (None, *(embedding_settings(model)["prompts"] or ())):
            ours = model.encode_text(texts, name)
            cosines = (ours * read.embed(texts, name)).sum(axis=1)
            known = np.linalg.norm(ours, axis=1) > 0.0
            if not (cosines[known] >= tolerance.cosine).all():
                raise RuntimeError(
                    f"{self.what} reads texts otherwise than the student: the "
                    f"lowest cosine is {cosines[known].min():.3f}. It is not "
                    "kept; what was there before is."
                )

    def shipped(self, scratch: Path) -> Path:
        """Returns the table's file."""
        return scratch / edge.TABLE_FILE


def check_table(student: Student, format: str) -> None:
    """Raises ValueError unless a model is the sum of its tokens' rows."""
    if not student.is_static:
        raise ValueError(
            f"format={format!r} is for a static table of token vectors, as "
            "`models.static_embedding_model` makes one. Received: "
            f"{type(student.model).__name__}."
        )
    settings = embedding_settings(student.model)
    found = {
        name: settings[name]
        for name in ("pooling_mode", "normalize", "dimension")
    }
    wanted = {"pooling_mode": "mean", "normalize": True, "dimension": None}
    if found != wanted:
        raise ValueError(
            f"format={format!r} is for a mean of token vectors, scaled to "
            "length 1, as `models.static_embedding_model` makes it. Received: "
            f"{found}. Export a SavedModel."
        )


def table_of(student: Student) -> np.ndarray:
    """Returns the vectors of all tokens, float32; 0 for special tokens."""
    backbone = student.model.backbone
    table = np.array(backbone.token_embedding.embeddings, np.float32)
    table[backbone.special_ids] = 0.0
    return table


def _quantized(table: np.ndarray) -> np.ndarray:
    """Rounds each row to integers, with a scale from its largest number."""
    found = np.zeros(len(table), edge.row_type(table.shape[1]))
    scales = np.abs(table).max(axis=1) / _LARGEST
    found["scale"] = scales
    divisors = np.where(scales == 0.0, 1.0, scales)[:, np.newaxis]
    found["row"] = np.round(table / divisors)
    return found
