"""The trials of a search over a recipe for sentence embeddings."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from keras_hub.models import Task

from keras_distil import config, models
from keras_distil.evaluation.neighbours import neighbour_agreement
from keras_distil.evaluation.vectors import encode
from keras_distil.runs.embeddings.distillation import Lesson, reads_layers
from keras_distil.runs.embeddings.student import (
    make_embedder,
    read_as_student,
    reduce_teacher,
)
from keras_distil.runs.embeddings.teacher import keep_vectors
from keras_distil.runs.embeddings.texts import read_texts
from keras_distil.runs.run_folder import Run
from keras_distil.runs.sections import distill_section
from keras_distil.runs.teacher import TeacherInMemory
from keras_distil.search.trials import (
    CHECKED,
    CHOSEN,
    HeldOutScores,
    RecipeTrials,
)
from keras_distil.utils import disk

# Fewer would be neighbours whatever a student does.
_FEWEST = 40


class EmbeddingTrials(RecipeTrials):
    """The trials of `keras-distil search` for sentence embeddings.

    Args:
        run: the run of the search.
        teacher: the recipe's teacher.

    Raises:
        ValueError: if there is too little held-out text to choose trials.
    """

    def __init__(self, run: Run, teacher: TeacherInMemory) -> None:
        self._run = run
        self._latencies: dict[str, float] = {}
        self._texts = read_texts(run)
        self._taught = keep_vectors(run, teacher, self._texts)
        self._reduced = reduce_teacher(teacher.model, self._taught)
        self._halves_of_texts = _halve(self._texts.held_out)
        self._vectors = {
            half: encode(
                teacher.model,
                texts,
                role="text",
                batch_size=run.recipe.evaluate.batch_size,
            )
            for half, texts in self._halves_of_texts.items()
        }
        self._set_up(
            self._reduced
            if reads_layers(distill_section(run.recipe))
            else self._taught.cached,
            run.recipe,
        )

    def make_student(
        self, recipe: config.Recipe, *, dtype: str | None = None
    ) -> Task:
        """Builds the student of a trial's recipe."""
        # Tables of equal shape begin equal, and take a while to make.
        shape = recipe.student.model_dump_json() if recipe.student else ""
        key = disk.sha256(shape.encode())[:16]
        folder = self._run.folder / "students" / key
        folder.mkdir(parents=True, exist_ok=True)
        run = Run(recipe, folder, self._run.progress)
        student = make_embedder(run, self._reduced, self._texts, self._taught)
        return student if dtype is None else models.with_dtype(student, dtype)

    def make_batches(
        self, recipe: config.Recipe, student: Task
    ) -> tf.data.Dataset:
        """Returns the training batches of a trial."""
        run = Run(recipe, self._run.folder, self._run.progress)
        read_as = read_as_student(run, student, self._texts, self._taught)
        lesson = Lesson(self.teacher, self._taught, read_as)
        return lesson.batches(recipe)

    def make_scores(self) -> HeldOutScores:
        """Returns what scores the student of a trial."""
        return _AgreementScores(
            self._halves_of_texts,
            self._vectors,
            self.recipe.evaluate.batch_size,
        )

    def make_call(self, recipe: config.Recipe) -> Callable[[], Any]:
        """Returns the call whose latency is measured, in float32."""
        texts = sorted(self._texts.held_out, key=len)
        student: Any = self.make_student(recipe, dtype="float32")
        return functools.partial(student.encode_text, texts[len(texts) // 2])


def _halve(texts: list[str]) -> dict[str, list[str]]:
    """Splits held-out texts alternately, for choosing and for checking."""
    if len(texts) < _FEWEST:
        raise ValueError(
            f"A search needs at least {_FEWEST} held-out texts, half to choose "
            f"a trial and half to check it. Received: {len(texts)}. Add text, "
            "or raise `data.held_out_fraction` or `evaluate.sequences`."
        )
    return {CHOSEN: texts[::2], CHECKED: texts[1::2]}


class _AgreementScores(HeldOutScores):
    """Agreement with the teacher on the neighbours of held-out texts."""

    def __init__(
        self,
        halves: Mapping[str, list[str]],
        vectors: Mapping[str, np.ndarray],
        batch_size: int,
    ) -> None:
        super().__init__()
        self._halves = halves
        self._vectors = vectors
        self._batch_size = batch_size

    def measure(self, student: Task) -> dict[str, float]:
        """Returns the student's scores, by half and name."""
        return {
            f"{half}_teacher_agreement": neighbour_agreement(
                self._vectors[half],
                encode(
                    student, texts, role="text", batch_size=self._batch_size
                ),
            )
            for half, texts in self._halves.items()
        }
