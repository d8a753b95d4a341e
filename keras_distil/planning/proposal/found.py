"""What a file is found to hold."""

import dataclasses
from typing import Any, TypeAlias

import tokenizers

# What is encoded together: a text, two, or the words of a sentence.
Texts: TypeAlias = list[tuple[Any, ...]]


@dataclasses.dataclass(frozen=True)
class FoundTask:
    """A task in a file, as far as it can be seen.

    Attributes:
        kind: kind of the task, as in a recipe.
        rows: number of rows, sentences or questions.
        texts: those of some rows, for their lengths.
        columns: names of columns by what they hold, as in a recipe.
        labels: names of the classes or tags; None without any.
        counts: rows by label, where each row has one.
        metric: what the task is best scored by.
        separator: what stands between the labels of a text.
        encoding: encoding of the file.
        notes: by key of the recipe, what else it could be.
    """

    kind: str
    rows: int
    texts: Texts
    columns: dict[str, Any] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    metric: str = ""
    separator: str = "|"
    encoding: str = "utf-8"
    notes: dict[str, str] = dataclasses.field(default_factory=dict)


def count_tokens(
    tokenizer: tokenizers.Tokenizer, texts: Texts, most: int
) -> list[int]:
    """Returns the tokens of each of some texts, with those that frame them.

    Args:
        tokenizer: the models' tokenizer.
        texts: as in `FoundTask.texts`; words are tuples of one tuple.
        most: characters of a text beyond which it is not read.
    """
    lengths = []
    for text in texts:
        if isinstance(text[0], tuple):
            encoded = tokenizer.encode(list(text[0]), is_pretokenized=True)
        else:
            encoded = tokenizer.encode(*(part[:most] for part in text))
        lengths.append(len(encoded.ids))
    return lengths
