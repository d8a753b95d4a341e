"""Training and scoring of a student of sentence embeddings."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras_hub.models import TextEmbedder

from keras_distil import callbacks, config, data, edge, export, teachers
from keras_distil.config.distill_section import DistillSection
from keras_distil.runs import time_plan
from keras_distil.runs.distillation import make_balancer, make_distiller
from keras_distil.runs.embeddings import neighbours
from keras_distil.runs.embeddings.beside import (
    Beside,
    list_missing,
    open_beside,
)
from keras_distil.runs.embeddings.measures import (
    Contestant,
    Scorer,
    measure_costs,
    open_measures,
)
from keras_distil.runs.embeddings.student import (
    make_embedder,
    read_as_student,
    reduce_teacher,
)
from keras_distil.runs.embeddings.teacher import TaughtTexts, keep_vectors
from keras_distil.runs.embeddings.texts import RunTexts, read_texts
from keras_distil.runs.exports import rehearse_export
from keras_distil.runs.fit import fit_on_text, settle_jit_compile
from keras_distil.runs.run_folder import LOGS, STUDENT_FILE, Run
from keras_distil.runs.schedules import make_schedulers
from keras_distil.runs.sections import distill_section
from keras_distil.runs.settled import counts_minutes, read_settled
from keras_distil.runs.teacher import TeacherInMemory

# The row of a static table in 8 bits, which NumPy reads.
TABLE_ROW = "student, int8"


def distill_embeddings(
    run: Run, teacher: TeacherInMemory, report: dict[str, Any]
) -> None:
    """Distils the student, and scores all models. Adds to the report."""
    # Before the work, so that a damaged file shows at once.
    measures = open_measures(run.recipe)
    for line in [*measures.missing, *list_missing(run.recipe)]:
        run.progress.warn(line)
    beside = open_beside(run.recipe)
    texts = read_texts(run)
    scorer = Scorer(run, texts.held_out, measures)
    rows = _Distillation(run, teacher, texts, scorer, beside).rows()
    settings = distill_section(run.recipe)
    report["corpus"] = {
        "train_texts": len(texts.train),
        "held_out_texts": len(texts.held_out),
        "fingerprint": texts.fingerprint,
    }
    report["updates"] = count_steps(settings, texts)
    report["rows"] = rows


def count_steps(settings: DistillSection, texts: RunTexts) -> int:
    """Counts the student's updates, given directly or as epochs."""
    if settings.steps is not None:
        return settings.steps
    read = len(texts.train) * (settings.epochs or 0.0)
    return max(1, round(read / settings.batch_size))


def reads_layers(settings: DistillSection) -> bool:
    """Whether a loss reads the teacher's layers, so that it runs each step."""
    named = settings.losses.by_name.values()
    return any(x.is_on_states or x.is_on_attention for x in named)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a student is trained on.

    Attributes:
        teacher: the teacher, or its vectors if no loss reads its states.
        batches: makes the batches.
    """

    teacher: TextEmbedder | teachers.CachedEmbeddingTeacher
    taught: TaughtTexts
    read_as: data.EncodedExamples | None

    def batches(self, recipe: config.Recipe) -> Any:
        """Returns an endless dataset of texts and the teacher's vectors."""
        return self.taught.cached.dataset(
            self.taught.examples,
            batch_size=distill_section(recipe).batch_size,
            seed=recipe.seed,
            read_as=self.read_as,
        )


