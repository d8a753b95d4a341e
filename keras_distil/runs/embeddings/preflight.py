"""Opens the inputs of a run of embeddings, before any work is done."""

from keras_distil import config
from keras_distil.models.shape import embedder_shape, student_shape
from keras_distil.runs.checks import check_layers
from keras_distil.runs.embeddings.beside import list_missing, open_beside
from keras_distil.runs.embeddings.measures import open_measures


def open_models(recipe: config.Recipe) -> None:
    """Checks teacher and student by their shapes.

    Raises:
        ValueError: if they do not fit each other or the texts.
    """
    teacher, _ = embedder_shape(recipe.teacher.encoder_source)
    check_length(recipe, teacher.max_sequence_length)
    student = recipe.student
    if student is not None and student.kind == "encoder":
        shape = student_shape(teacher, **student.shape())
        check_layers(recipe, teacher, shape)


def open_files(recipe: config.Recipe) -> list[str]:
    """Reads the files that models are scored on, and the models beside them.

    Returns:
        A line for each that is missing.

    Raises:
        ValueError: if one is damaged.
    """
    missing = [*open_measures(recipe).missing, *list_missing(recipe)]
    open_beside(recipe)
    return missing


def check_length(recipe: config.Recipe, positions: int | None) -> None:
    """Raises ValueError if texts may be longer than a model's positions."""
    length = recipe.data.sequence_length
    if positions is not None and length > positions:
        raise ValueError(
            f"`data.sequence_length` is {length}, but the teacher has "
            f"{positions} positions. Set it to {positions} or below: --set "
            f"data.sequence_length={positions}."
        )
