"""The students of a run: newly made, or loaded from files."""

from collections.abc import Mapping

from keras_hub.models import MaskedLM, Task

from keras_distil import config, models
from keras_distil.runs import score_table
from keras_distil.runs.checks import (
    check_cut_sizes,
    check_layers,
    check_lengths,
    check_vocabulary,
)
from keras_distil.runs.given_files import given_students
from keras_distil.runs.run_folder import BASELINE_FILE, STUDENT_FILE, Run
from keras_distil.runs.sections import finetune_section, student_section
from keras_distil.runs.task_results import (
    MODEL_FILE,
    TaskTraining,
    plan_training,
)
from keras_distil.runs.tasks import BuiltTask

# A student of other sizes takes no weights of its teacher.
_WIDTHS = ("hidden_dim", "intermediate_dim", "num_heads")


def make_student(
    recipe: config.Recipe, teacher: MaskedLM, *, dtype: str | None = None
) -> MaskedLM:
    """Makes the untrained student, identical on every call.

    Raises:
        ValueError: if the recipe has no student, or a loss pairs layers that do
            not exist.
    """
    settings = student_section(recipe)
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


def make_task_model(
    run: Run, planned: TaskTraining, encoder: MaskedLM, task: BuiltTask
) -> Task:
    """Makes the untrained model of a row on a task.

    Args:
        run: the run.
        planned: the training.
        encoder: the model to start from; not used if the row is cut from the
            fine-tuned teacher, whose output layer it then has, too.
        task: the task.
    """
    dropout = finetune_section(run.recipe).dropout
    if not run.recipe.cuts(planned.row, planned.task):
        return models.task_model(
            encoder,
            task.kind,
            task.outputs,
            dropout=dropout,
            labels=task.labels,
            seed=planned.seed,
        )
    teacher = plan_training(
        run, planned.task, score_table.TEACHER, planned.seed
    )
    settings = student_section(run.recipe)
    return models.initialize_student(
        models.load_task_model(teacher.folder / MODEL_FILE),
        **settings.shape(),
        initialization=settings.initialization,
        dropout=dropout,
        dtype=run.recipe.precision,
        seed=planned.seed,
    )


def copies_weights(
    recipe: config.Recipe,
    row: str,
    task: str,
    encoders: Mapping[str, MaskedLM],
) -> bool:
    """Whether a row begins with weights of the task's fine-tuned teacher.

    Args:
        recipe: the recipe.
        row: the row.
        task: the task.
        encoders: by row, models of its size.
    """
    if not recipe.cuts(row, task):
        return False
    student, teacher = (
        [getattr(encoders[x].backbone, name) for name in _WIDTHS]
        for x in (row, score_table.TEACHER)
    )
    wanted = student_section(recipe).initialization
    return wanted == "teacher" and student == teacher


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
        check_cut_sizes(run.recipe, source)
        students[row] = student
    return students


def stand_in_students(run: Run, teacher: MaskedLM) -> dict[str, MaskedLM]:
    """Makes students of the untuned teacher, by row.

    Students that are cut from a fine-tuned teacher later have their sizes.

    Raises:
        ValueError: if a loss pairs layers that do not exist.
    """
    rows = [x for x in finetune_section(run.recipe).rows if run.recipe.makes(x)]
    if not rows:
        return {}
    return dict.fromkeys(rows, make_student(run.recipe, teacher))


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
