"""The formats that a student is exported in, and the way to all of them."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

import keras
import tokenizers

from keras_distil.export import parity
from keras_distil.export.exporter import Exporter, export_as
from keras_distil.export.hugging_face import HuggingFaceExporter
from keras_distil.export.litert.exporter import LiteRTExporter
from keras_distil.export.onnx import OnnxExporter
from keras_distil.export.preset import PresetExporter
from keras_distil.export.report import ExportReport
from keras_distil.export.saved_model import SavedModelExporter

_EXPORTERS: dict[str, type[Exporter]] = {
    exporter.format: exporter
    for exporter in (
        SavedModelExporter,
        HuggingFaceExporter,
        PresetExporter,
        LiteRTExporter,
        OnnxExporter,
    )
}


def export(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    format: str,
    overwrite: bool = False,
    sentence_embedding: bool = False,
    normalize: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
    **options: Any,
) -> ExportReport:
    """Writes a model in a format, and compares it with the student.

    Args:
        model: a `keras_hub` BERT or DistilBERT, for masked language modelling
            or of `models.task_model`.
        folder: where it goes.
        tokenizer: the vocabulary's, as from `data.load_tokenizer`; None for an
            export that takes token ids alone.
        format: "saved_model", "hugging_face", "preset", "litert" or "onnx".
        overwrite: bool, whether an earlier export may be replaced.
        sentence_embedding: bool, whether the mean of the last hidden states
            is put out in place of what the head computes.
        normalize: bool, whether embeddings are scaled to length 1.
        held_out: what it is compared on: texts, or `parity.Examples`. Some
            lines of English if None.
        tolerance: how far it may be off. Defaults to that of `TOLERANCES`.
        **options: those of the format, which `export_saved_model`,
            `export_hugging_face`, `export_litert` and `export_onnx` describe.

    Returns:
        An `ExportReport`.

    Raises:
        ImportError: if the format needs a package that is absent.
        TypeError: if the model or the tokenizer is of another kind, or the
            format has no such option.
        ValueError: if the format is unknown, or something is not possible.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if it does not compute what the student does.

    Example:
        >>> export.export(
        ...     student, "phone", tokenizer, format="litert", lengths=[64]
        ... )                                               # doctest: +SKIP
    """
    exporter = find_exporter(format)
    unknown = [name for name in options if name not in exporter.options()]
    if unknown:
        known = ", ".join(exporter.options()) or "none"
        raise TypeError(
            f"`{unknown[0]}` is not an option of format={format!r}. "
            f"Its options: {known}."
        )
    if sentence_embedding and not exporter.embeds_sentences:
        able = [name for name, x in _EXPORTERS.items() if x.embeds_sentences]
        raise ValueError(
            f"`sentence_embedding` is for format={' or '.join(able)}. "
            f"Received: format={format!r}."
        )
    return export_as(
        exporter,
        model,
        folder,
        tokenizer,
        overwrite=overwrite,
        sentence_embedding=sentence_embedding,
        normalize=normalize,
        held_out=held_out,
        tolerance=tolerance,
        **options,
    )


def find_exporter(format: str) -> type[Exporter]:
    """The exporter of a format.

    Raises:
        ValueError: if there is none.
    """
    if format in _EXPORTERS:
        return _EXPORTERS[format]
    near = difflib.get_close_matches(str(format), _EXPORTERS, 1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"`format` must be one of {', '.join(_EXPORTERS)}.{guess} "
        f"Received: format={format!r}."
    )
