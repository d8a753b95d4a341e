"""Hugging Face folders, which `transformers` loads with `from_pretrained`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tokenizers

from keras_distil.data import SpecialTokens
from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.hugging_face_card import make_card
from keras_distil.export.report import ExportReport
from keras_distil.export.static_table import check_table, table_of
from keras_distil.export.student import (
    MASKED_LM,
    SENTENCE_EMBEDDING,
    Student,
    label_names,
    make_student,
)
from keras_distil.export.tokenizer_files import (
    check_tokenizer,
    write_tokenizer,
)
from keras_distil.models import (
    load_embedding_model,
    load_task_model,
    load_teacher,
)
from keras_distil.models.checkpoints import (
    hugging_face_config,
    write_checkpoint,
)
from keras_distil.models.checkpoints.sentence_transformers import (
    DenseWeights,
    SentenceTransformer,
    write_sentence_transformer,
)
from keras_distil.models.checkpoints.static_folder import write_static_folder
from keras_distil.models.embedding_model import embedding_settings

# Hugging Face has one module for them, told apart by the problem type.
_HEAD_OF = {"regression": "classification", "multi_label": "classification"}


def export_hugging_face(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    overwrite: bool = False,
    labels: Sequence[str] | None = None,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a Hugging Face folder, and compares it with the student.

    It holds `config.json`, `model.safetensors`, `tokenizer.json`,
    `vocab.txt`, `tokenizer_config.json`, `special_tokens_map.json` and
    `README.md`. It is read back by the reader of `load_teacher`, which the
    tests compare with `transformers`.

    Args:
        model: a `keras_hub` masked-LM model of a supported family, or a model
            of `models.task_model`.
        folder: the output folder.
        tokenizer: the student's, as from `data.load_tokenizer`. Defaults to
            that of the folder which the model, or its teacher, was loaded
            from.
        overwrite: bool, whether an earlier export may be replaced.
        labels: names of the classes, in the order of the outputs. Defaults
            to the model's own, or `LABEL_0` and so on if it has none.
        held_out: texts or `parity.Examples` for the comparison with the
            student. Some English sentences if None.
        tolerance: largest allowed difference. Defaults to that of
            `TOLERANCES`.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError: if the model or the tokenizer is of the wrong kind.
        ValueError: if the model, the tokenizer or the labels are
            invalid.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its outputs differ from the student's.
    """
    return export_as(
        HuggingFaceExporter,
        model,
        folder,
        tokenizer,
        overwrite=overwrite,
        labels=labels,
        held_out=held_out,
        tolerance=tolerance,
    )


class HuggingFaceExporter(Exporter):
    """Writes Hugging Face folders; see `export_hugging_face`.

    Args:
        student: the model to export.
        tokenizer: its tokenizer.
        folder: the final folder of the export.
        labels: names of the classes; None for the model's own.
    """

    format = "hugging_face"
    title = "The Hugging Face model"
    mark = "model.safetensors"
    needs_tokenizer = True
    takes_tables = True

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer,
        folder: Path,
        *,
        labels: Sequence[str] | None = None,
    ) -> None:
        if student.is_static:
            check_table(student, self.format)
        super().__init__(student, tokenizer, folder)
        self.tokenizer: tokenizers.Tokenizer = tokenizer
        self.labels = label_names(student, labels)
        self._loaded: Student | None = None

    def write(self, scratch: Path) -> None:
        """Writes weights, tokenizer and card."""
        card = make_card(self.student, self.folder.name, self.labels)
        (scratch / "README.md").write_text(card, "utf-8")
        if self.student.is_static:
            _write_table(self.student, self.tokenizer, scratch)
            return
        _write_weights(self.student, self.tokenizer, self.labels, scratch)
        if self.student.kind == SENTENCE_EMBEDDING:
            _write_modules(self.student, scratch)
        write_tokenizer(self.student, self.tokenizer, scratch)
        check_tokenizer(self.tokenizer, scratch)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the folder with this package's own reader."""
        return self._load(scratch).outputs

    def read_layers(self, scratch: Path) -> parity.Runner:
        """Returns the hidden states of the loaded model."""
        return self._load(scratch).layers

    def check_more(
        self,
        scratch: Path,
        examples: parity.Examples,
        tolerance: parity.Tolerance,
    ) -> None:
        """Checks that an embedder reads texts as the student does."""
        if self.student.kind != SENTENCE_EMBEDDING:
            return
        read = self._load(scratch)
        ours, theirs = (
            {**embedding_settings(each.model), "length": each.max_length}
            for each in (self.student, read)
        )
        # KerasHub's own class has no prompts.
        ours["prompts"] = ours["prompts"] or {}
        if ours != theirs:
            raise RuntimeError(
                f"{self.what} reads back with other settings: {theirs!r:.200} "
                f"for {ours!r:.200}. It is not kept; what was there before is."
            )

    def _load(self, folder: Path) -> Student:
        if self._loaded is None:
            load: Callable[..., Any] = load_task_model
            if self.student.kind == MASKED_LM:
                load = load_teacher
            elif self.student.kind == SENTENCE_EMBEDDING:
                load = load_embedding_model
            self._loaded = make_student(load(folder))
        return self._loaded


def _write_weights(
    student: Student,
    tokenizer: tokenizers.Tokenizer,
    labels: Sequence[str],
    folder: Path,
) -> None:
    backbone = student.model.backbone
    has_head = student.kind != SENTENCE_EMBEDDING
    weights = (student.model if has_head else backbone).weights
    config = hugging_face_config(
        student.family,
        backbone.get_config(),
        student.kind,
        labels=labels,
        pad_id=SpecialTokens.from_tokenizer(tokenizer).pad_id,
        head_dropout=getattr(student.model, "dropout", None),
        is_probability=student.is_probability,
    )
    write_checkpoint(
        folder,
        student.family,
        config,
        {
            variable.path: np.asarray(variable)
            for variable in weights
            # Dropout's random state is not exported.
            if "seed_generator" not in variable.path
        },
        num_layers=backbone.num_layers,
        head=_HEAD_OF.get(student.kind, student.kind),
    )


def _write_modules(student: Student, folder: Path) -> None:
    """Writes what sentence-transformers has around the encoder."""
    model = student.model
    settings = embedding_settings(model)
    dense = None
    if settings["dimension"] is not None:
        kernel, bias = (
            np.asarray(weight) for weight in model.sentence_embedding.weights
        )
        dense = DenseWeights(kernel, bias, settings["activation"])
    write_sentence_transformer(
        folder,
        SentenceTransformer(
            encoder=folder,
            pooling_mode=settings["pooling_mode"],
            dense=dense,
            normalize=settings["normalize"],
            sequence_length=student.max_length,
            prompts=dict(settings["prompts"] or {}),
            default_prompt_name=settings["default_prompt_name"],
        ),
        model.backbone.hidden_dim,
    )


def _write_table(
    student: Student, tokenizer: tokenizers.Tokenizer, folder: Path
) -> None:
    """Writes a static table as sentence-transformers has it."""
    settings = embedding_settings(student.model)
    write_static_folder(
        folder,
        table_of(student),
        tokenizer,
        sequence_length=student.max_length,
        prompts=dict(settings["prompts"] or {}),
        default_prompt_name=settings["default_prompt_name"],
    )
