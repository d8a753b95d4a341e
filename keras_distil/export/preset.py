"""KerasHub presets, which plain KerasHub loads with `from_preset`."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tokenizers
from keras_hub.models import Task, TextEmbedder
from keras_hub.tokenizers import WordPieceTokenizer

from keras_distil.data import byte_level_bpe, word_piece, words_by_id
from keras_distil.data.byte_level_agreement import read_flag
from keras_distil.data.tokenizer_folder import kind_of
from keras_distil.export import parity
from keras_distil.export.export_as import export_as
from keras_distil.export.exporter import Exporter
from keras_distil.export.report import ExportReport
from keras_distil.export.student import (
    MASKED_LM,
    SENTENCE_EMBEDDING,
    Student,
    make_student,
    write_labels,
)
from keras_distil.models.embedding_model import embedding_settings
from keras_distil.models.text_preprocessor import TextPreprocessor
from keras_distil.models.weights import copy_weights, seeded_build
from keras_distil.utils import token_roles

# Arguments that KerasHub's classes of tasks have beside the encoder.
_OPTIONS = (
    "num_classes",
    "hidden_dim",
    "dropout",
    "pooling_mode",
    "normalize",
)
_NOTE = (
    "KerasHub has no class for this embedding model, so the preset holds one "
    "of keras_distil: `import keras_distil.models` before `from_preset`."
)

_SPLITS = (
    "KerasHub's byte-level tokenizer splits some texts otherwise, such as "
    "those with several spaces in a row: pass token ids where that matters."
)


def export_preset(
    model: keras.Model,
    folder: str | os.PathLike,
    tokenizer: tokenizers.Tokenizer | None = None,
    *,
    overwrite: bool = False,
    held_out: parity.Examples | Sequence[str] | None = None,
    tolerance: parity.Tolerance | None = None,
) -> ExportReport:
    """Writes a KerasHub preset, and compares it with the student.

    `keras_hub.models.DistilBertMaskedLM.from_preset(folder)`, the classifier
    and the BERT classes load it without this package. KerasHub's head has a
    LayerNorm epsilon of 1e-5 where the student has 1e-12, and its BERT uses
    the tanh approximation of GELU; the tolerances allow for both.

    Given a tokenizer, the preset also holds a preprocessor. KerasHub's splits
    accented and some other words differently: see
    `docs/export/hugging_face.md`.

    Args:
        model: a `keras_hub` BERT or DistilBERT for masked language modelling,
            or a classifier or regression of texts.
        folder: the output folder.
        tokenizer: the student's, as from `data.load_tokenizer`. Defaults to
            that of the folder which the model, or its teacher, was loaded
            from; without one, only token ids are taken.
        overwrite: bool, whether an earlier export may be replaced.
        held_out: texts or `parity.Examples` for the comparison with the
            student. Some English sentences if None.
        tolerance: largest allowed difference. Defaults to that of
            `TOLERANCES`.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError: if the model is of the wrong kind.
        ValueError: if KerasHub has no class for the task.
        FileExistsError: if the folder holds something that may not be
            replaced.
        OSError: if it cannot be written.
        ParityError: if its outputs differ from the student's.
    """
    return export_as(
        PresetExporter,
        model,
        folder,
        tokenizer,
        overwrite=overwrite,
        held_out=held_out,
        tolerance=tolerance,
    )


class PresetExporter(Exporter):
    """Writes presets of KerasHub's own classes; see `export_preset`."""

    format = "preset"
    title = "The preset"
    mark = "task.json"

    def __init__(
        self,
        student: Student,
        tokenizer: tokenizers.Tokenizer | None,
        folder: Path,
    ) -> None:
        super().__init__(student, tokenizer, folder)
        self._has_own_class = _has_own_class(student)
        make = _plain if self._has_own_class else _with_tokenizer
        self._task = make(student, tokenizer)
        self._loaded: Student | None = None

    @property
    def tolerance(self) -> parity.Tolerance:
        """The tolerance, wider for BERT because KerasHub's GELU differs."""
        hub = self.student.family.hub
        alike = hub.computes_alike or not self._has_own_class
        row = self.format if alike else "preset_approximate"
        return parity.TOLERANCES[row, self.precision]

    @property
    def note(self) -> str | None:
        """A caveat for users of the export, or None."""
        if not self._has_own_class:
            return _NOTE
        is_byte_level = self.tokenizer is not None and (
            token_roles.is_byte_level(self.tokenizer)
        )
        return _SPLITS if is_byte_level else None

    def write(self, scratch: Path) -> None:
        """Writes the preset and the class names beside it."""
        self._task.save_to_preset(str(scratch))
        # KerasHub's models store no class names.
        write_labels(self.student, scratch)

    def read_back(self, scratch: Path) -> parity.Runner:
        """Loads the preset with KerasHub."""
        return self._load(scratch).outputs

    def read_layers(self, scratch: Path) -> parity.Runner:
        """Returns the hidden states of the loaded model."""
        return self._load(scratch).layers

    def _load(self, folder: Path) -> Student:
        if self._loaded is None:
            # Decided by the class that was loaded, independently of this
            # package's own classes.
            task_class = type(self._task)
            if self.student.kind == SENTENCE_EMBEDDING:
                task_class = TextEmbedder
            loaded = task_class.from_preset(str(folder), dtype="float32")
            self._loaded = make_student(loaded)
        return self._loaded


