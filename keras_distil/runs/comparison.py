"""Compares teacher and student at the end of a run, for its report."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tokenizers
from keras_hub.models import MaskedLM
from pydantic import Field

from keras_distil.callbacks import insights
from keras_distil.runs.run_folder import read_text
from keras_distil.utils.section import NonEmptyText, Section, Share

SIDE_BY_SIDE_FILE = "side_by_side.json"

# More layers than any of our encoders has.
_Similarities = Annotated[list[Share], Field(min_length=1, max_length=64)]


class Choice(Section):
    """A word that a model would put in place of a masked one."""

    word: str
    probability: Share


class Guess(Section):
    """A masked word, and both models' first choices, best first.

    Attributes:
        before: text before the word.
        after: text after the word.
        word: the masked word.
        teacher: the teacher's choices.
        student: the student's choices.
    """

    before: str
    after: str
    word: NonEmptyText
    teacher: list[Choice] = Field(min_length=1, max_length=20)
    student: list[Choice] = Field(min_length=1, max_length=20)


class SideBySide(Section):
    """Results of both models on the same held-out sequences.

    Attributes:
        sequences: number of sequences.
        similarity: linear CKA of the hidden states: one row for the teacher's
            embeddings and one for each of its layers; in each row, one value
            for the student's embeddings and one for each of its layers.
        guesses: some masked words.
    """

    sequences: int = Field(ge=1)
    similarity: list[_Similarities] = Field(min_length=1, max_length=64)
    guesses: list[Guess] = Field(max_length=100)


def compare(
    teacher: MaskedLM,
    student: MaskedLM,
    triple: tuple[dict[str, Any], Any, Any],
    tokenizer: tokenizers.Tokenizer,
    *,
    samples: int = insights.SEQUENCES,
) -> SideBySide:
    """Runs both models on some masked sequences.

    Args:
        teacher: a masked-LM model.
        student: a masked-LM model with the same vocabulary.
        triple: a batch in the form that `fit` takes.
        tokenizer: the tokenizer of that vocabulary.
        samples: int >= 0, number of sequences whose words are kept.
    """
    examples = insights.Examples(
        teacher, student, triple, tokenizer, samples=samples
    )
    return SideBySide(
        sequences=len(np.asarray(triple[1])),
        similarity=np.round(examples.similarities(), 4).tolist(),
        guesses=[_guess(found) for found in examples.masked_words()],
    )


def _guess(found: insights.MaskedWord) -> Guess:
    choices = {
        name: [
            # Rounding may push it slightly above 1.
            Choice(word=word, probability=min(round(share, 4), 1.0))
            for word, share in getattr(found, name)
        ]
        for name in ("teacher", "student")
    }
    texts = dataclasses.asdict(found) | choices
    return Guess(**texts)


def read(path: Path) -> SideBySide | None:
    """Reads a run's comparison; None if it is missing or damaged."""
    try:
        found = SideBySide.model_validate(json.loads(read_text(path)))
    except (ValueError, RecursionError):
        return None
    return found if len({len(row) for row in found.similarity}) == 1 else None
