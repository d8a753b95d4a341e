"""The students of a run: newly made, or loaded from files."""

from keras_hub.models import MaskedLM

from keras_distil import config, models
from keras_distil.runs import score_table
from keras_distil.runs.checks import (
    check_layers,
    check_lengths,
    check_vocabulary,
)
from keras_distil.runs.given_files import given_students
from keras_distil.runs.run_folder import BASELINE_FILE, STUDENT_FILE, Run


def make_student(
    recipe: config.Recipe, teacher: MaskedLM, *, dtype: str | None = None
) -> MaskedLM:
    """Makes the untrained student, identical on every call.

    Raises:
        ValueError: if the recipe has no student, or a loss pairs layers that do
            not exist.
    """
    settings = recipe.student
    if settings is None:
        raise ValueError(f"The recipe {recipe.name!r} has no student.")
    student = models.initialize_student(
        teacher,
        **settings.shape(),
        initialization=settings.initialization,
        dropout=settings.dropout,
        dtype=dtype or recipe.precision,
        seed=recipe.seed,
    )
    check_layers(recipe, teacher.backbone, student.backbone)
    return student


def load_student(
    recipe: config.Recipe, source: str, teacher: MaskedLM
) -> MaskedLM:
    """Loads a distilled student and checks it against the teacher.

    Args:
        recipe: the recipe.
        source: the student's file.
        teacher: the teacher, which must have the same vocabulary.

    Raises:
        ValueError: if the student cannot be loaded or has another vocabulary.
    """
    student = models.load_teacher(source, dtype=recipe.precision)
    check_vocabulary(
        source,
        student.backbone.vocabulary_size,
        teacher.backbone.vocabulary_size,
    )
    check_layers(recipe, teacher.backbone, student.backbone)
    return student


def load_given_students(run: Run, teacher: MaskedLM) -> dict[str, MaskedLM]:
    """Loads the distilled students that the recipe names."""
    students: dict[str, MaskedLM] = {}
    for row, source in given_students(run.recipe).items():
        student = load_student(run.recipe, source, teacher)
        positions = student.backbone.max_sequence_length
        check_lengths(run.recipe, positions, f"the student in {source}")
        students[row] = student
    return students


def load_students_of_run(run: Run, teacher: MaskedLM) -> dict[str, MaskedLM]:
    """Loads the students that this run has distilled."""
    files = {
        score_table.STUDENT: STUDENT_FILE,
        score_table.BASELINE: BASELINE_FILE,
    }
    return {
        row: load_student(run.recipe, str(run.folder / name), teacher)
        for row, name in files.items()
        if (run.folder / name).is_file()
    }


def make_elmo() -> models.ElmoClassifier:
    """Makes the ELMo baseline of the paper's table, for single texts."""
    return models.ElmoClassifier(num_outputs=2)