def _has_own_class(student: Student) -> bool:
    """Checks whether KerasHub has a place for all that a model is."""
    if student.kind != SENTENCE_EMBEDDING:
        return True
    settings = embedding_settings(student.model)
    return (
        student.family.hub.text_embedder is not None
        and settings["dimension"] is None
        and not settings["prompts"]
        and not _own_settings(student)
    )


def _with_tokenizer(
    student: Student, tokenizer: tokenizers.Tokenizer | None
) -> Task:
    """Returns the embedder with a tokenizer that is saved with it."""
    preprocessor = None
    if tokenizer is not None:
        preprocessor = TextPreprocessor(
            tokenizer, sequence_length=student.max_length
        )
    config = {**student.model.get_config(), "preprocessor": preprocessor}
    with seeded_build(0):
        model = type(student.model).from_config(config)
    copy_weights(student.model, model)
    return model


def _plain(student: Student, tokenizer: tokenizers.Tokenizer | None) -> Task:
    """Returns the same model built of KerasHub's own classes."""
    hub = student.family.hub
    tasks = {
        MASKED_LM: (hub.masked_lm, hub.masked_lm_preprocessor),
        "classification": (
            hub.text_classifier,
            hub.text_classifier_preprocessor,
        ),
        SENTENCE_EMBEDDING: (
            hub.text_embedder,
            hub.text_embedder_preprocessor,
        ),
    }
    is_text = student.kind in ("multi_label", "regression")
    kind = "classification" if is_text else student.kind
    if kind not in tasks:
        raise ValueError(
            f"KerasHub has no class for a {student.kind} model, so there is no "
            "preset of it: export a SavedModel or a Hugging Face folder."
        )
    task_class, preprocessor_class = tasks[kind]
    preprocessor = None
    if tokenizer is not None:
        preprocessor = preprocessor_class(
            _hub_tokenizer(hub.tokenizer, tokenizer),
            sequence_length=student.max_length,
        )
    config = student.model.get_config()
    options = {name: config[name] for name in _OPTIONS if name in config}
    with seeded_build(0):
        encoder = hub.encoder.from_config(_plain_config(student))
        # Compiled as KerasHub does it, or it would warn at every load.
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


def _own_settings(student: Student) -> dict[str, Any]:
    """Returns the encoder's settings that KerasHub's own class lacks."""
    config = student.model.backbone.get_config()
    names = ("activation", "layer_norm_epsilon")
    return {name: config[name] for name in names if name in config}


def _plain_config(student: Student) -> dict[str, Any]:
    """Returns the arguments of KerasHub's own encoder class."""
    own = _own_settings(student)
    if own:
        [(name, value), *_] = own.items()
        raise ValueError(
            f"KerasHub's {student.family.hub.encoder.__name__} has no "
            f"setting for {name}={value!r}, so there is no preset "
            "of this model: export a SavedModel or a Hugging Face folder."
        )
    return student.model.backbone.get_config()


def _hub_tokenizer(
    tokenizer_class: Any, tokenizer: tokenizers.Tokenizer
) -> Any:
    """Returns KerasHub's tokenizer of the same words."""
    is_word_piece = issubclass(tokenizer_class, WordPieceTokenizer)
    expected = word_piece if is_word_piece else byte_level_bpe
    kind = kind_of(tokenizer)
    if kind is not expected:
        raise ValueError(
            f"KerasHub's tokenizers of this family are {expected.MODEL}. "
            f"Received: a tokenizer of the kind {kind.MODEL}. Export the "
            "preset without a tokenizer."
        )
    settings = _word_pieces if is_word_piece else _byte_pairs
    return tokenizer_class(**settings(tokenizer))


def _word_pieces(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """A WordPiece tokenizer's settings under KerasHub's names."""
    described = json.loads(tokenizer.to_str())
    normalizer = described["normalizer"] or {}
    return {
        "vocabulary": words_by_id(tokenizer),
        "lowercase": normalizer.get("lowercase", True),
        "split_on_cjk": normalizer.get("handle_chinese_chars", True),
        "special_tokens": [
            token["content"] for token in described["added_tokens"]
        ],
        "special_tokens_in_strings": True,
    }


def _byte_pairs(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """A byte-level tokenizer's settings under KerasHub's names."""
    described = json.loads(tokenizer.to_str())
    return {
        "vocabulary": tokenizer.get_vocab(with_added_tokens=True),
        "merges": [
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in described["model"]["merges"]
        ],
        "add_prefix_space": read_flag(
            tokenizer.pre_tokenizer, "add_prefix_space"
        ),
    }
