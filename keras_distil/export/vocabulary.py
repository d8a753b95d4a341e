"""Checks the tokenizer of a student, and writes its files."""

from pathlib import Path

import tokenizers

from keras_distil.data import vocabulary_size
from keras_distil.data.tokenizer_folder import kind_of
from keras_distil.export.student import Student


def check_vocabulary(
    student: Student, tokenizer: tokenizers.Tokenizer | None
) -> None:
    """Checks that a tokenizer has no words that the student lacks.

    Raises:
        TypeError: if it is not a tokenizer.
        ValueError: if it has words that the student lacks.
    """
    if not isinstance(tokenizer, tokenizers.Tokenizer):
        raise TypeError(
            "`tokenizer` must be a `tokenizers.Tokenizer`, as "
            "`data.load_tokenizer` returns it. "
            f"Received: {type(tokenizer).__name__}."
        )
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