def train_student(
    run: Run,
    lesson: Lesson,
    student: TextEmbedder,
    *,
    steps: int,
    watch: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Distils the student, in place.

    Args:
        run: the run.
        lesson: what it learns from.
        student: the untrained student.
        steps: int >= 1, updates.
        watch: callbacks that only watch.
    """
    settings = distill_section(run.recipe)
    batches = lesson.batches(run.recipe)
    distiller = make_distiller(run.recipe, lesson.teacher, student, steps=steps)
    settle_jit_compile(run, distiller)
    first = [
        *make_schedulers(settings),
        *make_balancer(settings, batches),
        callbacks.StudentCheckpoint(run.folder / STUDENT_FILE),
        *watch,
    ]
    fit_on_text(run, "distill", distiller, batches, settings, steps, first)


class _Distillation:
    """The distillation of one run."""

    def __init__(
        self,
        run: Run,
        teacher: TeacherInMemory,
        texts: RunTexts,
        scorer: Scorer,
        beside: Mapping[str, Beside],
    ) -> None:
        self._run = run
        self._teacher = teacher
        self._texts = texts
        self._scorer = scorer
        self._beside = beside

    def rows(self) -> dict[str, dict[str, float]]:
        """Trains the student; returns scores and costs of all models."""
        run = self._run
        taught = keep_vectors(run, self._teacher, self._texts)
        student = self._make_student(taught)
        lesson = self._make_lesson(taught, student)
        # Losses that do not fit the models are found before the long work.
        make_distiller(run.recipe, lesson.teacher, student, steps=1)
        rows = {"teacher": self._scorer.score("teacher", self._teacher.model)}
        scoring = time.monotonic()
        rows["student before"] = self._scorer.score("student before", student)
        score_s = time.monotonic() - scoring
        costs = self._measure_costs(student)
        if counts_minutes(run.recipe):
            rest_s = score_s + self._rehearse(student)
            self._settle_steps(lesson, taught, rest_s)
            # The updates that were timed must leave no trace.
            student = self._make_student(taught)
        steps = count_steps(distill_section(run.recipe), self._texts)
        if lesson.teacher is taught.cached:
            self._teacher.release()
        train_student(run, lesson, student, steps=steps)
        rows["student"] = self._scorer.score("student", student)
        if run.writes:
            callbacks.write_scores(
                run.folder / LOGS / "distill", rows["student"], steps
            )
            neighbours.keep(run, self._texts.held_out, self._scorer.vectors)
        found = {
            name: row | costs["teacher" if name == "teacher" else "student"]
            for name, row in rows.items()
        }
        for name, other in self._beside.items():
            found[name] = self._scorer.score(name, other.scored) | costs[name]
        settings = run.recipe.student
        if settings is not None and settings.kind == "static":
            found[TABLE_ROW] = self._table_row(student)
        return found

    def _table_row(self, student: TextEmbedder) -> dict[str, float]:
        """Scores and times a static student as it is shipped."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "table")
            export.export(student, folder, format="static_table")
            table = edge.StaticStudent(folder)
            costs = measure_costs(
                self._run,
                {TABLE_ROW: Contestant.of_table(table)},
                self._scorer.typical_texts(),
            )
            return self._scorer.score(TABLE_ROW, table.embed) | costs[TABLE_ROW]

    def _make_student(self, taught: TaughtTexts) -> TextEmbedder:
        # Does not depend on whether an earlier stage was already done.
        keras.utils.set_random_seed(self._run.recipe.seed)
        reduced = reduce_teacher(self._teacher.model, taught)
        return make_embedder(self._run, reduced, self._texts, taught)

    def _make_lesson(
        self, taught: TaughtTexts, student: TextEmbedder
    ) -> Lesson:
        recipe = self._run.recipe
        read_as = read_as_student(self._run, student, self._texts, taught)
        if not reads_layers(distill_section(recipe)):
            return Lesson(taught.cached, taught, read_as)
        live = self._teacher.in_compute_precision(recipe)
        return Lesson(reduce_teacher(live, taught), taught, read_as)

    def _measure_costs(
        self, student: TextEmbedder
    ) -> dict[str, dict[str, float]]:
        contestants = {
            "teacher": Contestant.of_model(self._teacher.model),
            "student": Contestant.of_model(student),
            **{row: other.contestant for row, other in self._beside.items()},
        }
        return measure_costs(
            self._run,
            contestants,
            self._scorer.typical_texts(),
        )

    def _rehearse(self, student: TextEmbedder) -> float:
        """Returns the seconds that exporting a student takes."""
        run = self._run
        known = read_settled(run.folder).steps is not None
        if run.recipe.minutes is None or known or not run.writes:
            return 0.0
        run.progress.say("Rehearse what follows the training, to know its time")
        began = time.monotonic()
        rehearse_export(run, student)
        return time.monotonic() - began

    def _settle_steps(
        self, lesson: Lesson, taught: TaughtTexts, rest_s: float
    ) -> None:
        """Finds how many updates the recipe's minutes are enough for."""
        began = time.monotonic()

        def train(scratch: Run, clock: keras.callbacks.Callback) -> None:
            steps = count_steps(distill_section(scratch.recipe), self._texts)
            student = self._make_student(taught)
            train_student(scratch, lesson, student, steps=steps, watch=[clock])

        time_plan.settle_steps(self._run, [train], began=began, rest_s=rest_s)
