"""Checks of a recipe against the models that it names."""

from keras_distil import config


def check_lengths(
    recipe: config.Recipe, positions: int, model: str = "the teacher"
) -> None:
    """Raises ValueError if a length of the recipe is beyond a model's table.

    Args:
        recipe: the recipe.
        positions: rows of the model's position embeddings.
        model: what the message calls it.
    """
    for key, length in _lengths(recipe).items():
        if length > positions:
            most = f"[{positions}]" if key in _LISTS else f"{positions}"
            raise ValueError(
                f"`{key}` is {length}, but {model} has {positions} "
                f"positions. Set it to {positions} or below: --set "
                f"{key}={most}."
            )


_LISTS = ("export.lengths",)


def _lengths(recipe: config.Recipe) -> dict[str, int]:
    """By key, the tokens of the sequences that a run will make."""
    lengths: dict[str, int] = {}
    trains = recipe.distill is not None or recipe.finetune is not None
    if recipe.distill is not None or recipe.teacher.train is not None:
        lengths["data.sequence_length"] = recipe.data.sequence_length
    if recipe.finetune is not None:
        lengths["finetune.max_length"] = recipe.finetune.max_length
    if trains:
        lengths["evaluate.latency_length"] = recipe.evaluate.latency_length
    if trains and recipe.export is not None:
        if recipe.export.max_length is not None:
            lengths["export.max_length"] = recipe.export.max_length
        if recipe.export.lengths is not None:
            lengths["export.lengths"] = max(recipe.export.lengths)
    return lengths


def check_vocabulary(source: str, students: int, teachers: int) -> None:
    """Raises ValueError if a student's vocabulary is not its teacher's.

    Args:
        source: where the student comes from.
        students: entries of its vocabulary.
        teachers: entries of its teacher's.
    """
    if students != teachers:
        raise ValueError(
            f"The student in {source} has a vocabulary of {students} entries, "
            f"its teacher one of {teachers}. They do not belong together."
        )
