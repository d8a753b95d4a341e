"""Teacher and student side by side at the end of a run, kept for its report."""

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

# More layers than any encoder of ours has.
_Similarities = Annotated[list[Share], Field(min_length=1, max_length=64)]


class Choice(Section):
    """A word that a model would put in the place of a masked one."""

    word: str
    probability: Share


class Guess(Section):
    """A masked word, and the first choices of both models, best first.

    Attributes:
        before: text before it.
        after: text behind it.
        word: the masked word.
        teacher: its choices.
        student: the student's.
    """

    before: str
    after: str
    word: NonEmptyText
    teacher: list[Choice] = Field(min_length=1, max_length=20)
    student: list[Choice] = Field(min_length=1, max_length=20)


class SideBySide(Section):
    """What both models made of the same held-out sequences.

    Attributes:
        sequences: how many.
        similarity: linear CKA of the hidden states, a row for the teacher's
            embeddings and each of its layers, in it a value for the
            student's embeddings and each of its layers.
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
        student: one of the same vocabulary.
        triple: a batch as `fit` takes it.
        tokenizer: of their vocabulary.
        samples: int >= 0, sequences of which words are kept.
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
            # Rounding may take it past its end.
            Choice(word=word, probability=min(round(share, 4), 1.0))
            for word, share in getattr(found, name)
        ]
        for name in ("teacher", "student")
    }
    texts = dataclasses.asdict(found) | choices
    return Guess(**texts)


def read(path: Path) -> SideBySide | None:
    """What a run kept; None if it is not there, or damaged."""
    try:
        found = SideBySide.model_validate(json.loads(read_text(path)))
    except (ValueError, RecursionError):
        return None
    return found if len({len(row) for row in found.similarity}) == 1 else None
