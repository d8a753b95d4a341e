"""The export formats, and `export`, which writes any of them."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

import keras
import tokenizers

from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.hugging_face import HuggingFaceExporter
from keras_distil.export.litert.exporter import LiteRTExporter
from keras_distil.export.onnx import OnnxExporter
from keras_distil.export.preset import PresetExporter
from keras_distil.export.report import ExportReport
from keras_distil.export.saved_model import SavedModelExporter
from keras_distil.export.static_table import StaticTableExporter

_EXPORTERS: dict[str, type[Exporter]] = {
    exporter.format: exporter
    for exporter in (
        SavedModelExporter,
        HuggingFaceExporter,
        PresetExporter,
        LiteRTExporter,
        OnnxExporter,
        StaticTableExporter,
    )
}


# They made an embedder of an encoder on its way out.
_EARLIER_OPTIONS = ("sentence_embedding", "normalize")


def export(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    format: str,
    overwrite: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
    **options: Any,
) -> ExportReport:
    """Writes a model in a format, and compares it with the student.

    Args:
        model: a `keras_hub` masked-LM model of a supported family, or a model
            of `models.task_model`.
        folder: the output folder.
        tokenizer: the student's, as from `data.load_tokenizer`. Defaults to
            that of the folder which the model, or its teacher, was loaded
            from; without one, only token ids are taken.
        format: "saved_model", "hugging_face", "preset", "litert", "onnx" or
            "static_table".
        overwrite: bool, whether an earlier export may be replaced.
        held_out: texts or `parity.Examples` for the comparison with the
            student. Some English sentences if None.
        tolerance: largest allowed difference. Defaults to that of
            `TOLERANCES`.
        **options: options of the format; see `export_saved_model`,
            `export_hugging_face`, `export_litert` and `export_onnx`.

    Returns:
        An `ExportReport`.

    Raises:
        ImportError: if a package the format needs is missing.
        TypeError: if the model or the tokenizer is of the wrong kind, or the
            format has no such option.
        ValueError: if the format is unknown, or an argument is invalid.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its outputs differ from the student's.

    Example:
        >>> export.export(
        ...     student, "phone", tokenizer, format="litert", lengths=[64]
        ... )                                               # doctest: +SKIP
    """
    exporter = find_exporter(format)
    unknown = [name for name in options if name not in exporter.options()]
    if unknown:
        known = ", ".join(exporter.options()) or "none"
        advice = ""
        if unknown[0] in _EARLIER_OPTIONS:
            advice = " Export `models.embedding_model(model)` instead."
        raise TypeError(
            f"`{unknown[0]}` is not an option of format={format!r}. "
            f"Its options: {known}.{advice}"
        )
    return export_as(
        exporter,
        model,
        folder,
        tokenizer,
        overwrite=overwrite,
        held_out=held_out,
        tolerance=tolerance,
        **options,
    )


def find_exporter(format: str) -> type[Exporter]:
    """Returns the exporter of a format.

    Raises:
        ValueError: if the format is unknown.
    """
    if format in _EXPORTERS:
        return _EXPORTERS[format]
    near = difflib.get_close_matches(str(format), _EXPORTERS, 1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"`format` must be one of {', '.join(_EXPORTERS)}.{guess} "
        f"Received: format={format!r}."
    )
