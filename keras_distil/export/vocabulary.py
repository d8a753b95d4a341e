"""Checks the tokenizer of a student, and writes its files."""

import logging
from pathlib import Path

import keras
import tokenizers

from keras_distil.data import (
    SpecialTokens,
    load_tokenizer,
    vocabulary_size,
)
from keras_distil.data.tokenizer_folder import kind_of
from keras_distil.export.student import Student
from keras_distil.models.architectures import check_padding
from keras_distil.models.origin import folder_of
from keras_distil.models.text_preprocessor import TextPreprocessor

_LOGGER = logging.getLogger("keras_distil")


def find_tokenizer(
    model: keras.Model, *, required: bool
) -> tokenizers.Tokenizer | None:
    """Returns the tokenizer of a model, or of the folder it came from.

    Args:
        model: the model to export.
        required: whether a tokenizer that cannot be read is an error.

    Returns:
        The tokenizer; None if there is no folder or no tokenizer in it.

    Raises:
        FileNotFoundError: if it is required and the folder has none.
        ValueError: if it is required and cannot be read.
    """
    preprocessor = getattr(model, "preprocessor", None)
    if isinstance(preprocessor, TextPreprocessor) and (
        preprocessor.tokenizer is not None
    ):
        return preprocessor.tokenizer
    folder = folder_of(model)
    if folder is None:
        return None
    try:
        return load_tokenizer(folder)
    except (FileNotFoundError, ValueError) as error:
        if required:
            raise
        if not isinstance(error, FileNotFoundError):
            _LOGGER.warning(
                "The export takes only token ids, since the model's tokenizer "
                "cannot be read: %s",
                error,
            )
        return None


def check_vocabulary(
    student: Student, tokenizer: tokenizers.Tokenizer | None
) -> None:
    """Checks that a tokenizer has no words that the student lacks.

    Raises:
        TypeError: if it is not a tokenizer.
        ValueError: if it has words that the student lacks, or belongs to
            another family.
    """
    if not isinstance(tokenizer, tokenizers.Tokenizer):
        reason = (
            " The model was not loaded from a folder that has one."
            if tokenizer is None
            else ""
        )
        raise TypeError(
            "`tokenizer` must be a `tokenizers.Tokenizer`, as "
            "`data.load_tokenizer` returns it. "
            f"Received: {type(tokenizer).__name__}.{reason}"
        )
    check_padding(student.model, SpecialTokens.from_tokenizer(tokenizer).pad_id)
    words = vocabulary_size(tokenizer)
    rows = student.model.backbone.vocabulary_size
    if words > rows:
        raise ValueError(
            f"The tokenizer has {words} entries, the model's vocabulary "
            f"{rows}. They do not belong together."
        )


def write_vocabulary(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Writes `tokenizer.json`, and the older files of the tokenizer's kind.

    These are `vocab.txt` for WordPiece, with one word per line, and
    `vocab.json` with `merges.txt` for byte-level BPE.

    Raises:
        ValueError: if the tokenizer is of another kind.
    """
    kind = kind_of(tokenizer)
    # The library's own `save` raises no specific error for a full disk.
    text = tokenizer.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(text, "utf-8")
    kind.write_vocabulary(tokenizer, folder)
