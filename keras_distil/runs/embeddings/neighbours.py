"""Nearest neighbours of held-out texts by teacher and student, kept."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from keras_distil.evaluation.neighbours import nearest_others
from keras_distil.runs.run_folder import Run, read_text
from keras_distil.utils.section import NonEmptyText, Section

NEIGHBOURS_FILE = "neighbours.json"
_SHOWN = 3
# Characters of a text that are kept.
_LENGTH = 200


class Neighbour(Section):
    """A text near another one, and the cosine of their vectors."""

    text: NonEmptyText
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)]


class Sample(Section):
    """A held-out text with its nearest others, the nearest first.

    Attributes:
        text: the text.
        teacher: its neighbours by the teacher's vectors.
        student: its neighbours by the student's.
    """

    text: NonEmptyText
    teacher: list[Neighbour] = Field(min_length=1, max_length=20)
    student: list[Neighbour] = Field(min_length=1, max_length=20)


class Neighbours(Section):
    """Some held-out texts with their neighbours.

    Attributes:
        texts: number of held-out texts among which they were found.
        samples: some of them.
    """

    texts: int = Field(ge=2)
    samples: list[Sample] = Field(max_length=100)


def keep(
    run: Run, texts: Sequence[str], vectors: Mapping[str, np.ndarray]
) -> None:
    """Writes the neighbours of some texts, for the report.

    Args:
        run: the run; `evaluate.samples` says of how many texts.
        texts: the held-out texts.
        vectors: their vectors by "teacher" and "student".
    """
    count = min(run.recipe.evaluate.samples, len(texts))
    chosen = (np.arange(count) * len(texts) // max(count, 1)).tolist()
    nearest = {
        row: nearest_others(vectors[row], _SHOWN)
        for row in ("teacher", "student")
    }
    samples = [
        Sample(
            text=_shortened(texts[number]),
            **{
                row: [
                    Neighbour(
                        text=_shortened(texts[place]),
                        cosine=round(float(cosine), 4),
                    )
                    for place, cosine in zip(
                        found.documents[number].tolist(),
                        found.scores[number].tolist(),
                        strict=True,
                    )
                ]
                for row, found in nearest.items()
            },
        )
        for number in chosen
    ]
    found = Neighbours(texts=len(texts), samples=samples)
    run.write_json(run.folder / NEIGHBOURS_FILE, found.model_dump())


def read(path: Path) -> Neighbours | None:
    """Reads a run's neighbours; None if they are missing or damaged."""
    try:
        return Neighbours.model_validate(json.loads(read_text(path)))
    except (ValueError, RecursionError):
        return None


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LENGTH else f"{line[: _LENGTH - 3]}..."
