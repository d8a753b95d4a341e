"""The tokenizer that belongs to a student, and its files."""

from pathlib import Path

import tokenizers

from keras_distil.export.student import Student


def check_vocabulary(student: Student, tokenizer: tokenizers.Tokenizer) -> None:
    """Checks that a tokenizer has no words that the student has not.

    Raises:
        TypeError: if it is no tokenizer.
        ValueError: if it has more words.
    """
    if not isinstance(tokenizer, tokenizers.Tokenizer):
        raise TypeError(
            "`tokenizer` must be a `tokenizers.Tokenizer`, as "
            "`data.load_tokenizer` returns it. "
            f"Received: {type(tokenizer).__name__}."
        )
    words = tokenizer.get_vocab_size(with_added_tokens=True)
    rows = student.model.backbone.vocabulary_size
    if words > rows:
        raise ValueError(
            f"The tokenizer has {words} entries, the model's vocabulary "
            f"{rows}. They do not belong together."
        )


def write_vocabulary(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Writes `tokenizer.json`, and `vocab.txt` with a word a line."""
    # The library's own `save` has no error of its own for a full disk.
    text = tokenizer.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(text, "utf-8")
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    words = [""] * (max(vocabulary.values()) + 1)
    for word, index in vocabulary.items():
        words[index] = word
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
