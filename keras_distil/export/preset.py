"""A KerasHub preset: what `from_preset` of plain KerasHub loads."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import keras_hub
import tokenizers
from keras_hub.models import Task

from keras_distil.data import words_by_id
from keras_distil.export import parity
from keras_distil.export.folders import replacing_folder
from keras_distil.export.report import ExportReport, size_mb
from keras_distil.export.student import (
    MASKED_LM,
    Student,
    make_student,
    write_labels,
)
from keras_distil.export.vocabulary import check_vocabulary
from keras_distil.models.weights import copy_weights, seeded_build

FORMAT = "preset"
_MARK = "task.json"
_HUB = keras_hub.models
# KerasHub's own classes, by architecture: encoder, tokenizer, and task with
# preprocessor by kind.
_ENCODERS: dict[str, Any] = {
    "bert": (_HUB.BertBackbone, _HUB.BertTokenizer),
    "distilbert": (_HUB.DistilBertBackbone, _HUB.DistilBertTokenizer),
}
_TASKS: dict[tuple[str, str], Any] = {
    ("bert", MASKED_LM): (
        _HUB.BertMaskedLM,
        _HUB.BertMaskedLMPreprocessor,
    ),
    ("bert", "classification"): (
        _HUB.BertTextClassifier,
        _HUB.BertTextClassifierPreprocessor,
    ),
    ("distilbert", MASKED_LM): (
        _HUB.DistilBertMaskedLM,
        _HUB.DistilBertMaskedLMPreprocessor,
    ),
    ("distilbert", "classification"): (
        _HUB.DistilBertTextClassifier,
        _HUB.DistilBertTextClassifierPreprocessor,
    ),
}


def export_preset(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    overwrite: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a preset of KerasHub's own classes, and compares it.

    `keras_hub.models.DistilBertMaskedLM.from_preset(folder)`, the classifier
    and the BERT classes load it without this package. KerasHub's head has a
    LayerNorm epsilon of 1e-5 where the student has 1e-12, and its BERT the
    tanh approximation of GELU; the tolerances allow for that.

    With a tokenizer the preset holds a preprocessor, too. KerasHub's splits
    accented and some other words otherwise: see `docs/export.md`.

    Args:
        model: a `keras_hub` BERT or DistilBERT, for masked language modelling
            or a classifier or regression of texts.
        folder: where it goes.
        tokenizer: the vocabulary's, as from `data.load_tokenizer`; None for a
            preset that takes token ids alone.
        overwrite: bool, whether an earlier export may be replaced.
        held_out: what it is compared on: texts, or `parity.Examples`. Some
            lines of English if None.
        tolerance: how far it may be off. Defaults to that of `TOLERANCES`.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError: if the model is of another kind.
        ValueError: if KerasHub has no class for the task.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if it does not compute what the student does.
    """
    student = make_student(model)
    folder = Path(folder)
    row = "preset_bert" if student.architecture == "bert" else FORMAT
    tolerance = tolerance or parity.TOLERANCES[row, "float32"]
    if tokenizer is not None:
        check_vocabulary(student, tokenizer)
    examples = parity.make_examples(student, tokenizer, held_out)
    plain = _plain(student, tokenizer)
    with replacing_folder(folder, overwrite=overwrite, mark=_MARK) as scratch:
        plain.save_to_preset(str(scratch))
        # KerasHub's classes have no names for classes.
        write_labels(student, scratch)
        # The class decides, not the architecture: no class of ours is asked.
        loaded = type(plain).from_preset(str(scratch), dtype="float32")
        read_back = make_student(loaded)
        comparison = parity.compare(student, examples, read_back.outputs)
        parity.check(
            comparison,
            tolerance,
            what=f"The preset for {folder}",
            origin=lambda: parity.first_difference(
                student, examples, read_back.layers, tolerance
            ),
        )
        report = ExportReport(
            folder, FORMAT, "float32", comparison, tolerance, size_mb(scratch)
        )
        report.write(scratch)
    return report


def _plain(student: Student, tokenizer: tokenizers.Tokenizer | None) -> Task:
    """The same model of KerasHub's own classes."""
    kind = "classification" if student.kind == "regression" else student.kind
    if (student.architecture, kind) not in _TASKS:
        raise ValueError(
            f"KerasHub has no class for a {student.kind} model, so there is no "
            "preset of it: export a SavedModel or a Hugging Face folder."
        )
    task_class, preprocessor_class = _TASKS[student.architecture, kind]
    encoder_class, tokenizer_class = _ENCODERS[student.architecture]
    preprocessor = None
    if tokenizer is not None:
        preprocessor = preprocessor_class(
            tokenizer_class(
                vocabulary=words_by_id(tokenizer), **_settings(tokenizer)
            ),
            sequence_length=student.max_length,
        )
    config = student.model.get_config()
    options = {
        name: config[name]
        for name in ("num_classes", "hidden_dim", "dropout")
        if name in config
    }
    with seeded_build(0):
        encoder = encoder_class.from_config(student.model.backbone.get_config())
        # Compiled as KerasHub does it: else it warns at every load.
        plain = task_class(encoder, preprocessor=preprocessor, **options)
    if len(student.model.weights) != len(plain.weights):
        raise ValueError(
            "A preset has no place for what was added to KerasHub's layers; "
            "low-rank changes of `enable_lora` are exported, merged. "
            f"Received: {len(student.model.weights)} weights, "
            f"where KerasHub's {type(plain).__name__} has "
            f"{len(plain.weights)}."
        )
    copy_weights(student.model, plain)
    return plain


def _settings(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """What KerasHub's tokenizers call the settings of one."""
    described = json.loads(tokenizer.to_str())
    normalizer = described["normalizer"] or {}
    return {
        "lowercase": normalizer.get("lowercase", True),
        "split_on_cjk": normalizer.get("handle_chinese_chars", True),
        "special_tokens": [
            token["content"] for token in described["added_tokens"]
        ],
        "special_tokens_in_strings": True,
    }
