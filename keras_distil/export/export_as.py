"""One export of any model: of a text encoder, or of another Keras model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tokenizers

from keras_distil.export import parity
from keras_distil.export.any_model import export_any_model, is_any_model
from keras_distil.export.exporter import Exporter
from keras_distil.export.report import ExportReport
from keras_distil.export.student import make_student
from keras_distil.export.vocabulary import find_tokenizer


def export_as(
    exporter: type[Exporter],
    model: keras.Model,
    folder: Any,
    tokenizer: tokenizers.Tokenizer | None,
    *,
    overwrite: bool,
    held_out: parity.Examples | Sequence[str] | None,
    tolerance: parity.Tolerance | None,
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
        **options: options of the exporter.
    """
    if is_any_model(model):
        return export_any_model(
            exporter.format,
            model,
            Path(folder),
            tokenizer,
            overwrite=overwrite,
            held_out=held_out,
            tolerance=tolerance,
            options=options,
            defaults=exporter.options(),
        )
    exporter.check_installed()
    if tokenizer is None:
        tokenizer = find_tokenizer(model, required=exporter.needs_tokenizer)
    student = make_student(model)
    exporter.check_takes(student)
    return exporter(student, tokenizer, Path(folder), **options).export(
        overwrite=overwrite, held_out=held_out, tolerance=tolerance
    )
